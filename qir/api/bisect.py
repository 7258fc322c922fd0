"""`qir.bisect`: which step of a pipeline costs the numbers of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from qir.api.quantize import fed, graph_to_quantize
from qir.batches import Batch, arrays_of
from qir.errors import QirError
from qir.evaluate import Runner
from qir.execution import default_evaluator
from qir.pipeline import Pipeline

if TYPE_CHECKING:
    from qir.runs.bisection import Culprit, Trial

Metric = str | Callable[[Runner], float]
"""`equal`, `sqnr`, or a function."""


def bisect(
    model: Any,
    pipeline: Pipeline | str,
    inputs: Batch,
    *,
    metric: Metric = "equal",
    threshold: float | None = None,
    data: Iterable[Batch] | None = None,
    evaluator: str | None = None,
) -> Culprit | None:
    """The first pass of `pipeline`, and its first rewrite, that puts `model` beyond a threshold; None if none does.

    `model` is a torch module, a graph, an ONNX model or a file; `inputs` one batch for it. The metric `equal` wants the
    outputs of the original model, value for value; `sqnr` a signal-to-noise ratio of `threshold` decibels beside them.
    A function is called with what runs a graph, from a list of arrays to a list of arrays, and returns a number that
    must not be below `threshold`, such as an accuracy. `data` is for `calibrate`. `evaluator` is `torch`, `onnxruntime`
    or `reference`; without one, the first that is installed.
    """
    from qir.runs.bisection import first_beyond

    return first_beyond(trial(model, pipeline, inputs, metric, threshold, data, evaluator))


def trial(
    model: Any,
    pipeline: Pipeline | str,
    inputs: Batch,
    metric: Metric,
    threshold: float | None,
    data: Iterable[Batch] | None,
    evaluator: str | None,
) -> Trial:
    """The run of the pipeline, and what judges its graphs. Raises QirError for a metric that lacks its threshold."""
    from qir.runs.bisection import EQUAL, Compared, Scored
    from qir.runs.course import Course

    if not callable(metric) and metric not in ("equal", "sqnr"):
        raise QirError(f"there is no metric {metric!r}", help="metrics are equal, sqnr, and functions")
    if metric == "equal" and threshold is not None:
        raise QirError("equal results know no threshold", help="leave it out, or let the metric be sqnr")
    if metric != "equal" and threshold is None:
        raise QirError("this metric needs a threshold", help="give the lowest measure that is good")
    graph = graph_to_quantize(model, None, inputs)
    passes = pipeline if isinstance(pipeline, Pipeline) else Pipeline.parse(pipeline, given=graph)
    course = Course.of(graph, passes if data is None else fed(passes, data))
    runs = evaluator or default_evaluator()
    if callable(metric):
        assert threshold is not None
        return Scored(course, runs, threshold, score=metric)
    least = EQUAL if threshold is None else threshold
    return Compared(course, runs, least, inputs=arrays_of(graph, inputs, 1))
