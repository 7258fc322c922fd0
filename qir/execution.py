"""Running a graph with the fastest backend that takes it. Backends are imported on use."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from qir.errors import QirError
from qir.evaluate import Executor, Runner, reference
from qir.graph import Graph
from qir.observers import MinMax
from qir.observing import Observed, Views, observed_by

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
