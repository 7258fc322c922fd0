"""How a composite is written in parts: layers below its own, sizes where they are known, linear layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.errors import QirError
from qir.facts import computes
from qir.operators.functions import Writer

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value


class Parts(Writer):
    """Adds the parts of a composite; those of `within("fc")` belong to the layer `fc` below the composite's.

    Those that move data have no layer.
    """

    def __init__(self, graph: Graph, node: Node, layer: str | None = None) -> None:
        super().__init__(graph, node)
        self.layer = layer

    def within(self, name: str) -> Parts:
        """What adds parts to a layer below this one; functional calls where the composite is one."""
        path = self.layer or self.node.module
        return Parts(self.graph, self.node, f"{path}.{name}" if path else None)

    def __getattr__(self, op: str) -> Callable[..., Value]:
        def add(*operands: Any, **attrs: Any) -> Value:
            return self.made(op, operands, None, **attrs)[0]

        return add

    def made(self, op: str, operands: Sequence[Any], results: int | None, **attrs: Any) -> list[Value]:
        """The results of a node that may have more than one."""
        values = [self.constant(v) if isinstance(v, int | float | list | np.ndarray) else v for v in operands]
        while values and values[-1] is None:
            values.pop()
        hint = op.rpartition(".")[2].lower()
        node = self.graph.add(op, values, attrs, results=results, like=self.node, module=self.layer, hint=hint)
        if not computes(node):
            node.module = None
        return node.results

    def constant(self, data: Any) -> Value:
        """A literal."""
        return self.graph.constant(data)

    def composite(self, op: str, operands: Sequence[Any], **attrs: Any) -> list[Value]:
        """All results of another composite."""
        return self.made(f"qir.{op}", operands, None, **attrs)

    def required(self, name: str) -> Value:
        """The composite's operand of this name. Raises QirError when it is left out."""
        found = self.node.operand(name)
        if found is None:
            raise QirError(f"it has no {name}", self.node)
        return found

    def linear(self, x: Value, weight: Value | None, bias: Value | None = None) -> Value:
        """x @ weight.T + bias over the last axis."""
        return self.made("qir.Linear", [x, weight, bias], None)[0]

    def split(self, x: Value, parts: int, axis: int) -> list[Value]:
        """`x` in parts of equal size. Raises QirError when the size of the axis is not known."""
        size = self.size(x, axis) // parts
        return self.made("Split", [x, [size] * parts], parts, axis=axis)

    def needs(self, condition: bool, reason: str) -> None:
        """Raise QirError with the reason unless `condition`."""
        if not condition:
            raise QirError(reason, self.node)

    def axis(self, x: Value, axis: int) -> int | Value:
        """The size of an axis: a number for a weight, else a computed one, since a type may be that of an example."""
        size = None if x.weight is None or x.type.shape is None else x.type.shape[axis]
        return size if isinstance(size, int) else self.composite("AxisSize", [x], axis=axis)[0]

    def times(self, sizes: Sequence[int | Value]) -> int | Value:
        """The product of sizes."""
        known = prod(size for size in sizes if isinstance(size, int))
        computed = [size for size in sizes if not isinstance(size, int)]
        if not computed:
            return known
        product: Value = reduce(self.Mul, computed)
        return product if known == 1 else self.Mul(product, known)

    def view(self, x: Value, sizes: Sequence[int | Value]) -> Value:
        """`x` reshaped to these sizes."""
        computed = [size for size in sizes if not isinstance(size, int)]
        if len(computed) > 1:
            pattern = tuple(size if isinstance(size, int) else None for size in sizes)
            return self.composite("View", [x, *computed], shape=pattern)[0]
        shape = np.array([size if isinstance(size, int) else -1 for size in sizes], np.int64)
        reshaped: Value = self.Reshape(x, shape)
        return reshaped
