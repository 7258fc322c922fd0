"""Convolutions and matrix products of the integer simulator, with the exact sums of integers that they consist of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qir.backends.torch_integer_modules import Grid
from qir.graph import Node


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


class MatrixProduct:
    """x @ w, or x @ w.T."""

    def __init__(self, transpose: bool) -> None:
        self.transpose = transpose

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        return x @ (weight.transpose(-1, -2) if self.transpose else weight)


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
