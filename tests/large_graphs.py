"""Large graphs with lines past many nodes, for what shows or lays out graphs."""

from __future__ import annotations

import numpy as np

from qir import Graph, Loc
from qir.types import TensorType

TYPE = TensorType("f32", (1, 64, 16, 16))


def in_modules(count: int) -> Graph:
    """Blocks of layers of ten operators, with a line past each layer."""
    graph = Graph("large")
    value = skip = graph.input("x", TYPE)
    for number in range(count):
        path = f"block{number // 100}.layer{number // 10 % 10}.op{number % 10}"
        locs = (Loc("net.py", number + 1, path.rpartition(".")[0]),)
        if number % 10 == 9:
            value = skip = graph.add("Add", [value, skip], module=path, hint=f"v{number}", locs=locs).result
        else:
            op = ("Relu", "Sigmoid", "Tanh", "Neg")[number % 4]
            value = graph.add(op, [value], module=path, hint=f"v{number}", locs=locs).result
    graph.outputs = [value]
    return graph


def without_modules(count: int) -> Graph:
    """A chain in which every fifth operator adds something from up to 60 operators before."""
    graph, random = Graph("flat"), np.random.default_rng(0)
    values = [graph.input("x", TYPE)]
    for number in range(count):
        others = [values[-random.integers(1, min(60, len(values)) + 1)]] if random.random() < 0.2 else []
        node = graph.add("Add" if others else "Relu", [values[-1], *others], hint=f"v{number}")
        values.append(node.result)
    graph.outputs = [values[-1]]
    return graph
