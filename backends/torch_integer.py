"""Emissions of integer operators: onnxruntime's own arithmetic, bit for bit.

Formulas: all float32 unless said otherwise, measured against onnxruntime's x86 kernels.

    QLinearConv, QGemm, QLinearMatMul   q = clamp(round(float32(acc) * ((sx * sw) / sy)), lo - zy, hi - zy) + zy
    QGemm, MatMul with float output     y = float32(acc) * (sx * sw)
    QLinearAdd                          q = clamp(round(fma(a, rA, fma(b, rB, zy - fma(rA, za, rB * zb)))), lo, hi)
    QLinearMul                          q = clamp(round(float32((a - za) * (b - zb)) * ((sa * sb) / sy) + zy), lo, hi)
    QLinearAveragePool                  q = clamp(round(mean(sequential sum of (x - zx) * sx) / sy + zy), lo, hi)
    QLinearGlobalAveragePool            q = clamp(round(float32(sum(x - zx)) * (sx / (sy * n))), …) + zy
    other unary operators               a table of Q(f(DQ(q))) for the 256 integers

acc is the exact sum of integer products with the int32 bias. It is computed in floating point wide enough to be exact:
float32 where no partial sum can reach 2^24, else float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qir.backends.torch_emissions import Emission, emits, layer
from qir.errors import QirError
from qir.graph import Node, Value
from qir.integer import DOMAIN
from qir.types import integer_range

TORCH = {"u8": torch.uint8, "i8": torch.int8, "i32": torch.int32, "i16": torch.int16, "u16": torch.uint16}


def _constant(node: Node, port: int) -> np.ndarray:
    value = node.operands[port]
    if value.weight is None:
        raise QirError(f"operand {port} of {node.op} must be a constant", node)
    return np.asarray(value.weight.array)


class Grid(nn.Module):
    """Scale and zero point of one tensor, per tensor or along `axis`."""

    scale: Tensor
    zero: Tensor

    def __init__(self, scale: np.ndarray, zero: np.ndarray, dtype: str, axis: int | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32), persistent=False)
        self.register_buffer("zero", torch.tensor(zero.astype(np.float32)), persistent=False)
        self.low, self.high = map(float, integer_range(dtype))
        self.dtype, self.axis = TORCH[dtype], axis

    def _shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.axis is None or self.scale.ndim == 0:
            return self.scale, self.zero
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero.reshape(shape)

    def quantize(self, x: Tensor) -> Tensor:
        """QuantizeLinear."""
        scale, zero = self._shaped(x)
        return torch.clamp(torch.round(x / scale) + zero, self.low, self.high).to(self.dtype)

    def dequantize(self, q: Tensor) -> Tensor:
        """DequantizeLinear."""
        scale, zero = self._shaped(q)
        return (q.to(torch.float32) - zero) * scale

    def saturate(self, rounded: Tensor) -> Tensor:
        """Integers from whole numbers that the zero point is added to last."""
        zero = self.zero
        return (torch.clamp(rounded, self.low - zero, self.high - zero) + zero).to(self.dtype)


def grid(node: Node, scale: int, zero: int, axis: int | None = None) -> Grid:
    """The grid that two constant operands of the node state."""
    zero_point = node.operands[zero]
    return Grid(_constant(node, scale), _constant(node, zero), zero_point.type.dtype or "u8", axis)


class QuantizeLinear(nn.Module):
    """Float to integers."""

    def __init__(self, to: Grid) -> None:
        super().__init__()
        self.to_grid = to

    def forward(self, x: Tensor) -> Tensor:
        """The integers."""
        return self.to_grid.quantize(x)


class DequantizeLinear(nn.Module):
    """Integers to float."""

    def __init__(self, of: Grid) -> None:
        super().__init__()
        self.of_grid = of

    def forward(self, q: Tensor) -> Tensor:
        """The float values."""
        return self.of_grid.dequantize(q)


class Accumulate(nn.Module):
    """Exact integer sums of products with a constant weight, and what becomes of them: integers, or float32."""

    weight: Tensor
    bias: Tensor | None
    multiplier: Tensor
    zero: Tensor

    def __init__(
        self,
        product: Callable[[Tensor, Tensor], Tensor],
        x: Grid,
        weight: np.ndarray,
        scale: np.ndarray,
        bias: np.ndarray | None,
        channel_axis: int,
        to: Grid | None,
    ) -> None:
        super().__init__()
        self.product, self.to_grid, self.channel_axis = product, to, channel_axis
        reach = max(abs(x.low - float(x.zero)), abs(x.high - float(x.zero)))
        self.accumulator = torch.float32 if _largest_sum(weight) * reach < 2**24 else torch.float64
        self.register_buffer("weight", torch.tensor(weight.astype(np.float64)).to(self.accumulator), persistent=False)
        self.register_buffer("zero", x.zero.clone(), persistent=False)
        self.register_buffer("bias", None if bias is None else torch.tensor(bias.astype(np.float64)), persistent=False)
        combined = np.asarray(x.scale.numpy() * scale.astype(np.float32), np.float32)
        multiplier = combined if to is None else combined / to.scale.numpy()
        self.register_buffer("multiplier", torch.tensor(np.asarray(multiplier, np.float32)), persistent=False)

    def _per_channel(self, constant: Tensor, result: Tensor) -> Tensor:
        if constant.ndim == 0:
            return constant
        shape = [1] * result.ndim
        shape[self.channel_axis] = -1
        return constant.reshape(shape)

    def forward(self, q: Tensor) -> Tensor:
        """The kernel's result."""
        total = self.product(q.to(self.accumulator) - self.zero.to(self.accumulator), self.weight)
        if self.bias is not None:
            total = total.to(torch.float64) + self._per_channel(self.bias, total)
        scaled = total.to(torch.float32) * self._per_channel(self.multiplier, total)
        return scaled if self.to_grid is None else self.to_grid.saturate(torch.round(scaled))


