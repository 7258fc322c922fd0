"""`qir.view`: a graph, a quantized model or the stages of a pipeline as one HTML page, or as a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from qir.analysis.results import Analysis, AnalyzedLayer, AnalyzedQuantizer, read_analysis
from qir.api.lint import lint
from qir.api.quantize import Quantized, import_model
from qir.batches import Batch
from qir.errors import QirError
from qir.facts import is_quantizer
from qir.files import write_bytes
from qir.graph import Graph
from qir.pages.numbers import numbers_of
from qir.pages.records import Data
from qir.pages.stages import Stages, stages_of
from qir.pages.svg import svg
from qir.pages.view import page
from qir.rewrite import Note
from qir.simulation.quantsim import QuantizationSimModel


def view(
    what: Any,
    path: str | Path,
    *,
    title: str | None = None,
    data: Iterable[Batch] = (),
    target: str | None = None,
    analysis: Analysis | str | Path | Mapping[str, Any] | None = None,
) -> None:
    """Write `what` to `path`: a page where it ends in .html, a picture where it ends in .svg.

    `what` is a graph, a model as `import_model` takes it, what `quantize` returns, a `QuantizationSimModel`, the
    `Stages` that watched a pipeline, or graphs by title. On `data`, batches as `quantize` takes them, a calibrated
    graph is run for histograms and signal-to-noise ratios. `target` says which
    runtime computes what in float (that of a quantized model is known). `analysis` is what `qir analyze` found.
    Raises QirError for another ending and for data that does not fit.
    """
    path = Path(path)
    if path.suffix not in (".html", ".svg"):
        raise QirError(f"there is no picture format for {path.name!r}", help="let the name end in .html or .svg")
    title = title or path.stem
    if path.suffix == ".svg":
        text = svg(_graphs(what, title))
    else:
        text = as_page(what, title, data=data, target=target, analysis=analysis)
    write_bytes(path, text.encode())


def as_page(
    what: Any,
    title: str,
    *,
    data: Iterable[Batch] = (),
    target: str | None = None,
    analysis: Analysis | str | Path | Mapping[str, Any] | None = None,
) -> str:
    """The page that `view` writes."""
    from qir.execution import fastest

    stages = what if isinstance(what, Stages) else stages_of(_graphs(what, title))
    graph = stages.graph
    if graph is None:
        raise QirError(
            "there is no stage to show", help="let the pipeline run first: pipeline.run(graph, watch=[stages])"
        )
    if isinstance(what, Quantized):
        target = target or what.target.source
    numbers: dict[int, Data] = {
        stages.number_of(node): found for node, found in numbers_of(graph, fastest, data).items()
    }
    if analysis is not None:
        _add_analysis(numbers, stages, analysis if isinstance(analysis, Analysis) else read_analysis(analysis))
    floats = _floats(stages, graph, target)
    for row in floats["rows"]:
        stages.set_kind(row["about"], "float")
    return page(stages, title, {"numbers": numbers, "floats": floats})


def _graphs(what: Any, title: str) -> Mapping[str, Graph]:
    match what:
        case Graph():
            return {title: what}
        case Quantized():
            return {title: what.graph}
        case Stages(graph=Graph() as graph):
            return {title: graph}
        case QuantizationSimModel():
            return {title: what.quantized().graph}
        case Mapping():
            return what
    return {title: import_model(what)}


# -- what the target computes in float -------------------------------------------------------------------------------


def _floats(stages: Stages, graph: Graph, target: str | None) -> Data:
    """The operators that the target computes in float, with the reason; or why that is not known."""
    if target is None:
        return {"rows": [], "reason": "Name a target to see what it computes in float: --target."}
    if not any(is_quantizer(node) or node.op == "QuantizeLinear" for node in graph.nodes()):
        return {"rows": [], "reason": "The graph is not quantized yet."}
    try:
        verdicts = lint(graph, target)
    except QirError as error:
        return {"rows": [], "reason": f"It is not known: {error.message}."}
    rows = [_float(stages, verdict.note) for verdict in verdicts if not verdict.integer]
    return {"rows": rows, "reason": "Nothing: every operator that computes does so with integers."}


def _float(stages: Stages, note: Note) -> Data:
    name = note.node.partition(" = ")[0].split(",")[0].removeprefix("%").strip('"')
    return {"op": note.op, "layer": note.module or "", "reason": note.reason, "help": note.help,
            "line": str(note.loc or ""), "node": note.node, "about": stages.named(name)}  # fmt: skip


# -- what qir analyze found ------------------------------------------------------------------------------------------


def _add_analysis(numbers: dict[int, Data], stages: Stages, analysis: Analysis) -> None:
    """Put what is known of each quantizer and layer beside the numbers of its operation."""
    entries: list[AnalyzedLayer | AnalyzedQuantizer] = [*analysis.layers, *analysis.quantizers]
    for entry in entries:
        about = stages.in_layer(entry.name)
        if about is None:
            continue
        found, columns = numbers.setdefault(about, {}), dict(_columns(asdict(entry)))
        if isinstance(entry, AnalyzedQuantizer):
            found.setdefault("histogram", asdict(entry.histogram))
            columns["own sqnr"] = columns.pop("sqnr")
        else:
            found.setdefault("sqnr", columns.pop("sqnr"))
        found["analysis"] = columns


def _columns(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float | None]]:
    """The numbers in an entry that a node does not show anyway; a ratio in decibels is None where nothing differs."""
    for name, value in entry.items():
        label = f"{prefix}{name}".replace("_", " ")
        if name in ("histogram", "grid_low", "grid_high"):
            continue
        if isinstance(value, Mapping):
            yield from _columns(value, f"{name} ")
        elif name.endswith("sqnr") or (isinstance(value, int | float) and np.isfinite(value)):
            yield label, value
