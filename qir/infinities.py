"""Tensors that hold infinities, as masks of attention do: no grid of integers has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.traits import Elementwise, KeepsGrid, MovesData, TiesOperands

if TYPE_CHECKING:
    from qir.graph import Node, Value

LARGE = 1e30
"""A number from here on stands for an infinity: the least float32 masks as well as minus infinity does."""


def infinite_values(nodes: Iterable[Node]) -> set[Value]:
    """The constants with infinities, and the results that arithmetic and data movement make of them.

    The nodes come in their order.
    """
    found: set[Value] = set()
    for node in filter(_passes_on, nodes):
        found.update(filter(_is_infinite, node.operands))
        filled = any(isinstance(value, float) and abs(value) >= LARGE for value in node.attrs.values())
        if filled or any(value in found for value in node.operands):
            found.update(result for result in node.results if result.type.dtype != "bool")
    return found


def _passes_on(node: Node) -> bool:
    definition = node.definition
    kinds = (Elementwise, KeepsGrid, MovesData, TiesOperands)
    passes = node.op == "Trilu" or any(definition.trait(kind) is not None for kind in kinds)
    return passes or "value" in definition.attributes


def _is_infinite(value: Any) -> bool:
    if value is None or value.weight is None or value.weight.trainable or value.weight.data is None:
        return False
    array = np.asarray(value.array)
    return array.dtype.kind == "f" and array.size > 0 and bool((np.abs(array) >= LARGE).any())
