"""`qir analyze`: which quantizers and layers of a model cost how much, as text, as JSON and as a page."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qir.analysis.results import Analysis, AnalyzedQuantizer
from qir.api.analyze import analyze
from qir.api.quantize import quantize
from qir.batches import Batch
from qir.cli.arrays import read_labels
from qir.cli.quantize import calibrate_options, insert_options
from qir.differences import decibels
from qir.facts import is_quantizer
from qir.graph import Graph
from qir.pages.analysis import has_plots, write_analysis
from qir.runs.inputs import batches_for, function_at, model_of

SHOWN = 15
"""How many quantizers the text names."""


def add_options(made: ArgumentParser) -> None:
    """The options of `qir analyze` beside the model, its data and how it is quantized."""
    made.add_argument(
        "-o", "--output", required=True, metavar="FOLDER", help="where analysis.json and analysis.html go"
    )
    made.add_argument("--labels", metavar="NPY", help="labels of the samples: rates the model by its accuracy")
    metric = (
        "package.module:function that rates the outputs, given arrays for all samples and the labels; more is better"
    )
    made.add_argument("--metric", metavar="FUNCTION", help=metric)
    samples = "how many samples of the data to analyze (default: 64)"
    made.add_argument("--samples", type=int, default=64, metavar="N", help=samples)
    jobs = "how many processes share the work; the result does not depend on it (default: one for each core)"
    made.add_argument("--jobs", type=int, default=_cores(), metavar="N", help=jobs)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def analyze_model(arguments: Namespace) -> None:
    """Analyze, write the results, and say what matters. A float model is quantized first, on all of the data."""
    from qir.backends.torch_distributed import place
    from qir.backends.torch_replay import one_thread

    folder = Path(arguments.output)
    labels = None if arguments.labels is None else read_labels(Path(arguments.labels))
    metric = None if arguments.metric is None else function_at(arguments.metric)
    model = model_of(arguments.model)
    data: Iterable[Batch] = batches_for(model, arguments.data)
    with one_thread():
        if not _is_quantized(model):
            kept: list[Batch] = []
            insert, calibrate = insert_options(arguments), calibrate_options(arguments)
            seen = _keeping(data, kept, arguments.samples)
            model, data = quantize(model, data=seen, target=arguments.target, insert=insert, calibrate=calibrate), kept
        with _process_group():
            found = analyze(model, data, labels=labels, metric=metric, samples=arguments.samples,
                            jobs=arguments.jobs, folder=folder)  # fmt: skip
            if place()[0] == 0:
                write_analysis(found, folder)
                print("\n".join(as_text(found)))


def _is_quantized(model: Any) -> bool:
    quantizing = ("QuantizeLinear", "DequantizeLinear")
    return isinstance(model, Graph) and any(is_quantizer(node) or node.op in quantizing for node in model.nodes())


def _keeping(data: Iterable[Batch], kept: list[Batch], samples: int) -> Iterator[Batch]:
    """The batches as they come; `kept` gets the first ones, with `samples` at least."""
    for batch in data:
        if sum(map(_size, kept)) < samples:
            kept.append(batch)
        yield batch


def _size(batch: Batch) -> int:
    parts = [batch] if hasattr(batch, "shape") else batch.values() if isinstance(batch, Mapping) else batch
    shape = next((part.shape for part in parts), ())
    return int(shape[0]) if shape else 1


@contextmanager
def _process_group() -> Iterator[None]:
    """A process group of all that torchrun started, where it started several."""
    import torch.distributed as dist

    ours = int(os.environ.get("WORLD_SIZE", "1")) > 1 and dist.is_available() and not dist.is_initialized()
    if ours:
        dist.init_process_group("gloo")
    try:
        yield
        if ours:
            dist.barrier()  # a process that leaves early breaks the connections of the others
    finally:
        if ours:
            dist.destroy_process_group()


# -- what came out ---------------------------------------------------------------------------------------------------


def as_text(found: Analysis) -> Iterator[str]:
    """The analysis in lines for a terminal."""
    yield f"{found.model}: {found.samples} samples, {len(found.quantizers)} grids"
    rows = {"all quantizers": found.quantized, "weights alone": found.weights, "activations alone": found.activations}
    for name, measured in {"float": found.floating, **rows}.items():
        score = "" if measured.score is None else f"  {found.metric} {measured.score:.4f}"
        yield f"  {name:20}{decibels(measured.sqnr):>9}{score}"
    if found.misfits:
        yield "\ngrids that do not fit what their tensors hold"
    for quantizer in found.misfits[:SHOWN]:
        yield f"  {quantizer.name}: {misfit(quantizer)}"
        if quantizer.line:
            yield f"    --> {quantizer.line}"
    fitting = [quantizer for quantizer in found.quantizers if quantizer.fits]
    yield "\nthe model's outputs with one grid alone, and with all others"
    for quantizer in fitting[:SHOWN]:
        both = f"{decibels(quantizer.alone.sqnr):>9} {decibels(quantizer.without.sqnr):>9}"
        yield f"  {both}  {quantizer.name}  ({quantizer.grid})"
    if len(fitting) > SHOWN:
        yield f"  and {len(fitting) - SHOWN} more"
    if not has_plots():
        yield "\nthere is no analysis.html, for plotly is not installed (help: pip install plotly)"


def misfit(quantizer: AnalyzedQuantizer) -> str:
    """What is wrong with a grid that does not fit."""
    gain = f"a better grid gains {quantizer.misfit:.1f} dB"
    stretch = quantizer.stretch or 1.0
    if 1 / 1.5 < stretch < 1.5:
        return f"{gain}; {100 * quantizer.clipped:.2f} % of the values lie beyond its ends"
    wide = f"{stretch:.1f} times as wide" if stretch > 1 else f"{1 / stretch:.1f} times as narrow"
    return f"its steps are {wide} as fits; {gain}"
