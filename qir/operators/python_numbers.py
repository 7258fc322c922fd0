"""Arithmetic of Python numbers: the sizes of tensors, and what a model computes from them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from qir.types import Dim, ScalarType

if TYPE_CHECKING:
    from qir.graph import Node, Value

NUMBERS: Mapping[str, Callable[..., Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Neg": operator.neg, "Abs": operator.abs,
    "Mod": operator.mod, "Pow": operator.pow, "Max": max, "Min": min, "qir.FloorDivide": operator.floordiv,
    "Equal": operator.eq, "Less": operator.lt, "LessOrEqual": operator.le, "Greater": operator.gt,
    "GreaterOrEqual": operator.ge,
}  # fmt: skip
"""What Python computes for each operator when all of its operands are Python numbers."""


def of_numbers(node: Node) -> Callable[..., Any] | None:
    """What computes the node's result in Python; None when it computes with tensors."""
    found = NUMBERS.get(node.op)
    if found is None or not all(value is not None and isinstance(value.type, ScalarType) for value in node.operands):
        return None
    return found


def known_size(value: Value) -> Dim | float:
    """What the types of tensors tell of a Python number: the number, or the symbol of the size that it is."""
    if value.weight is not None:
        return value.literal  # type: ignore[no-any-return]
    node = value.node
    if node is None:
        return None
    if node.op == "qir.AxisSize":
        shape = node.operands[0].type.shape
        return None if shape is None else shape[node.attr("axis")]
    compute = of_numbers(node)
    if compute is None:
        return None
    numbers = [known_size(operand) for operand in node.operands]
    if not all(isinstance(number, int | float) for number in numbers):
        return None
    try:
        return compute(*numbers)  # type: ignore[no-any-return]
    except ArithmeticError:
        return None
