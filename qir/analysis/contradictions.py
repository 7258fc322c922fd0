"""Scales that contradict each other: of a bias, and of the two tensors whose products it is added to."""

from __future__ import annotations

from collections.abc import Callable
from math import log2
from typing import Any

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, ProductEncoding
from qir.facts import is_quantizer
from qir.graph import Graph, Node, Value
from qir.quantizers import quantizer_of
from qir.traits import Clamps, Weighted

SLACK = 2.0**0.5
"""The factor from which on scales contradict each other; what is less may be rounded."""


def contradicted(graph: Graph, stretch: Callable[[Node], float]) -> dict[Node, float]:
    """The quantizers of weights and biases whose scales are wrong, with how many times too large they are.

    The scale of a bias is that of the input times that of the weight. One may be stored that is not, as in a file. If
    the grid of the input fits, then the weight is wrong where what is computed from it is about as many times too large
    for its grid, and otherwise the bias. `stretch` says of a grid how many times too wide it is, 1 where it fits.
    """
    found: dict[Node, float] = {}
    for node in graph.nodes():
        weighted = node.definition.trait(Weighted)
        operands = node.operands
        if weighted is None or weighted.bias is None or weighted.bias >= len(operands):
            continue
        ports = (weighted.input, weighted.weight, weighted.bias)
        input, weight, bias = (quantizer_of(operands[port]) for port in ports)
        if input is None or weight is None or bias is None or stretch(input) != 1:
            continue
        factor = _factor(*(quantizer.attrs["encoding"] for quantizer in (input, weight, bias)))
        if not 1 / SLACK < factor < SLACK:
            after = _rounding(node.result)
            seen = log2(1 if after is None else stretch(after))
            if abs(seen + log2(factor)) < abs(seen):
                found[weight] = factor
            else:
                found[bias] = 1 / factor
    return found


def _factor(input: Encoding, weight: Encoding, bias: Encoding) -> float:
    """How many times the scale of a bias the product of the other scales is; 1 where they are not comparable."""
    scales = [_scale(each) for each in (input, weight, bias)]
    if any(scale is None for scale in scales) or isinstance(bias, ProductEncoding):
        return 1.0
    return float(np.median(scales[0] * scales[1] / scales[2]))


def _scale(encoding: Encoding) -> Any:
    """The scale of an integer grid without blocks, or None."""
    if isinstance(encoding, FloatEncoding) or encoding.block_axis is not None or encoding.scale is None:
        return None
    return encoding.scale.astype(np.float64)


def _rounding(value: Value) -> Node | None:
    """The quantizer that rounds a value, maybe behind a clamp."""
    for node, _ in value.uses:
        if is_quantizer(node):
            return node
        if node.definition.trait(Clamps) is not None:
            return _rounding(node.result)
    return None
