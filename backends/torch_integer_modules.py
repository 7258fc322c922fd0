"""Layers of the integer simulator: onnxruntime's own arithmetic, bit for bit.

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

from qir.errors import QirError
from qir.graph import Node
from qir.types import integer_range

TORCH = {"u8": torch.uint8, "i8": torch.int8, "i32": torch.int32, "i16": torch.int16, "u16": torch.uint16}


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


class QuantizeLinear(nn.Module):
    """Float to integers."""

    def __init__(self, to: Grid) -> None:
        super().__init__()
        self.to_grid = to

    def forward(self, x: Tensor) -> Tensor:
        """The integers, in memory in the order of their axes: torch pools no bytes that lie channels last."""
        return self.to_grid.quantize(x).contiguous()


class DequantizeLinear(nn.Module):
    """Integers to float."""

    def __init__(self, of: Grid) -> None:
        super().__init__()
        self.of_grid = of

    def forward(self, q: Tensor) -> Tensor:
        """The float values."""
        return self.of_grid.dequantize(q)


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
        a, b = (self.constant, x) if self.first else (x, self.constant)
        return torch.as_tensor(self.inner(a, b))


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
            window = x
            for axis, (start, size, step) in enumerate(zip(offset, sizes, self.stride, strict=True), 2):
                window = window.narrow(axis, start, (size - 1) * step + 1)
                window = window.index_select(axis, torch.arange(0, (size - 1) * step + 1, step, device=x.device))
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


class QLinearConcat(nn.Module):
    """Concatenation of integer tensors, each moved to the output's grid."""

    def __init__(self, tables: Sequence[Table], axis: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(tables)
        self.axis = axis

    def forward(self, *tensors: Tensor) -> Tensor:
        """The tensors side by side."""
        return torch.cat([table(q) for table, q in zip(self.tables, tensors, strict=True)], self.axis)
