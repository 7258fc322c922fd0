"""What the kernels of a runtime cost, as a profile says: nanoseconds, measured by `bench/kernel_costs.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from qir.graph import Node, Value
from qir.traits import Weighted


@dataclass(frozen=True)
class KernelCost:
    """The time of an operator in float and on integers: for each element of its result, and for each product in it."""

    float_element: float = 0.0
    integer_element: float = 0.0
    float_product: float = 0.0
    integer_product: float = 0.0


@dataclass(frozen=True)
class Costs:
    """The cost table of a runtime. `gain` is how much faster integers must be to be worth their rounding.

    `quantize` and `dequantize` are for each element. `tensors` has the products of two computed tensors, `groups` the
    convolutions in groups, where they differ. Operators that are not in the table are taken to cost nothing.
    """

    quantize: float
    dequantize: float
    gain: float
    kernels: Mapping[str, KernelCost] = field(default_factory=dict)
    tensors: Mapping[str, KernelCost] = field(default_factory=dict)
    groups: Mapping[str, KernelCost] = field(default_factory=dict)

    def of(self, node: Node) -> tuple[float, float]:
        """Nanoseconds of the node's kernel in float, and on integers. Sizes that are not known count as 1."""
        cost = self.kernels.get(node.op, KernelCost())
        weighted = node.definition.trait(Weighted)
        if weighted is not None and node.operands[weighted.weight].weight is None:
            cost = self.tensors.get(node.op, cost)
        if node.attrs.get("group", 1) != 1:
            cost = self.groups.get(node.op, cost)
        count = elements(node.result)
        products = count * products_for_each(node)
        return (
            cost.float_element * count + cost.float_product * products,
            cost.integer_element * count + cost.integer_product * products,
        )


def elements(value: Value) -> int:
    """The number of elements, with 1 for every size that is not known."""
    return prod(size if isinstance(size, int) else 1 for size in value.type.shape or ())


def products_for_each(node: Node) -> int:
    """How many products are summed for each element of the result of a convolution or matrix product; else 0."""
    weighted = node.definition.trait(Weighted)
    if weighted is None:
        return 0
    weight = node.operands[weighted.weight]
    axis = weighted.output_axis(node)
    sizes = list(weight.type.shape or ())
    if axis is not None and sizes:
        del sizes[axis]
    if axis is not None and weighted.stacks:
        sizes = sizes[-1:]
    return prod(size if isinstance(size, int) else 1 for size in sizes)