def _largest_sum(weight: np.ndarray) -> float:
    """An upper bound on the sum of absolute weights that one output adds up."""
    return (
        float(np.abs(weight.astype(np.float64)).sum())
        if weight.ndim < 2
        else max(
            float(np.abs(weight.astype(np.float64)).reshape(weight.shape[0], -1).sum(1).max()),
            float(np.abs(weight.astype(np.float64)).sum(tuple(range(weight.ndim - 1))).max()),
        )
    )


class Convolution:
    """F.conv with fixed attributes, as a function of input and weight."""

    def __init__(self, node: Node, rank: int) -> None:
        attr = node.attr
        self.rank, self.groups = rank, attr("group")
        self.stride = attr("strides") or (1,) * rank
        self.dilation = attr("dilations") or (1,) * rank
        pads = attr("pads") or (0,) * (2 * rank)
        self.pads = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        function = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        return function(F.pad(x, self.pads), weight, None, self.stride, 0, self.dilation, self.groups)


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


class MatrixProduct:
    """x @ w, or x @ w.T."""

    def __init__(self, transpose: bool) -> None:
        self.transpose = transpose

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ (weight.transpose(-1, -2) if self.transpose else weight)


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
    module = Accumulate(MatrixProduct(transposed), grid(node, 1, 2), weight, _constant(node, 4), bias, -1, to)
    return layer(module, operands[0])


class DynamicProduct(nn.Module):
    """Matrix product of two integer tensors, exact in float64."""

    def __init__(self, a: Grid, b: Grid, to: Grid | None) -> None:
        super().__init__()
        self.a_grid, self.b_grid, self.to_grid = a, b, to

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The kernel's result."""
        total = (a.double() - self.a_grid.zero) @ (b.double() - self.b_grid.zero)
        scale = self.a_grid.scale * self.b_grid.scale
        if self.to_grid is None:
            return total.float() * scale
        return self.to_grid.saturate(torch.round(total.float() * (scale / self.to_grid.scale)))


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


