"""Rewrites Q/DQ patterns into the integer operators that the target runtime runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from qir.facts import CALIBRATED, COMPOSITES_EXPANDED, computes
from qir.fusion import KERNELS, clamp_obstacle, dequantized, is_quantized, kernel_before, sole_reader
from qir.graph import Graph, Node, Value
from qir.operators.integer import DOMAIN
from qir.pipeline import Pass
from qir.placement.targets import Target, target
from qir.rewrite import Miss, Note, Outcome, rewrite
from qir.traits import Clamps, KeepsGrid


@dataclass(frozen=True)
class FuseInteger(Pass, name="fuse-integer"):
    """Replace DequantizeLinear, operator, QuantizeLinear by the integer operator that onnxruntime makes of them.

    What is left in float says why. The result computes what onnxruntime computes with all optimizations, bit for bit.

        graph @g(%a: u8[4], %b: u8[4]) {
          %x = DequantizeLinear %a, f32[](0.5), u8[](0) : f32[4]
          %y = DequantizeLinear %b, f32[](0.25), u8[](0) : f32[4]
          %s = Add %x, %y : f32[4]
          %relu = Relu %s : f32[4]
          %q = QuantizeLinear %relu, f32[](0.5), u8[](0) : u8[4]
          return %q
        }
        -->
        graph @g(%a: u8[4], %b: u8[4]) {
          %s = com.microsoft.QLinearAdd %a, f32[](0.5), u8[](0), %b, f32[](0.25), u8[](0), f32[](0.5), u8[](0) : u8[4]
          return %s
        }
    """

    needs = (CALIBRATED, COMPOSITES_EXPANDED)
    numerics = "rounds"

    target: str = "ort-x86-vnni"

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
    return node.op.startswith(f"{DOMAIN}.") or any(value is not None and is_quantized(value) for value in node.operands)


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
        return obstacle
    fused = KERNELS[node.op].fuse(node, quantize.operands[1:3] if quantize else [])
    if isinstance(fused, Miss):
        return fused
    op, operands, attrs = fused
    end = quantize if quantize is not None else node
    around = [part for part in (node, clamp) if part is not None]
    return graph.add(op, operands, attrs, like=around, types=[end.result.type]).result


def _obstacle(node: Node, clamp: Node | None, quantize: Node | None) -> Miss | None:
    """What keeps the kernel from fusing, the bias aside."""
    kernel = KERNELS[node.op]
    for port in range(len(node.operands)) if kernel.reads is None else kernel.reads:
        if dequantized(node.operands[port]) is None:
            return Miss(_reads_no_integers(node.operands[port]), "quantize that tensor to 8 bits, without blocks")
    if len({integers.type.dtype for integers, *_ in _activations(node)}) > 1:
        return Miss("its operands have different integer dtypes", "give its operands grids of one dtype")
    if quantize is not None and len(quantize.operands) < 3:
        return Miss("its output has no zero point", "give its QuantizeLinear a zero point")
    if quantize is not None and not is_quantized(quantize.result):
        return Miss(f"it writes {quantize.result.type.dtype}, and its kernel writes 8 bits", "quantize it to 8 bits")
    scales = [scale for _, scale, _ in _activations(node)] + (quantize.operands[1:2] if quantize else [])
    if any(prod(scale.type.static or ()) > 1 for scale in scales):
        return Miss("an activation has a scale for each channel", "give activations one scale")
    if clamp is not None and quantize is not None:
        return clamp_obstacle(clamp, quantize) if kernel.absorbs else Miss(f"no {node.op} kernel takes a {clamp.op}")
    return None


def _reads_no_integers(value: Value) -> str:
    """What the kernel reads instead of 8-bit integers."""
    node = value.node
    if node is None or node.op != "DequantizeLinear":
        return f"it reads %{value.hint} in float"
    blocks = " in blocks" if node.attr("block_size") else ""
    return f"it reads %{value.hint} from {node.operands[0].type.dtype}{blocks}, and its kernel reads 8 bits"


def _activations(node: Node) -> Iterator[list[Value]]:
    """Integers, scale and zero point of what the kernel reads beside weights."""
    for value in node.operands[:2] if node.op in ("Conv", "Gemm") else node.operands:
        parts = dequantized(value)
        if parts is not None and parts[0].weight is None:
            yield parts


def _move(node: Node, quantize: Node, graph: Graph) -> Value | Miss | None:
    """The data movement on integers, when both sides lie on one grid."""
    source = dequantized(node.operands[0])
    if source is None or len(node.results) > 1:
        return None
    same = all(np.array_equal(a.array, b.array) for a, b in zip(source[1:], quantize.operands[1:3], strict=True))
    if not same or source[1].array.ndim:
        return Miss("what it reads and what it writes lie on different grids")
    return graph.add(node.op, [source[0], *node.operands[1:]], node.attrs, like=node).result


def float_gemm(node: Node, graph: Graph) -> Value | Miss | None:
    """A Gemm whose result nothing quantizes."""
    if any(use.node.op == "QuantizeLinear" for use in node.result.uses):
        return None
    reader = sole_reader(node.result)
    if reader is not None and reader.definition.trait(Clamps) is not None and reader.result.uses:
        after = sole_reader(reader.result)
        if after is not None and after.op == "QuantizeLinear":
            return None
    return _fuse(node, None, None, graph)


def float_matmul(node: Node, graph: Graph) -> Value | Miss | None:
    """A MatMul whose result nothing quantizes."""
    return float_gemm(node, graph)


def why_float(node: Node, profile: Target) -> Miss:
    """Why the node was left in float."""
    if node.op not in KERNELS:
        clamp = node.definition.trait(Clamps)
        before = node.operands[0].node if clamp else None
        if before is not None and before.op in KERNELS:
            return Miss(f"it is computed with the {before.op} before it, which is in float")
        if node.definition.trait(KeepsGrid) is not None:
            return Miss("what it moves is in float", "quantize what it reads and what it writes on one grid")
        return Miss(profile.reason_for_float(node.op))
    readers = [use.node for use in node.result.uses]
    quantize = next((reader for reader in readers if reader.op == "QuantizeLinear"), None)
    clamp_node = next((r for r in readers if r.definition.trait(Clamps)), None) if quantize is None else None
    if clamp_node is not None:
        quantize = next((u.node for u in clamp_node.result.uses if u.node.op == "QuantizeLinear"), None)
    if reason := _obstacle(node, clamp_node, quantize):
        return reason
    if len(readers) > 1 or node.result.is_output:
        return Miss(f"its result has {len(readers) + node.result.is_output} readers",
                    "let one quantizer stand before all of them")  # fmt: skip
    if quantize is None and node.op not in profile.float_output:
        return Miss("nothing quantizes its result", "quantize its result")
    fused = KERNELS[node.op].fuse(node, quantize.operands[1:3] if quantize else [])
    return fused if isinstance(fused, Miss) else Miss(profile.reason_for_float(node.op))
