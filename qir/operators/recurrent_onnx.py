"""Recurrent layers in ONNX's own operators, one for each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.operators.parts import Parts
from qir.operators.recurrent_steps import directions, states_of, unrolled, weights_of

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

GATES = {"LSTM": [0, 3, 1, 2], "GRU": [1, 0, 2], "RNN": [0]}
"""For each of ONNX's gates, the number of torch's."""


def as_onnx_operator(graph: Graph, node: Node) -> Sequence[Value]:
    """LSTM, GRU or RNN for each layer, the gates of the weights in ONNX's order; projected layers step by step.

    Raises QirError when the rank is not known, and for a projected layer the length of the sequence.
    """
    if node.attr("proj_size"):
        return unrolled(graph, node)
    on, both, states = Parts(graph, node), directions(node), states_of(node)
    x, initial, weights = node.operands[0], node.operands[1 : 1 + states], weights_of(node)
    rank = on.rank(x)
    if rank == 2:
        x, initial = on.Unsqueeze(x, [1]), [None if part is None else on.Unsqueeze(part, [1]) for part in initial]
    turned = rank == 3 and node.attr("batch_first")
    x = on.Transpose(x, perm=(1, 0, 2)) if turned else x
    final: list[list[Value]] = []
    for layer in range(node.attr("num_layers")):
        mine = weights[layer * both : (layer + 1) * both]
        starts = [None if part is None else on.Slice(part, [layer * both], [(layer + 1) * both], [0])
                  for part in initial]  # fmt: skip
        x, last = _layer(on, x, mine, starts)
        final.append(last)
    x = on.Transpose(x, perm=(1, 0, 2)) if turned else x
    stacked = [_joined(on, [last[number] for last in final]) for number in range(states)]
    return [x, *stacked] if rank == 3 else [on.Squeeze(part, [1]) for part in (x, *stacked)]


def _layer(on: Parts, x: Value, weights: list[list[Any]], initial: Sequence[Any]) -> tuple[Value, list[Value]]:
    """The outputs [length, batch, directions * size] and the last states [directions, batch, size]."""
    kind = on.node.op.removeprefix("qir.")
    both = len(weights)
    rows = on.size(weights[0][1], 0) // len(GATES[kind])
    stacked = [_joined(on, [on.Unsqueeze(_ordered(on, way[port], kind, rows), [0]) for way in weights])
               for port in (0, 1)]  # fmt: skip
    biases = None
    if weights[0][2] is not None:
        pairs = [on.Concat(*(_ordered(on, way[port], kind, rows) for port in (2, 3)), axis=0) for way in weights]
        biases = _joined(on, [on.Unsqueeze(pair, [0]) for pair in pairs])
    attrs: dict[str, Any] = {"hidden_size": rows, "direction": "bidirectional" if both == 2 else "forward"}
    if kind == "GRU":
        attrs["linear_before_reset"] = 1
    if kind == "RNN":
        attrs["activations"] = [on.node.attr("nonlinearity").capitalize()] * both
    operands = [x, *stacked, biases, None, *initial]
    outputs, *last = on.made(kind, operands, 1 + len(initial), **attrs)
    flat = on.Reshape(on.Transpose(outputs, perm=(0, 2, 1, 3)), [0, 0, -1])
    return flat, last


def _ordered(on: Parts, weight: Value, kind: str, rows: int) -> Value:
    """The weight with its gates in ONNX's order."""
    order = np.concatenate([np.arange(gate * rows, (gate + 1) * rows) for gate in GATES[kind]])
    if np.array_equal(order, np.arange(len(order))):
        return weight
    ordered: Value = on.Gather(weight, order, axis=0)
    return ordered


def _joined(on: Parts, parts: Sequence[Value]) -> Value:
    return parts[0] if len(parts) == 1 else on.Concat(*parts, axis=0)