def fma(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a * b + c of float32, rounded once."""
    return (a.double() * b.double() + c.double()).float()


class QLinearAdd(nn.Module):
    """Sum of two integer tensors."""

    ratio_a: Tensor
    ratio_b: Tensor
    offset: Tensor

    def __init__(self, a: Grid, b: Grid, to: Grid) -> None:
        super().__init__()
        ratio_a, ratio_b = a.scale / to.scale, b.scale / to.scale
        offset = to.zero - fma(ratio_a, a.zero, ratio_b * b.zero)
        for name, tensor in (("ratio_a", ratio_a), ("ratio_b", ratio_b), ("offset", offset)):
            self.register_buffer(name, tensor, persistent=False)
        self.to_grid = to

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum on the output's grid; the zero point is added before rounding."""
        total = fma(a.float(), self.ratio_a, fma(b.float(), self.ratio_b, self.offset))
        return torch.clamp(torch.round(total), self.to_grid.low, self.to_grid.high).to(self.to_grid.dtype)


class QLinearMul(nn.Module):
    """Product of two integer tensors."""

    multiplier: Tensor

    def __init__(self, a: Grid, b: Grid, to: Grid) -> None:
        super().__init__()
        self.a_grid, self.b_grid, self.to_grid = a, b, to
        self.register_buffer("multiplier", (a.scale * b.scale) / to.scale, persistent=False)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The product on the output's grid; the zero point is added before rounding."""
        product = (a.float() - self.a_grid.zero) * (b.float() - self.b_grid.zero)
        rounded = torch.round(product * self.multiplier + self.to_grid.zero)
        return torch.clamp(rounded, self.to_grid.low, self.to_grid.high).to(self.to_grid.dtype)


class Reordered(nn.Module):
    """A layer of two operands one of which is a constant."""

    constant: Tensor

    def __init__(self, inner: nn.Module, constant: np.ndarray, first: bool) -> None:
        super().__init__()
        self.inner, self.first = inner, first
        self.register_buffer("constant", torch.tensor(constant), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's result."""
        return self.inner(self.constant, x) if self.first else self.inner(x, self.constant)


@emits(f"{DOMAIN}.QLinearAdd", f"{DOMAIN}.QLinearMul")
def qlinear_binary(node: Node) -> Emission:
    """Sum or product of integers."""
    kind = QLinearAdd if node.op.endswith("Add") else QLinearMul
    module = kind(grid(node, 1, 2), grid(node, 4, 5), grid(node, 6, 7))
    a, b = node.operands[0], node.operands[3]
    if a.weight is not None or b.weight is not None:
        constant, moving = (a, b) if a.weight is not None else (b, a)
        return layer(Reordered(module, constant.weight.array, constant is a), moving)
    return layer(module, a, b)


class QLinearAveragePool(nn.Module):
    """Mean over windows, added up in the order of the window's elements."""

    def __init__(self, of: Grid, to: Grid, node: Node) -> None:
        super().__init__()
        self.of_grid, self.to_grid = of, to
        rank = len(node.attr("kernel_shape"))
        self.kernel = tuple(node.attr("kernel_shape"))
        self.stride = tuple(node.attr("strides") or (1,) * rank)
        pads = node.attr("pads") or (0,) * (2 * rank)
        self.pads = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
        self.count_padding = bool(node.attr("count_include_pad"))
        if node.attr("ceil_mode") or node.attr("auto_pad") not in ("NOTSET", "VALID"):
            raise QirError("the integer simulator takes no average pooling with ceil_mode or auto_pad", node)

    def _sum(self, x: Tensor) -> Tensor:
        rank = len(self.kernel)
        sizes = [(x.shape[2 + i] - self.kernel[i]) // self.stride[i] + 1 for i in range(rank)]
        total: Any = None
        for offset in np.ndindex(*self.kernel):
            window = x[(..., *(
                slice(o, o + (n - 1) * s + 1, s) for o, n, s in zip(offset, sizes, self.stride, strict=True)
            ))]  # fmt: skip
            total = window if total is None else total + window
        return torch.as_tensor(total)

    def forward(self, q: Tensor) -> Tensor:
        """The mean on the output's grid; the zero point is added before rounding."""
        x = F.pad(self.of_grid.dequantize(q), self.pads)
        inside = torch.ones_like(x) if self.count_padding else F.pad(torch.ones(q.shape, device=q.device), self.pads)
        mean = self._sum(x) / self._sum(inside)
        rounded = torch.round(mean / self.to_grid.scale + self.to_grid.zero)
        return torch.clamp(rounded, self.to_grid.low, self.to_grid.high).to(self.to_grid.dtype)


class QLinearGlobalAveragePool(nn.Module):
    """Mean over all spatial axes."""

    def __init__(self, of: Grid, to: Grid) -> None:
        super().__init__()
        self.of_grid, self.to_grid = of, to

    def forward(self, q: Tensor) -> Tensor:
        """The mean on the output's grid."""
        axes = tuple(range(2, q.ndim))
        count = 1
        for axis in axes:
            count *= q.shape[axis]
        total = (q.double() - self.of_grid.zero).sum(axes, keepdim=True).float()
        return self.to_grid.saturate(torch.round(total * (self.of_grid.scale / (self.to_grid.scale * count))))


@emits(f"{DOMAIN}.QLinearAveragePool")
def qlinear_average_pool(node: Node) -> Emission:
    """Average pooling of integers."""
    return layer(QLinearAveragePool(grid(node, 1, 2), grid(node, 3, 4), node), node.operands[0])


@emits(f"{DOMAIN}.QLinearGlobalAveragePool")
def qlinear_global_average_pool(node: Node) -> Emission:
    """Global average pooling of integers."""
    return layer(QLinearGlobalAveragePool(grid(node, 1, 2), grid(node, 3, 4)), node.operands[0])


class Table(nn.Module):
    """A function of one 8-bit integer."""

    table: Tensor

    def __init__(self, of: Grid, to: Grid, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        integers = torch.arange(int(of.low), int(of.high) + 1)
        self.register_buffer("table", to.quantize(function(of.dequantize(integers))), persistent=False)
        self.low = int(of.low)

    def forward(self, q: Tensor) -> Tensor:
        """The function's integers."""
        return self.table[q.long() - self.low]


@emits(f"{DOMAIN}.QLinearSigmoid", f"{DOMAIN}.QLinearLeakyRelu")
def qlinear_table(node: Node) -> Emission:
    """A table of the function."""
    function: Callable[[Tensor], Tensor] = torch.sigmoid
    if node.op.endswith("LeakyRelu"):
        function = nn.LeakyReLU(node.attr("alpha"))
    return layer(Table(grid(node, 1, 2), grid(node, 3, 4), function), node.operands[0])


class QLinearConcat(nn.Module):
    """Concatenation of integer tensors, each moved to the output's grid."""

    def __init__(self, tables: Sequence[Table], axis: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(tables)
        self.axis = axis

    def forward(self, *tensors: Tensor) -> Tensor:
        """The tensors side by side."""
        return torch.cat([table(q) for table, q in zip(self.tables, tensors, strict=True)], self.axis)


@emits(f"{DOMAIN}.QLinearConcat")
def qlinear_concat(node: Node) -> Emission:
    """Concatenation of integers."""
    to = grid(node, 0, 1)
    ports = range(2, len(node.operands), 3)
    tables = [Table(grid(node, port + 1, port + 2), to, torch.clone) for port in ports]
    return layer(QLinearConcat(tables, node.attr("axis")), *(node.operands[port] for port in ports))
