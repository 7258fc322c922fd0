"""Running a graph with the fastest backend that takes it. Backends are imported on use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from qir.api.preparation import PREPARE
from qir.calibration.observers import MinMax
from qir.calibration.observing import Observed, Views, observed_by
from qir.errors import QirError
from qir.evaluate import Executor, Runner, reference
from qir.graph import Graph, Value
from qir.pipeline import Pipeline
from qir.quantizers import quantizers

BACKENDS = {"torch": "qir.backends.torch_module", "onnxruntime": "qir.backends.onnx_qdq"}
"""By the framework that must be installed, fastest first: modules with an `executor`."""


def fastest(graph: Graph) -> Runner:
    """The graph, made runnable by torch, onnxruntime or onnx.reference: the first that has all of its operators."""
    for framework, module in BACKENDS.items():
        if find_spec(framework):
            executor: Executor = import_module(module).executor
            try:
                return executor(graph)
            except QirError:
                continue
    return reference(graph)


REFERENCE = "reference"
EVALUATORS = (*BACKENDS, REFERENCE)
"""What can evaluate a graph: the frameworks, and the reference evaluator."""


def default_evaluator() -> str:
    """The first evaluator that is installed."""
    return next(name for name in EVALUATORS if name == REFERENCE or find_spec(name))


def runner(graph: Graph, wanted: Sequence[Value], evaluator: str) -> Runner:
    """What computes the values `wanted` of `graph`, and nothing that they do not need.

    Quantizers without a scale pass on what they read. The graph may be in any state between two rewrites. Raises
    QirError for an evaluator that there is not, that is not installed, or that does not take the graph.
    """
    check_evaluator(evaluator)
    copy, twins = graph.copy_with_map()
    copy.outputs, copy.structure, copy.signature = [twins[value] for value in wanted], None, None
    for node in quantizers(copy):
        if not node.attrs["encoding"].calibrated:
            copy.replace(node.result, node.operands[0])
    for node in reversed(copy.nodes()):
        copy.erase_dead(node)
    for value in copy.weights():
        if not value.uses and not value.is_output:
            copy.remove_weight(value)
    if evaluator == REFERENCE:
        return reference(copy)
    Pipeline.parse(PREPARE if evaluator == "torch" else "legalize-onnx,expand-opaque,legalize-onnx").run(copy)
    executor: Executor = import_module(BACKENDS[evaluator]).executor
    return executor(copy)


def values_of(graph: Graph, inputs: Sequence[np.ndarray], wanted: Sequence[Value], evaluator: str) -> list[Any]:
    """What the values `wanted` of `graph` are for `inputs`, as `runner` computes them."""
    return runner(graph, wanted, evaluator)(inputs) if wanted else []


def check_evaluator(name: str) -> None:
    """Raise QirError for an evaluator that there is not, or that is not installed."""
    if name not in EVALUATORS:
        near = get_close_matches(name, EVALUATORS, 1)
        help = f"did you mean {near[0]!r}?" if near else f"evaluators are {', '.join(EVALUATORS)}"
        raise QirError(f"there is no evaluator {name!r}", help=help)
    if name != REFERENCE and not find_spec(name):
        raise QirError(f"{name} is not installed", help=f"install it, or let the evaluator be {default_evaluator()!r}")


def observed(graph: Graph, views: Views) -> Observed:
    """The graph in float, each quantizer's array shown as it is computed, and then free; in torch, if that takes it.

    Other backends hold all arrays of a run until its end.
    """
    if find_spec("torch"):
        from qir.backends.torch_calibration import observed_in_torch

        try:
            return observed_in_torch(graph, views)
        except QirError:
            pass
    return observed_by(fastest, graph, views)


def share(observers: Sequence[MinMax]) -> None:
    """Let observers know what their twins in all processes saw, where torch.distributed runs several."""
    if "torch.distributed" in sys.modules:
        from qir.backends.torch_distributed import all_reduce

        all_reduce(observers)
