"""What the commands do that judge an integer model: lint, certify."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np

from qir.api.graph_files import read_graph
from qir.api.lint import Verdict, lint
from qir.cli.arrays import read_inputs, read_labels
from qir.errors import QirError, point_at
from qir.files import write_text
from qir.graph import Graph, Value
from qir.runs.run import Run, in_page, metadata_of
from qir.types import NUMPY


def lint_model(arguments: Namespace) -> None:
    """Say what the target computes with integers and why not the rest; exit code 1 when something is left or wrong."""
    verdicts = lint(read_graph(arguments.file), arguments.target)
    bad = [verdict for verdict in verdicts if verdict.wrong or not verdict.integer]
    if arguments.json:
        rows = [
            {**asdict(v.note), "loc": str(v.note.loc or ""), "integer": v.integer, "wrong": v.wrong} for v in verdicts
        ]
        print(json.dumps(rows, indent=1))
    else:
        integer = sum(verdict.integer for verdict in verdicts)
        print(f"{arguments.file} on {arguments.target}: {integer} of {len(verdicts)} operators compute with integers")
        for verdict in verdicts if arguments.all else bad:
            print("\n".join(_verdict(verdict)))
    if bad:
        sys.exit(1)


def certify_model(arguments: Namespace) -> None:
    """Compare every run of a quantized model; exit code 1 when the certificate does not hold."""
    import onnx

    from qir.api.certificate import certify
    from qir.pages.certificate import as_html, as_json, as_text

    path = Path(arguments.file)
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's and the file system's errors share no base class
        raise QirError(f"can not read {path}: {error}", help="give an ONNX model") from None
    graph = read_graph(arguments.file)
    inputs = _inputs(graph, arguments)
    labels = None if arguments.labels is None else _labels(Path(arguments.labels), len(next(iter(inputs.values()))))
    certificate = certify(model, arguments.target, inputs, labels)
    print("\n".join(as_text(certificate)))
    made = metadata_of(model)
    run = None if made is None else Run.parse(made, f"the run in {path}")
    if arguments.report:
        page = as_html(certificate, path.name)
        write_text(Path(arguments.report), page if run is None else in_page(page, run))
    if arguments.json:
        write_text(Path(arguments.json), as_json(certificate, run))
    if not certificate.holds:
        sys.exit(1)


def _inputs(graph: Graph, arguments: Namespace) -> dict[str, np.ndarray]:
    """The inputs given, or random ones: as many samples as asked for."""
    names = [value.hint for value in graph.inputs]
    if arguments.data is not None:
        arrays = read_inputs(Path(arguments.data), graph)
        return {name: array[: arguments.samples] for name, array in zip(names, arrays, strict=True)}
    random = np.random.default_rng(0)
    return {name: _random(value, arguments.samples, random) for name, value in zip(names, graph.inputs, strict=True)}


def _random(value: Value, samples: int, random: np.random.Generator) -> np.ndarray:
    """Normal floats; booleans and small integers where the model wants those. A size that is not fixed is `samples`."""
    type = value.type
    if type.dtype is None or type.shape is None:
        raise QirError(f"the type of %{value.hint} is not known", help="give inputs: --data FILE.npz")
    shape = [size if isinstance(size, int) else samples for size in type.shape]
    dtype = NUMPY[type.dtype]
    return (random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)).astype(dtype)


def _labels(path: Path, samples: int) -> np.ndarray:
    labels = read_labels(path)
    if labels.ndim != 1 or len(labels) < samples:
        raise QirError(
            f"{path} holds labels of shape {list(labels.shape)}", help=f"give one for each of {samples} samples"
        )
    return labels[:samples]


def _verdict(verdict: Verdict) -> Iterator[str]:
    title = "wrong" if verdict.wrong else "integer" if verdict.integer else "float"
    yield f"\n{title}: {verdict.note.reason}"
    yield f"  {verdict.note.node}"
    yield from (f"  {line}" for line in point_at(verdict.note.loc))
    if verdict.note.help:
        yield f"  help: {verdict.note.help}"
