"""Emissions of integer operators, as layers of `qir.backends.torch_integer_modules`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from qir.backends.torch_emissions import Emission, emits, layer
from qir.backends.torch_integer_modules import (
    TORCH,
    DequantizeLinear,
    Grid,
    QLinearAdd,
    QLinearAveragePool,
    QLinearConcat,
    QLinearGlobalAveragePool,
    QLinearMul,
    QuantizeLinear,
    Reordered,
    Table,
)
from qir.backends.torch_integer_products import Accumulate, Convolution, DynamicProduct, MatrixProduct
from qir.errors import QirError
from qir.graph import Node, Value
from qir.operators.integer import DOMAIN


def _constant(node: Node, port: int) -> np.ndarray:
    value = node.operands[port]
    if value.weight is None:
        raise QirError(f"operand {port} of {node.op} must be a constant", node)
    return np.asarray(value.array)


def grid(node: Node, scale: int, zero: int, axis: int | None = None) -> Grid:
    """The grid that two constant operands of the node state."""
    zero_point = node.operands[zero] if zero < len(node.operands) else None
    if zero_point is None or node.attrs.get("block_size") or zero_point.type.dtype not in TORCH:
        raise QirError(f"the integer simulator takes no such {node.op}: it states no zero point, or blocks", node)
    return Grid(_constant(node, scale), _constant(node, zero), zero_point.type.dtype or "u8", axis)


def _centred(node: Node, weight: int, zero: int, axis: int) -> np.ndarray:
    """The integer weight less its zero point."""
    integers, zeros = _constant(node, weight).astype(np.int64), _constant(node, zero).astype(np.int64)
    shape = [1] * integers.ndim
    shape[axis] = -1
    return integers - (zeros.reshape(shape) if zeros.ndim else zeros)


@emits("QuantizeLinear")
def quantize_linear(node: Node) -> Emission:
    """QuantizeLinear."""
    return layer(QuantizeLinear(grid(node, 1, 2, node.attr("axis"))), node.operands[0])


@emits("DequantizeLinear")
def dequantize_linear(node: Node) -> Emission:
    """DequantizeLinear."""
    return layer(DequantizeLinear(grid(node, 1, 2, node.attr("axis"))), node.operands[0])


@emits("QLinearConv")
def qlinear_conv(node: Node) -> Emission:
    """Convolution of integers."""
    weight = _centred(node, 3, 5, 0)
    bias = _constant(node, 8) if len(node.operands) > 8 else None
    product = Convolution(node, weight.ndim - 2)
    module = Accumulate(product, grid(node, 1, 2), weight, _constant(node, 4), bias, 1, grid(node, 6, 7))
    return layer(module, node.operands[0])


@emits(f"{DOMAIN}.QGemm")
def qgemm(node: Node) -> Emission:
    """Matrix product of integers with a constant weight."""
    if node.attr("transA"):
        raise QirError("the integer simulator takes no QGemm with transA", node)
    transposed = bool(node.attr("transB"))
    weight = _centred(node, 3, 5, 0 if transposed else 1)
    operands = node.operands
    bias = _constant(node, 6) if len(operands) > 6 and operands[6] is not None else None
    to = grid(node, 7, 8) if len(operands) > 7 else None
    x = grid(node, 1, 2)
    x.scale *= node.attr("alpha")
    module = Accumulate(MatrixProduct(transposed), x, weight, _constant(node, 4), bias, -1, to)
    return layer(module, operands[0])


def _matmul(node: Node, ports: Sequence[int], to: Grid | None) -> Emission:
    a, a_scale, a_zero, b, b_scale, b_zero = ports
    operands: list[Value] = node.operands
    if operands[b].weight is None:
        module: nn.Module = DynamicProduct(grid(node, a_scale, a_zero), grid(node, b_scale, b_zero), to)
        return layer(module, operands[a], operands[b])
    weight = _centred(node, b, b_zero, -1)
    module = Accumulate(
        MatrixProduct(False), grid(node, a_scale, a_zero), weight, _constant(node, b_scale), None, -1, to
    )
    return layer(module, operands[a])


@emits("QLinearMatMul")
def qlinear_matmul(node: Node) -> Emission:
    """Matrix product of integers to integers."""
    return _matmul(node, (0, 1, 2, 3, 4, 5), grid(node, 6, 7))


@emits(f"{DOMAIN}.MatMulIntegerToFloat")
def matmul_integer_to_float(node: Node) -> Emission:
    """Matrix product of integers to float32."""
    return _matmul(node, (0, 2, 4, 1, 3, 5), None)


@emits(f"{DOMAIN}.QLinearAdd", f"{DOMAIN}.QLinearMul")
def qlinear_binary(node: Node) -> Emission:
    """Sum or product of integers."""
    kind = QLinearAdd if node.op.endswith("Add") else QLinearMul
    module = kind(grid(node, 1, 2), grid(node, 4, 5), grid(node, 6, 7))
    a, b = node.operands[0], node.operands[3]
    if a.weight is not None or b.weight is not None:
        constant, moving = (a, b) if a.weight is not None else (b, a)
        return layer(Reordered(module, constant.array, constant is a), moving)
    return layer(module, a, b)


@emits(f"{DOMAIN}.QLinearAveragePool")
def qlinear_average_pool(node: Node) -> Emission:
    """Average pooling of integers."""
    return layer(QLinearAveragePool(grid(node, 1, 2), grid(node, 3, 4), node), node.operands[0])


@emits(f"{DOMAIN}.QLinearGlobalAveragePool")
def qlinear_global_average_pool(node: Node) -> Emission:
    """Global average pooling of integers."""
    return layer(QLinearGlobalAveragePool(grid(node, 1, 2), grid(node, 3, 4)), node.operands[0])


@emits(f"{DOMAIN}.QLinearSigmoid", f"{DOMAIN}.QLinearLeakyRelu")
def qlinear_table(node: Node) -> Emission:
    """A table of the function."""
    function: Callable[[Tensor], Tensor] = torch.sigmoid
    if node.op.endswith("LeakyRelu"):
        function = nn.LeakyReLU(node.attr("alpha"))
    return layer(Table(grid(node, 1, 2), grid(node, 3, 4), function), node.operands[0])


@emits(f"{DOMAIN}.QLinearConcat")
def qlinear_concat(node: Node) -> Emission:
    """Concatenation of integers."""
    to = grid(node, 0, 1)
    ports = range(2, len(node.operands), 3)
    tables = [Table(grid(node, port + 1, port + 2), to, torch.clone) for port in ports]
    return layer(QLinearConcat(tables, node.attr("axis")), *(node.operands[port] for port in ports))
