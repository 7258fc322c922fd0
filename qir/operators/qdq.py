"""The operator of quantizers, `qir.Quantize`, and how ONNX writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding
from qir.errors import QirError
from qir.ops import Attribute, OpDef, declare
from qir.traits import Unary
from qir.types import DTYPES, NUMPY, integer_range, storage

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value


def expand_quantize(graph: Graph, node: Node) -> Sequence[Value]:
    """QuantizeLinear and DequantizeLinear with the encoding's constants; for weights the second, on their integers.

    Float formats of 16 bits are two casts. Tensors that are computed lie in 8 bits at least: no runtime has kernels
    that move narrower ones. A grid that leaves out integers of its storage (`u4`, which then lies in `u8`, or a narrow
    one) has a clamp behind DequantizeLinear, which yields the same values: scaling keeps the order.
    """
    encoding = node.attr("encoding")
    if not encoding.calibrated:
        raise QirError("this quantizer is not calibrated", node, help="run calibrate with data that reaches it")
    if encoding.scale is None:
        return _casts(graph, node, encoding)
    x, (scale, zero) = node.operands[0], _constants(node, encoding)
    held = _held_as(encoding, weight=x.weight is not None)
    grid = [
        graph.constant(scale, hint=f"{node.result.hint}_scale"),
        graph.constant(zero.astype(NUMPY[held]), hint=f"{node.result.hint}_zero_point"),
    ]
    attrs = _attributes(encoding)
    if x.weight is not None:
        points = graph.constant(encoding.quantize(x.array).astype(NUMPY[held]), hint=f"{x.hint}_quantized")
        x.weight.release()
        return graph.add("DequantizeLinear", [points, *grid], attrs, like=node).results
    points = graph.add("QuantizeLinear", [x, *grid], attrs, like=node, hint=f"{x.hint}_quantized").result
    values = graph.add("DequantizeLinear", [points, *grid], attrs, like=node).result
    result = _clamped(graph, node, values, encoding, held)
    if node.result.is_output and x.node is not None and not x.is_output:  # the model's outputs keep their names
        result.hint, x.hint = x.hint, f"{x.hint}_float"
    return [result]


def _held_as(encoding: Encoding, *, weight: bool) -> str:
    """The dtype of the points in the ONNX model.

    Those of computed tensors have whole bytes, which runtimes can move. 8-bit integers in blocks are held in 16 bits:
    onnxruntime 1.31 takes them for integers with a scale a channel, and its fused kernel then fails.
    """
    if isinstance(encoding, FloatEncoding):
        return storage(encoding.dtype)
    if encoding.block_axis is not None and encoding.bits == 8:
        return f"{encoding.dtype[0]}16"
    return f"{encoding.dtype[0]}8" if encoding.bits < 8 and not weight else storage(encoding.dtype)


def _attributes(encoding: Encoding) -> dict[str, Any]:
    if encoding.block_axis is not None:
        return {"axis": encoding.block_axis, "block_size": encoding.block_size}
    return {} if encoding.axis is None else {"axis": encoding.axis}


def _constants(node: Node, encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point as QuantizeLinear takes them: with blocks, of the tensor's sizes on all other axes."""
    assert encoding.scale is not None
    zero = np.zeros(encoding.scale.shape) if encoding.zero_point is None else encoding.zero_point
    if encoding.block_axis is None or encoding.block_size is None:
        return encoding.scale, zero
    shape = node.operands[0].type.static
    if shape is None:
        raise QirError("ONNX scales blocks of tensors of known shape only", node, help="import with example inputs")
    sizes = list(shape)
    sizes[encoding.block_axis] //= encoding.block_size
    return np.broadcast_to(encoding.scale, sizes), np.broadcast_to(zero, sizes)


def _casts(graph: Graph, node: Node, encoding: Encoding) -> Sequence[Value]:
    x = node.operands[0]
    if x.weight is not None:
        narrow = graph.constant(encoding.quantize(x.array), hint=f"{x.hint}_quantized")
    else:
        to = {"to": DTYPES[storage(encoding.dtype)]}
        narrow = graph.add("Cast", [x], to, like=node, hint=f"{x.hint}_quantized").result
    return graph.add("Cast", [narrow], {"to": DTYPES[x.type.dtype or "f32"]}, like=node).results


def _clamped(graph: Graph, node: Node, values: Value, encoding: Encoding, held: str) -> Value:
    """`values`, limited to the grid where its storage reaches further."""
    if isinstance(encoding, FloatEncoding) or (encoding.low, encoding.high) == integer_range(held):
        return values
    if encoding.scale is not None and not encoding.scale.ndim:
        ends = [graph.constant(encoding.dequantize(np.array(end))) for end in (encoding.low, encoding.high)]
        return graph.add("Clip", [values, *ends], like=node).result
    if values.type.rank is None:
        raise QirError("a grid for each channel needs a known rank", node, help="import with example inputs")
    ones = np.ones([1] * values.type.rank, np.int64)
    low, high = (graph.constant(encoding.dequantize(ones * end)) for end in (encoding.low, encoding.high))
    above = graph.add("Max", [values, low], like=node).result
    return graph.add("Min", [above, high], like=node).result


QUANTIZE = declare(
    OpDef(
        "qir.Quantize", ("x",), 1, 1,
        attributes={"encoding": Attribute("ENCODING", required=True), "fixed": Attribute("INT", 0)},
        traits=(Unary(),), expand=expand_quantize, infer=lambda node: [node.operands[0].type],
        doc="Rounds every element to the grid of the encoding; before calibration it returns `x` as it is. "
        "The scale of a `fixed` one is given: data does not change it.",
    )
)  # fmt: skip
