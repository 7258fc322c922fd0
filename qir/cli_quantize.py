"""`qir quantize`: a model and some data in, an integer ONNX file and a summary out."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.api import Quantized, quantize
from qir.batches import Batch, arrays_of, batch_files, load_batch, peeked
from qir.cli_files import read_graph
from qir.errors import QirError
from qir.files import write_text
from qir.graph import Graph
from qir.lint import Verdict, lint
from qir.recording import recorded

if TYPE_CHECKING:
    import onnx

BATCH = 16
"""How many samples of an array are run at a time where the model takes any number."""

ROUNDS = 15
"""How often each of two models is timed."""


def quantize_model(arguments: Namespace) -> None:
    """Quantize, write the ONNX file, and say what came out."""
    output = Path(arguments.output)
    if output.suffix != ".onnx":
        raise QirError(f"the output {output.name} is no ONNX file", help="let its name end in .onnx")
    model = model_of(arguments.model)
    first, data = peeked(batches_for(model, arguments.data))
    insert, calibrate = insert_options(arguments), calibrate_options(arguments)
    about = {"model": arguments.model, "data": arguments.data}
    with recorded(arguments.record, about) as record:
        quantized = quantize(
            model, data=data, target=arguments.target, insert=insert, calibrate=calibrate, watch=record
        )
    quantized.save(output)
    verdicts = lint(quantized.graph, arguments.target)
    summary = summarize(model, quantized, output, first, verdicts)
    print("\n".join(as_text(summary, output)))
    if arguments.json:
        write_text(Path(arguments.json), json.dumps(asdict(summary), indent=1) + "\n")
    if arguments.report:
        _report(arguments, output, quantized, first)


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


# -- what is given ---------------------------------------------------------------------------------------------------


def model_of(text: str) -> Any:
    """The graph in a file, or what `package.module:function` returns."""
    if Path(text).exists() or ":" not in text:
        return read_graph(text)
    made = _called(text)
    if not hasattr(made, "named_modules") and not isinstance(made, Graph):
        raise QirError(f"{text} returns a {type(made).__name__}", help="let it return a torch module")
    return made


def batches_for(model: Any, text: str) -> Iterable[Batch]:
    """Batches of data of the size that the model takes."""
    return batches(text, batch_size(model))


def batch_size(model: Any) -> int | None:
    """The number of samples that a graph takes, None when it takes any."""
    sizes = [value.type.shape[0] for value in model.inputs if value.type.shape] if isinstance(model, Graph) else []
    return next((size for size in sizes if isinstance(size, int)), None)


def batches(text: str, size: int | None = None) -> Iterable[Batch]:
    """Batches of data: of an .npz or .npy file, of a folder of those, or of `package.module:function`.

    Files are split into batches of `size` samples; what is left of a file then is not enough for a batch, and unused.
    """
    path = Path(text)
    if not path.exists() and ":" in text and path.suffix not in (".npz", ".npy"):
        found = _called(text)
        if not isinstance(found, Iterable):
            raise QirError(f"{text} returns a {type(found).__name__}", help="let it yield batches")
        return found
    return _from_files(path, size)


def _from_files(path: Path, size: int | None) -> Iterator[Batch]:
    for file in batch_files(path):
        loaded = load_batch(file)
        names = list(loaded) if isinstance(loaded, Mapping) else None
        arrays = _arrays(loaded)
        sizes = {array.shape[0] if array.ndim else 0 for array in arrays}
        if len(sizes) != 1 or 0 in sizes:
            raise QirError(f"the arrays in {file} do not hold the same number of samples", stage="calibrate",
                           help="let the first axis of each be that of the samples")  # fmt: skip
        step, count = size or BATCH, sizes.pop()
        for start in range(0, count - (count % step if size else 0), step):
            parts = [array[start : start + step] for array in arrays]
            yield parts if names is None else dict(zip(names, parts, strict=True))


def _arrays(loaded: Batch) -> list[np.ndarray]:
    if isinstance(loaded, np.ndarray):
        return [loaded]
    return list(loaded.values() if isinstance(loaded, Mapping) else loaded)


def function_at(text: str) -> Callable[..., Any]:
    """The function at `package.module:function`; the working folder is searched, too."""
    module, _, name = text.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise QirError(f"can not find {text}: {error}", help="give a file, or package.module:function") from None
    if not callable(function):
        raise QirError(f"{text} is a {type(function).__name__}", help="give a function")
    found: Callable[..., Any] = function
    return found


def _called(text: str) -> Any:
    """What the function at `package.module:function` returns."""
    function = function_at(text)
    try:
        return function()
    except Exception as error:  # whatever the user's function raises
        raise QirError(f"{text} fails: {type(error).__name__}: {error}") from error


# -- what came out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Summary:
    """An integer model beside its float model, on the first batch of the data, in onnxruntime on one thread.

    Sizes are bytes; `signal_to_noise` is in decibels for each output, None when nothing differs; `speedup` is the
    median of paired times of the float model over the integer model.
    """

    size: int
    float_size: int
    integer_operators: int
    float_operators: int
    signal_to_noise: dict[str, float | None]
    speedup: float
    pipeline: str


def summarize(model: Any, quantized: Quantized, output: Path, batch: Batch, verdicts: list[Verdict]) -> Summary:
    """What came out of `quantized`, which was written to `output`."""
    import onnx

    from qir.backends.onnx_qdq import session

    shipped, plain = onnx.load(str(output)), float_onnx(quantized)
    feeds = arrays_of(quantized.graph, batch, 1)
    running = [session(plain), session(shipped)]
    fed = [dict(zip((entry.name for entry in each.get_inputs()), feeds, strict=True)) for each in running]
    names = [value.name for value in shipped.graph.output]
    ours, theirs = (each.run(None, feed) for each, feed in zip(running, fed, strict=True))
    return Summary(
        size=output.stat().st_size,
        float_size=plain.ByteSize(),
        integer_operators=sum(verdict.integer for verdict in verdicts),
        float_operators=sum(not verdict.integer for verdict in verdicts),
        signal_to_noise={name: _ratio(a, b) for name, a, b in zip(names, ours, theirs, strict=True)},
        speedup=_speedup(running, fed),
        pipeline=str(quantized.pipeline),
    )


def float_onnx(quantized: Quantized) -> onnx.ModelProto:
    """The model that was quantized, without its quantizers."""
    from qir.backends.onnx_qdq import emit_onnx
    from qir.tensor_names import float_model

    opset = quantized.target.opset
    return emit_onnx(float_model(quantized.graph, opset).graph, opset=opset, ir_version=quantized.target.ir_version)


def _ratio(ours: np.ndarray, theirs: np.ndarray) -> float | None:
    """The power of the float result over that of the difference, in decibels."""
    exact = ours.astype(np.float64)
    noise = float(np.sum((exact - theirs.astype(np.float64)) ** 2))
    return None if noise == 0 else round(float(10 * np.log10(max(float(np.sum(exact**2)), 1e-300) / noise)), 2)


def _speedup(running: list[Any], fed: list[dict[str, np.ndarray]]) -> float:
    ratios = []
    for _ in range(ROUNDS):
        seconds = []
        for each, feed in zip(running, fed, strict=True):
            started = time.perf_counter()
            each.run(None, feed)
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / seconds[1])
    return round(float(np.median(ratios)), 2)


def as_text(summary: Summary, output: Path) -> Iterator[str]:
    """The summary as a table."""
    total = summary.integer_operators + summary.float_operators
    yield f"{output}: {summary.size:,} bytes, the float model {summary.float_size:,}"
    yield f"  {'operators on integers':28}{summary.integer_operators} of {total}"
    for name, ratio in islice(summary.signal_to_noise.items(), 10):
        yield f"  {'signal to noise of ' + name:28}{'equal' if ratio is None else f'{ratio:.1f} dB'}"
    yield f"  {'speed against float':28}{summary.speedup:.2f} times, onnxruntime on one thread"


def _report(arguments: Namespace, output: Path, quantized: Quantized, batch: Batch) -> None:
    """Write the certificate of what was written, on the first batch."""
    import onnx

    from qir.certificate import certify
    from qir.certificate_page import as_html

    model = onnx.load(str(output))
    names = [value.name for value in model.graph.input]
    inputs = dict(zip(names, arrays_of(quantized.graph, batch, 1), strict=True))
    write_text(Path(arguments.report), as_html(certify(model, arguments.target, inputs), output.name))
