"""What a runtime fuses: Q/DQ patterns around an operator, and the integer operator that each becomes.

Measured for onnxruntime 1.31 on x86, all optimizations on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qir.graph import Node, Value
from qir.operators.integer import DOMAIN
from qir.ops import VOCABULARY_OPSET
from qir.rewrite import Miss
from qir.traits import Clamps
from qir.types import integer_range


def is_quantized(value: Value) -> bool:
    """Whether the value is 8-bit integers."""
    return value.type.dtype in ("u8", "i8")


def dequantized(value: Value | None) -> list[Value] | None:
    """Integers, scale and zero point, if the value is dequantized 8-bit integers."""
    node = None if value is None else value.node
    if node is None or node.op != "DequantizeLinear" or len(node.operands) < 3 or node.attr("block_size"):
        return None
    return node.operands if is_quantized(node.operands[0]) else None


def sole_reader(value: Value) -> Node | None:
    """The one node that reads the value, when nothing else does."""
    return value.uses[0].node if len(value.uses) == 1 and not value.is_output else None


def kernel_before(quantize: Node) -> tuple[Node, Node | None] | None:
    """The kernel whose result `quantize` reads, and the clamp between them; None when others read the result too."""
    value = quantize.operands[0]
    node = value.node
    if node is None or sole_reader(value) is not quantize:
        return None
    if node.definition.trait(Clamps) is not None and node.op not in KERNELS:
        before = node.operands[0].node
        if before is None or sole_reader(node.operands[0]) is not node:
            return None
        return before, node
    return node, None


def clamp_obstacle(clamp: Node, quantize: Node) -> Miss | None:
    """Why the clamp is not free; None when the grid of `quantize` already ends within its limits."""
    trait = clamp.definition.trait(Clamps)
    limits = trait.range(clamp) if trait else None
    scale, zero = (value.array for value in quantize.operands[1:3])
    if limits is None:
        return Miss(f"the limits of its {clamp.op} are computed", "make the limits constants")
    low, high = integer_range(quantize.result.type.dtype or "")
    if limits[0] is not None and float((np.float32(low) - np.float32(zero)) * scale) < limits[0]:
        return Miss(f"its {clamp.op} is not free: the grid after it goes below {limits[0]:g}",
                    f"let the grid start at {limits[0]:g}")  # fmt: skip
    if limits[1] is not None and float((np.float32(high) - np.float32(zero)) * scale) > limits[1]:
        return Miss(f"its {clamp.op} is not free: the grid after it goes above {limits[1]:g}",
                    f"make the scale small enough that the grid ends at {limits[1]:g}")  # fmt: skip
    return None


Fused = tuple[str, list[Any], dict[str, Any]]
"""Operator, operands and attributes of an integer operator."""


def _bias(node: Node) -> list[Value | None] | Miss:
    """The int32 bias of a kernel, or why it has none that the kernel can add."""
    if len(node.operands) < 3:
        return []
    source = node.operands[2].node
    if source is None or source.op != "DequantizeLinear" or source.operands[0].type.dtype != "i32":
        help = "quantize the bias to int32, with the scale of the input times that of the weight"
        return Miss("its bias is float", help)
    return [source.operands[0]]


def bias_mismatch(node: Node) -> float:
    """How far the scale of an int32 bias is from that of its accumulator, relative to it; 0 without such a bias."""
    if node.op not in ("Conv", "Gemm") or len(node.operands) < 3:
        return 0.0
    x, w = (dequantized(value) for value in node.operands[:2])
    source = node.operands[2].node
    if x is None or w is None or source is None or source.op != "DequantizeLinear":
        return 0.0
    scale = np.asarray(x[1].array * w[1].array, np.float32)
    return float(np.max(np.abs(source.operands[1].array / scale - 1)))


OTHER_SCALE = Miss(
    "the scale of its bias is not that of its input times that of its weight",
    "quantize the bias again, with the scale of the input that it has now",
)


def fuse_conv(node: Node, output: list[Value]) -> Fused | Miss:
    """QLinearConv, which wants the bias on the accumulator's grid to one percent."""
    bias = _bias(node)
    if isinstance(bias, Miss):
        return bias
    if bias_mismatch(node) > 0.01:
        return OTHER_SCALE
    return "QLinearConv", [*_read(node, 0), *_read(node, 1), *output, *bias], dict(node.attrs)


def fuse_gemm(node: Node, output: list[Value]) -> Fused | Miss:
    """QGemm, which takes it for granted that the bias lies on the accumulator's grid."""
    bias = _bias(node)
    if isinstance(bias, Miss):
        return bias
    if bias and (node.attr("beta") != 1.0 or node.attr("alpha") != 1.0):
        return Miss("it scales its operands, and has a bias", "fold alpha and beta into the weight and the bias")
    attrs = {name: value for name, value in node.attrs.items() if name != "beta"}
    operands = [*_read(node, 0), *_read(node, 1), *(bias or [None]), *output]
    return f"{DOMAIN}.QGemm", operands if output or bias else operands[:-1], attrs


def fuse_matmul(node: Node, output: list[Value]) -> Fused | Miss:
    """QLinearMatMul, or MatMulIntegerToFloat without an output grid."""
    a, b = _read(node, 0), _read(node, 1)
    if output:
        return "QLinearMatMul", [*a, *b, *output], {}
    return f"{DOMAIN}.MatMulIntegerToFloat", [a[0], b[0], a[1], b[1], a[2], b[2]], {}


def fuse_binary(node: Node, output: list[Value]) -> Fused | Miss:
    """QLinearAdd or QLinearMul."""
    return f"{DOMAIN}.QLinear{node.op}", [*_read(node, 0), *_read(node, 1), *output], {}


def fuse_unary(node: Node, output: list[Value]) -> Fused | Miss:
    """The operator of the same name on integers."""
    attrs = dict(node.attrs) | ({"opset": VOCABULARY_OPSET} if node.op == "Softmax" else {})
    return f"{DOMAIN}.QLinear{node.op}", [*_read(node, 0), *output], attrs


def fuse_concat(node: Node, output: list[Value]) -> Fused | Miss:
    """QLinearConcat."""
    operands = [part for port in range(len(node.operands)) for part in _read(node, port)]
    return f"{DOMAIN}.QLinearConcat", [*output, *operands], dict(node.attrs)


def _read(node: Node, port: int) -> list[Value]:
    found = dequantized(node.operands[port])
    assert found is not None
    return found


@dataclass(frozen=True)
class Kernel:
    """How an operator fuses, and which of its operands must be dequantized integers (all, when None)."""

    fuse: Callable[[Node, list[Value]], Fused | Miss]
    reads: tuple[int, ...] | None = None
    absorbs: bool = False
    """Whether a clamp after it is part of the integer operator."""


KERNELS = {
    "Conv": Kernel(fuse_conv, (0, 1), absorbs=True),
    "Gemm": Kernel(fuse_gemm, (0, 1), absorbs=True),
    "MatMul": Kernel(fuse_matmul),
    "Add": Kernel(fuse_binary, absorbs=True),
    "Mul": Kernel(fuse_binary, absorbs=True),
    "Concat": Kernel(fuse_concat),
    "AveragePool": Kernel(fuse_unary),
    "GlobalAveragePool": Kernel(fuse_unary),
    "Sigmoid": Kernel(fuse_unary),
    "LeakyRelu": Kernel(fuse_unary),
    "Softmax": Kernel(fuse_unary),
}
