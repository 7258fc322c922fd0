"""`qir quantize`: a model and some data in, an integer ONNX file and a summary out."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from qir.api.quantize import quantization
from qir.api.run import execute
from qir.api.summary import as_text, speed_as_text
from qir.errors import QirError
from qir.files import write_text
from qir.runs.recording import recorded
from qir.runs.run import JSON_KEY, Run


def quantize_model(arguments: Namespace) -> None:
    """Quantize, write the ONNX file, and say what came out."""
    run, output = run_of(arguments), Path(arguments.output)
    with recorded(arguments.record, {"run": str(run), "model": run.model, "data": run.data}) as record:
        done = execute(run, record)
    done.write(output.parent, {"onnx": output.name})
    summary, speed = done.summary, done.speedup
    print("\n".join([*as_text(summary, output), speed_as_text(speed)]))
    if arguments.json:
        document = {**asdict(summary), "speedup": speed, JSON_KEY: str(done.run)}
        write_text(Path(arguments.json), json.dumps(document, indent=1) + "\n")
    if arguments.report:
        page = Path(arguments.report)
        done.write(page.parent, {"page": page.name})


def run_of(arguments: Namespace) -> Run:
    """The run that the arguments say. Raises QirError for an output that is no ONNX file, and for wrong options."""
    output = Path(arguments.output)
    if output.suffix != ".onnx":
        raise QirError(f"the output {output.name} is no ONNX file", help="let its name end in .onnx")
    insert, calibrate = insert_options(arguments), calibrate_options(arguments)
    passes = quantization(arguments.target, insert=insert, calibrate=calibrate).passes
    outputs = {"onnx": output.name} | ({"page": Path(arguments.report).name} if arguments.report else {})
    model, data = _from_here(arguments.model), _from_here(arguments.data)
    return Run(model, data, arguments.target, passes=tuple(map(str, passes)), outputs=outputs)


def _from_here(name: str) -> str:
    """The name of a file as seen from the working folder, where it lies below it; other names as they are."""
    path = Path(name)
    below = path.is_absolute() and path.exists() and path.is_relative_to(Path.cwd())
    return str(path.relative_to(Path.cwd())) if below else name


def insert_options(arguments: Namespace) -> str:
    """The options of `insert-quantizers` that the command line gives."""
    options = [f"per_channel={str(arguments.per_channel).lower()}"] if arguments.per_channel is not None else []
    options += [f"rules={json.dumps(arguments.rules)}"] if arguments.rules else []
    if arguments.exclude:
        options.append(f"exclude=[{','.join(map(json.dumps, arguments.exclude))}]")
    for name in ("output_bw", "param_bw"):
        if (bits := getattr(arguments, name)) is not None:
            options.append(f"{name}={bits}")
    return " ".join(options)


def calibrate_options(arguments: Namespace) -> str:
    """The options of `calibrate`."""
    options = [f"method={arguments.method}"] if arguments.method else []
    options += [f"percentile={arguments.percentile}"] if arguments.percentile is not None else []
    return " ".join(options)
