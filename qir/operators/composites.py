"""Operators in the domain `qir.`: what a framework keeps whole and ONNX splits. Each declares its expansion once."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm
from typing import TYPE_CHECKING

import numpy as np

from qir.arrangements import Transposed, arranged
from qir.errors import QirError
from qir.onnx_traits import limits
from qir.ops import Attribute, OpDef, declare
from qir.traits import Clamps, Elementwise, IdentityInInference, MovesData, Permutes, Shapes, Stateful, Unary, Weighted
from qir.types import ScalarType, Type

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value


def _keeps_type(node: Node) -> Sequence[Type]:
    return [node.operands[0].type]


def expand_linear(graph: Graph, node: Node) -> Sequence[Value]:
    """x @ weight.T + bias: Gemm for a matrix, else MatMul and Add."""
    x, weight, *bias = node.operands
    if x.type.rank == 2:
        return graph.add("Gemm", node.operands, {"transB": 1}, like=node).results
    product = graph.add("MatMul", [x, _turned(graph, node, weight)], like=node)
    return graph.add("Add", [product.result, *bias], like=node).results if bias else product.results


def _turned(graph: Graph, node: Node, weight: Value) -> Value:
    """The weight with its axes swapped: a view of its data where it is here, as runtimes quantize constants alone."""
    if weight.weight is None or weight.weight.data is None:
        return graph.add("Transpose", [weight], {"perm": (1, 0)}, like=node, hint="weight").result
    paths = tuple(f"{path}_transposed" for path in weight.weight.paths)
    # No array of the data as it lies now: torch moves a parameter that a module shares, once it is written.
    turned = arranged(weight.weight, Transposed((1, 0)), paths=paths)
    return graph.weight(turned, hint=f"{weight.hint}_transposed")


LINEAR = declare(
    OpDef(
        "qir.Linear", ("x", "weight", "bias"), 2, 3,
        traits=(Weighted(lambda node: 0),),
        expand=expand_linear,
        doc="`x @ weight.T + bias` over the last axis; the weight is [outputs, inputs].",
    )
)  # fmt: skip


def windows(size: int, parts: int) -> list[range]:
    """The elements that adaptive pooling puts into each part (torch.nn.AdaptiveAvgPool2d)."""
    return [range(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]


def expand_adaptive_average_pool(graph: Graph, node: Node) -> Sequence[Value]:
    """GlobalAveragePool for one part; else AveragePool, after a Gather that makes windows of unequal size equal.

    Repeating every element of a window of k elements n/k times, for a common multiple n, leaves its mean as it is.
    """
    value, output = node.operands[0], node.attr("output_size")
    if all(parts == 1 for parts in output):
        return graph.add("GlobalAveragePool", [value], like=node).results
    sizes = None if value.type.shape is None else value.type.shape[-len(output) :]
    if sizes is None or not all(isinstance(size, int) for size in sizes):
        raise QirError(
            f"adaptive pooling to {output} can only be expanded for a known input size", node,
            help="import the model with example inputs, or run specialize with the input's shape",
        )  # fmt: skip
    kernel = []
    for axis, (size, parts) in enumerate(zip(sizes, output, strict=True), 2):
        parts = size if parts is None else parts
        found = windows(size, parts)
        count = lcm(*(len(window) for window in found))
        picked = [element for window in found for element in window for _ in range(count // len(window))]
        if picked != list(range(size)):
            index = graph.constant(np.array(picked, np.int64), hint="index")
            value = graph.add("Gather", [value, index], {"axis": axis}, like=node).result
        kernel.append(count)
    attrs = {"kernel_shape": tuple(kernel), "strides": tuple(kernel)}
    return graph.add("AveragePool", [value], attrs, like=node).results


ADAPTIVE_AVERAGE_POOL = declare(
    OpDef(
        "qir.AdaptiveAveragePool", ("x",), 1, 1,
        attributes={"output_size": Attribute("ANY", required=True)},
        expand=expand_adaptive_average_pool,
        doc="Mean over windows chosen so that each spatial axis has `output_size` elements (None: as many as before).",
    )
)  # fmt: skip


def expand_hard_tanh(graph: Graph, node: Node) -> Sequence[Value]:
    """Clip."""
    return graph.add("Clip", node.operands, like=node).results


HARD_TANH = declare(
    OpDef(
        "qir.HardTanh", ("x", "min", "max"), 3, 3,
        traits=(Unary(), Clamps(lambda node: limits(node, 1, 2))),
        expand=expand_hard_tanh, infer=_keeps_type,
        doc="Clip, with no gradient at the limits themselves: torch's hardtanh and relu6.",
    )
)  # fmt: skip


def expand_scaled_add(graph: Graph, node: Node) -> Sequence[Value]:
    """a + b * alpha."""
    a, b = node.operands
    scaled = graph.add("Mul", [b, graph.constant(node.attr("alpha"))], like=node)
    return graph.add("Add", [a, scaled.result], like=node).results


SCALED_ADD = declare(
    OpDef(
        "qir.ScaledAdd", ("a", "b"), 2, 2,
        attributes={"alpha": Attribute("FLOAT", required=True)},
        traits=(Elementwise(),), expand=expand_scaled_add,
        doc="`a + alpha * b` rounded once: torch.add and torch.sub with alpha.",
    )
)  # fmt: skip


def expand_identity(graph: Graph, node: Node) -> Sequence[Value]:
    """The operand itself."""
    return [node.operands[0]]


CONTIGUOUS = declare(
    OpDef(
        "qir.Contiguous", ("x",), 1, 1,
        traits=(MovesData(), Unary()), expand=expand_identity, infer=_keeps_type,
        doc="The same values, in order in memory: kernels of a framework may round differently on other layouts.",
    )
)  # fmt: skip


STOCHASTIC_DEPTH = declare(
    OpDef(
        "qir.StochasticDepth", ("x",), 1, 1,
        attributes={"p": Attribute("FLOAT", required=True), "mode": Attribute("STRING", "batch")},
        traits=(Unary(), Stateful(), IdentityInInference()), expand=expand_identity, infer=_keeps_type,
        doc="When training, drops the whole input (`batch`) or whole rows of it (`row`) with probability `p`.",
    )
)  # fmt: skip


IN_TRAINING = declare(
    OpDef(
        "qir.InTraining", ("x",), 1, 1, traits=(Unary(), Stateful(), IdentityInInference()),
        expand=expand_identity, infer=_keeps_type,
        doc="When training, what the layer of the framework makes of it that the call was imported from.",
    )
)  # fmt: skip


def expand_size(graph: Graph, node: Node) -> Sequence[Value]:
    """Shape of one axis, without axes of its own."""
    axis = node.attr("axis")
    attrs = {"start": axis, "end": axis + 1} if axis != -1 else {"start": -1}
    shape = graph.add("Shape", node.operands, attrs, like=node)
    return graph.add("Squeeze", [shape.result, graph.constant([0])], like=node).results


SIZE = declare(
    OpDef(
        "qir.AxisSize", ("x",), 1, 1,
        attributes={"axis": Attribute("INT", required=True)},
        traits=(Shapes(),), expand=expand_size, infer=lambda node: [ScalarType("int")],
        doc="The size of one axis, as a Python number.",
    )
)  # fmt: skip


def expand_rsqrt(graph: Graph, node: Node) -> Sequence[Value]:
    """1 / sqrt(x)."""
    root = graph.add("Sqrt", node.operands, like=node)
    return graph.add("Reciprocal", [root.result], like=node).results


def expand_log1p(graph: Graph, node: Node) -> Sequence[Value]:
    """log(1 + x), which loses digits near zero."""
    shifted = graph.add("Add", [*node.operands, graph.constant(1.0)], like=node)
    return graph.add("Log", [shifted.result], like=node).results


def expand_expm1(graph: Graph, node: Node) -> Sequence[Value]:
    """exp(x) - 1, which loses digits near zero."""
    power = graph.add("Exp", node.operands, like=node)
    return graph.add("Sub", [power.result, graph.constant(1.0)], like=node).results


for _name, _expand in (("Rsqrt", expand_rsqrt), ("Log1p", expand_log1p), ("Expm1", expand_expm1)):
    declare(
        OpDef(
            f"qir.{_name}", ("x",), 1, 1, traits=(Unary(),), expand=_expand, infer=_keeps_type,
            doc=(_expand.__doc__ or "").strip(),
        )
    )  # fmt: skip


def _swapped(node: Node) -> tuple[int, ...] | None:
    rank = node.operands[0].type.rank
    if rank is None:
        return None
    order = list(range(rank))
    a, b = node.attr("axis0"), node.attr("axis1")
    order[a], order[b] = order[b], order[a]
    return tuple(order)


def expand_swap_axes(graph: Graph, node: Node) -> Sequence[Value]:
    """Transpose, once the rank is known."""
    order = _swapped(node)
    if order is None:
        raise QirError("swapping axes can only be expanded for a known rank", node, help="import with example inputs")
    return graph.add("Transpose", node.operands, {"perm": order}, like=node).results


SWAP_AXES = declare(
    OpDef(
        "qir.SwapAxes", ("x",), 1, 1,
        attributes={"axis0": Attribute("INT", required=True), "axis1": Attribute("INT", required=True)},
        traits=(Permutes(_swapped),), expand=expand_swap_axes,
        doc="Transposes two axes, which may count from the end.",
    )
)  # fmt: skip


def expand_floor_divide(graph: Graph, node: Node) -> Sequence[Value]:
    """Div of integers, which rounds as Python does for sizes (they are not negative)."""
    return graph.add("Div", node.operands, like=node).results


FLOOR_DIVIDE = declare(
    OpDef(
        "qir.FloorDivide", ("a", "b"), 2, 2,
        traits=(Elementwise(), Shapes()), expand=expand_floor_divide, infer=lambda node: [ScalarType("int")],
        doc="`a // b` of Python integers.",
    )
)  # fmt: skip
