"""Rewrites Q/DQ patterns into the integer operators that the target runtime runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from qir.facts import CALIBRATED, ONNX_LEGAL, computes
from qir.graph import Graph, Node, Value
from qir.integer import DOMAIN
from qir.ops import VOCABULARY_OPSET
from qir.pipeline import Pass
from qir.rewrite import Miss, Note, Outcome, rewrite
from qir.targets import Target, target
from qir.traits import Clamps, KeepsGrid
from qir.types import integer_range


@dataclass(frozen=True)
class FuseInteger(Pass, name="fuse-integer"):
    """Replace DequantizeLinear, operator, QuantizeLinear by the integer operator that onnxruntime makes of them.

    What is left in float says why. The result computes what onnxruntime computes with all optimizations, bit for bit.

        graph @g(%a: u8[4], %b: u8[4]) {
          %x = DequantizeLinear %a, f32[](0.5), u8[](0) : f32[4]
          %y = DequantizeLinear %b, f32[](0.25), u8[](0) : f32[4]
          %sum = Add %x, %y : f32[4] [add]
          %relu = Relu %sum : f32[4] [relu]
          %q = QuantizeLinear %relu, f32[](0.5), u8[](0) : u8[4]
          return %q
        }
        -->
        graph @g(%a: u8[4], %b: u8[4]) {
          %sum = com.microsoft.QLinearAdd %a, f32[](0.5), u8[](0), %b, f32[](0.25), u8[](0), f32[](0.5), u8[](0) : u8[4] [add]
          return %sum
        }
    """

    needs = (ONNX_LEGAL, CALIBRATED)
    numerics = "rounds"

    target: str = "ort-x86"

    def __post_init__(self) -> None:
        target(self.target)

    def run(self, graph: Graph) -> Outcome:
        """Fuse what fuses and explain the rest."""
        profile = target(self.target)
        outcome = rewrite(graph, {"QuantizeLinear": fuse_before, "Gemm": float_gemm, "MatMul": float_matmul})
        outcome.missed = [Note.of(node, why_float(node, profile)) for node in graph.nodes() if is_float(node)]
        return outcome


def is_float(node: Node) -> bool:
    """Whether the node computes in float; a conversion between float and integers does not count."""
    if node.op in ("QuantizeLinear", "DequantizeLinear") or not computes(node):
        return False
    return any(result.type.dtype == "f32" for result in node.results) and not _is_integer_operator(node)


def _is_integer_operator(node: Node) -> bool:
    return node.op.startswith(f"{DOMAIN}.") or any(value is not None and _is_q(value) for value in node.operands)


def _is_q(value: Value) -> bool:
    return value.type.dtype in ("u8", "i8")


# -- reading the pattern ---------------------------------------------------------------------------------------------


def dequantized(value: Value | None) -> list[Value] | None:
    """Integers, scale and zero point, if the value is dequantized 8-bit integers."""
    node = None if value is None else value.node
    if node is None or node.op != "DequantizeLinear" or len(node.operands) < 3:
        return None
    return node.operands if _is_q(node.operands[0]) else None


def _sole_reader(value: Value) -> Node | None:
    return value.uses[0].node if len(value.uses) == 1 and not value.is_output else None


def kernel_before(quantize: Node) -> tuple[Node, Node | None] | None:
    """The kernel whose result `quantize` reads, and the clamp between them; None when others read the result too."""
    value = quantize.operands[0]
    node = value.node
    if node is None or _sole_reader(value) is not quantize:
        return None
    if node.definition.trait(Clamps) is not None and node.op not in KERNELS:
        before = node.operands[0].node
        if before is None or _sole_reader(node.operands[0]) is not node:
            return None
        return before, node
    return node, None


def clamp_obstacle(clamp: Node, quantize: Node) -> str | None:
    """Why the clamp is not free; None when the grid of `quantize` already ends within its limits."""
    trait = clamp.definition.trait(Clamps)
    limits = trait.range(clamp) if trait else None
    scale, zero = (value.weight.array for value in quantize.operands[1:3])
    if limits is None:
        return f"the limits of its {clamp.op} are computed"
    low, high = integer_range(quantize.result.type.dtype or "")
    if limits[0] is not None and float((np.float32(low) - np.float32(zero)) * scale) < limits[0]:
        return f"its {clamp.op} is not free: the grid after it goes below {limits[0]:g}"
    if limits[1] is not None and float((np.float32(high) - np.float32(zero)) * scale) > limits[1]:
        return f"its {clamp.op} is not free: the grid after it goes above {limits[1]:g}"
    return None


# -- the kernels -----------------------------------------------------------------------------------------------------

Fused = tuple[str, list[Any], dict[str, Any]]
"""Operator, operands and attributes of an integer operator."""


def _bias(node: Node) -> list[Value | None] | str:
    """The int32 bias of a kernel, or why it has none that the kernel can add."""
    if len(node.operands) < 3:
        return []
    source = node.operands[2].node
    if source is None or source.op != "DequantizeLinear" or source.operands[0].type.dtype != "i32":
        return "its bias is float"
    x, w = dequantized(node.operands[0]), dequantized(node.operands[1])
    assert x is not None
    assert w is not None
    scale = np.asarray(x[1].weight.array * w[1].weight.array, np.float32)
    if not np.array_equal(
        np.broadcast_to(scale, source.operands[1].weight.array.shape), source.operands[1].weight.array
    ):
        return "the scale of its bias is not that of its input times that of its weight"
    return [source.operands[0]]


def fuse_conv(node: Node, output: list[Value]) -> Fused | str:
    """QLinearConv."""
    bias = _bias(node)
    if isinstance(bias, str):
        return bias
    return "QLinearConv", [*_read(node, 0), *_read(node, 1), *output, *bias], dict(node.attrs)


def fuse_gemm(node: Node, output: list[Value]) -> Fused | str:
    """QGemm."""
    bias = _bias(node)
    if isinstance(bias, str):
        return bias
    if node.attr("beta") != 1.0 or node.attr("alpha") != 1.0:
        return "it scales its operands"
    attrs = {name: value for name, value in node.attrs.items() if name in ("transA", "transB")}
    operands = [*_read(node, 0), *_read(node, 1), *(bias or [None]), *output]
    return f"{DOMAIN}.QGemm", operands if output or bias else operands[:-1], attrs


def fuse_matmul(node: Node, output: list[Value]) -> Fused | str:
    """QLinearMatMul, or MatMulIntegerToFloat without an output grid."""
    a, b = _read(node, 0), _read(node, 1)
    if output:
        return "QLinearMatMul", [*a, *b, *output], {}
    return f"{DOMAIN}.MatMulIntegerToFloat", [a[0], b[0], a[1], b[1], a[2], b[2]], {}


def fuse_binary(node: Node, output: list[Value]) -> Fused | str:
    """QLinearAdd or QLinearMul."""
    return f"{DOMAIN}.QLinear{node.op}", [*_read(node, 0), *_read(node, 1), *output], {}


def fuse_unary(node: Node, output: list[Value]) -> Fused | str:
    """The operator of the same name on integers."""
    attrs = dict(node.attrs) | ({"opset": VOCABULARY_OPSET} if node.op == "Softmax" else {})
    return f"{DOMAIN}.QLinear{node.op}", [*_read(node, 0), *output], attrs


def fuse_concat(node: Node, output: list[Value]) -> Fused | str:
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

    fuse: Callable[[Node, list[Value]], Fused | str]
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


# -- the rules -------------------------------------------------------------------------------------------------------


def fuse_before(quantize: Node, graph: Graph) -> Value | Miss | None:
    """The integer operator for the kernel whose result is quantized."""
    found = kernel_before(quantize)
    if found is None:
        return None
    node, clamp = found
    if node.op in KERNELS:
        return _fuse(node, clamp, quantize, graph)
    if node.definition.trait(KeepsGrid) is not None and clamp is None:
        return _move(node, quantize, graph)
    return None


def _fuse(node: Node, clamp: Node | None, quantize: Node | None, graph: Graph) -> Value | Miss:
    obstacle = _obstacle(node, clamp, quantize)
    if obstacle is not None:
        return Miss(obstacle)
    fused = KERNELS[node.op].fuse(node, quantize.operands[1:3] if quantize else [])
    if isinstance(fused, str):
        return Miss(fused)
    op, operands, attrs = fused
    end = quantize if quantize is not None else node
    around = [part for part in (node, clamp) if part is not None]
    return graph.add(op, operands, attrs, like=around, types=[end.result.type]).result


def _obstacle(node: Node, clamp: Node | None, quantize: Node | None) -> str | None:
    """What keeps the kernel from fusing, the bias aside."""
    kernel = KERNELS[node.op]
    for port in range(len(node.operands)) if kernel.reads is None else kernel.reads:
        if dequantized(node.operands[port]) is None:
            return f"it reads %{node.operands[port].hint} in float"
    if len({value.type.dtype for value in _activations(node)}) > 1:
        return "its operands have different integer dtypes"
    if quantize is not None and len(quantize.operands) < 3:
        return "its output has no zero point"
    if clamp is not None and quantize is not None:
        return clamp_obstacle(clamp, quantize) if kernel.absorbs else f"no {node.op} kernel takes a {clamp.op}"
    return None


def _activations(node: Node) -> Iterator[Value]:
    for value in node.operands[:2] if node.op in ("Conv", "Gemm") else node.operands:
        integers = dequantized(value)
        if integers is not None and integers[0].weight is None:
            yield integers[0]


def _move(node: Node, quantize: Node, graph: Graph) -> Value | Miss | None:
    """The data movement on integers, when both sides lie on one grid."""
    source = dequantized(node.operands[0])
    if source is None or len(node.results) > 1:
        return None
    same = all(
        np.array_equal(a.weight.array, b.weight.array) for a, b in zip(source[1:], quantize.operands[1:3], strict=True)
    )
    if not same or source[1].weight.array.ndim:
        return Miss("what it reads and what it writes lie on different grids")
    return graph.add(node.op, [source[0], *node.operands[1:]], node.attrs, like=node).result


def float_gemm(node: Node, graph: Graph) -> Value | Miss | None:
    """A Gemm whose result nothing quantizes."""
    if any(use.node.op == "QuantizeLinear" for use in node.result.uses):
        return None
    reader = _sole_reader(node.result)
    if reader is not None and reader.definition.trait(Clamps) is not None and reader.result.uses:
        after = _sole_reader(reader.result)
        if after is not None and after.op == "QuantizeLinear":
            return None
    return _fuse(node, None, None, graph)


def float_matmul(node: Node, graph: Graph) -> Value | Miss | None:
    """A MatMul whose result nothing quantizes."""
    return float_gemm(node, graph)


def why_float(node: Node, profile: Target) -> str:
    """Why the node was left in float."""
    if node.op not in KERNELS:
        clamp = node.definition.trait(Clamps)
        before = node.operands[0].node if clamp else None
        if before is not None and before.op in KERNELS:
            return f"it is computed with the {before.op} before it, which is in float"
        return profile.reason_for_float(node.op)
    readers = [use.node for use in node.result.uses]
    quantize = next((reader for reader in readers if reader.op == "QuantizeLinear"), None)
    clamp_node = next((r for r in readers if r.definition.trait(Clamps)), None) if quantize is None else None
    if clamp_node is not None:
        quantize = next((u.node for u in clamp_node.result.uses if u.node.op == "QuantizeLinear"), None)
    if reason := _obstacle(node, clamp_node, quantize):
        return reason
    if len(readers) > 1 or node.result.is_output:
        return f"its result has {len(readers) + node.result.is_output} readers"
    if quantize is None and node.op not in profile.float_output:
        return "nothing quantizes its result"
    fused = KERNELS[node.op].fuse(node, quantize.operands[1:3] if quantize else [])
    return fused if isinstance(fused, str) else profile.reason_for_float(node.op)
