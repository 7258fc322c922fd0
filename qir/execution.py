"""Running a graph with the fastest backend that takes it. Backends are imported on use."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from qir.errors import QirError
from qir.evaluate import Executor, Runner, reference
from qir.graph import Graph

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
