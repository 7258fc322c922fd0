"""Tensors that no grid can stand for: those with infinities, as masks have, and those that integers are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.traits import Blanks, Elementwise, KeepsGrid, MovesData, TiesOperands
from qir.types import ScalarType

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


def counted_values(nodes: Sequence[Node]) -> set[Value]:
    """The floats that elementwise arithmetic makes of integers and of which nothing but integers is made.

    The buckets of relative positions are such: rounding the logarithm of a distance would pick another bucket, and the
    logarithm of the distance 0 is infinite. The nodes come in their order.
    """
    found = {result for node in nodes if _computes_elements(node) for result in node.results}
    for node in nodes:
        if not all(_is_count(value, found) for value in node.operands):
            found.difference_update(node.results)
    for node in reversed(nodes):
        for result in node.results:
            if result in found and not (result.uses and all(_becomes_count(use.node, found) for use in result.uses)):
                found.remove(result)
    return found


def _is_count(value: Value | None, found: set[Value]) -> bool:
    """Whether the value holds integers or was made of them; a constant may be anything."""
    return value is None or value.weight is not None or value in found or not _may_be_float(value)


def _becomes_count(reader: Node, found: set[Value]) -> bool:
    """Whether the node makes integers of what it reads, or what others make integers of."""
    return _computes_elements(reader) and all(result in found or not _may_be_float(result) for result in reader.results)


def _computes_elements(node: Node) -> bool:
    return any(node.definition.trait(kind) is not None for kind in (Elementwise, MovesData))


def _may_be_float(value: Value) -> bool:
    if isinstance(value.type, ScalarType):
        return value.type.kind == "float"
    return value.type.dtype is None or value.type.dtype.startswith(("f", "bf"))


def _passes_on(node: Node) -> bool:
    definition = node.definition
    kinds = (Elementwise, KeepsGrid, MovesData, TiesOperands, Blanks)
    return any(definition.trait(kind) is not None for kind in kinds) or "value" in definition.attributes


def _is_infinite(value: Any) -> bool:
    if value is None or value.weight is None or value.weight.trainable or value.weight.data is None:
        return False
    array = np.asarray(value.array)
    return array.dtype.kind == "f" and array.size > 0 and bool((np.abs(array) >= LARGE).any())
