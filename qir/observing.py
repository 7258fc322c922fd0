"""Running a graph in float while somebody looks at what its quantizers read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qir.attributes import Port
from qir.evaluate import Executor
from qir.graph import Graph, Node, Value
from qir.quantizers import quantizers

Views = Mapping[Node, Callable[[np.ndarray], object]]
"""For quantizer nodes, what is called with the array that one reads."""

Observed = Callable[[Sequence[np.ndarray]], object]
"""Runs the graph on the arrays of its inputs."""


def observed_by(executor: Executor, graph: Graph, views: Views) -> Observed:
    """`graph` in float, run by `executor`, which holds all arrays of a run until its end."""
    floating, twins = graph.copy_with_map()
    watched = _without_quantizers(floating, [twins[node] for node in views])
    run = executor(floating)

    def show(inputs: Sequence[np.ndarray]) -> None:
        arrays = run(inputs)
        for view, position in zip(views.values(), watched, strict=True):
            view(arrays[position])

    return show


def _without_quantizers(graph: Graph, moving: Sequence[Node]) -> list[int]:
    """Let the graph return what the quantizers read, and compute in float; which output belongs to which quantizer."""
    observed: list[Value] = []
    sources = [_float_source(node) for node in moving]
    for node in quantizers(graph):
        graph.replace(node.result, node.operands[0])
    for source in sources:
        if source not in observed:
            observed.append(source)
    graph.outputs, graph.structure = list(observed), tuple(map(Port, range(len(observed))))
    for node in reversed(graph.nodes()):
        graph.erase_dead(node)
    return [observed.index(source) for source in sources]


def _float_source(node: Node) -> Value:
    """What the quantizer reads, past other quantizers."""
    value: Value = node.operands[0]
    while value.node is not None and value.node.op == node.op:
        value = value.node.operands[0]
    return value
