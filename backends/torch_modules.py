"""Layers and functions of emitted torch modules that torch.nn lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qir.errors import QirError


class Call(nn.Module):
    """A function as a layer: it passes all arguments through unchanged, and `training` where the call follows it."""

    def __init__(self, function: Callable[..., Any], name: str, training: str | None = None) -> None:
        super().__init__()
        self.function = function
        self.name = name
        self.training_argument = training

    @property
    def lowers_as(self) -> tuple[Callable[..., Any], str | None]:
        """The function that the importer lowers a call of this layer as, and its argument that is the training flag."""
        return self.function, self.training_argument

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the function returns."""
        if self.training_argument is not None:
            kwargs[self.training_argument] = self.training
        return self.function(*args, **kwargs)

    def _get_name(self) -> str:
        return self.name

    def extra_repr(self) -> str:
        """What the function notes about itself."""
        return str(getattr(self.function, "note", ""))


class Constant(nn.Module):
    """A tensor that is no part of the state."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        if isinstance(value, Tensor):
            self.register_buffer("value", value, persistent=False)
        else:  # an array of a dtype that torch has not
            self.value = value

    def forward(self) -> Any:
        """The tensor."""
        return self.value


class InFloat(nn.Module):
    """A layer that torch has for floats alone, on 8-bit integers that it moves as they are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, q: Tensor) -> Tensor:
        """The layer's integers."""
        moved: Tensor = self.inner(q.to(torch.float32)).to(q.dtype)
        return moved


class Folded:
    """A function of two tensors as one of any number."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.function = function
        self.__name__ = getattr(function, "__name__", "folded")

    def __call__(self, *tensors: Tensor) -> Tensor:
        return reduce(self.function, tensors)


class Conv(nn.Module):
    """A convolution whose weights are arguments, because another layer owns them or they are computed."""

    def __init__(self, rank: int, stride: Any, padding: Any, dilation: Any, groups: int, pad: nn.Module | None) -> None:
        super().__init__()
        self.rank, self.groups = rank, groups
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.pad = pad

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The convolution of `x`."""
        function = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        x = x if self.pad is None else self.pad(x)
        return function(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class Pad(nn.Module):
    """Padding with a constant, sizes in torch's order (last axis first)."""

    def __init__(self, sizes: Sequence[int], value: float) -> None:
        super().__init__()
        self.sizes, self.value = tuple(sizes), value

    def forward(self, x: Tensor) -> Tensor:
        """`x`, padded."""
        return F.pad(x, self.sizes, value=self.value)


class Gemm(nn.Module):
    """ONNX's Gemm."""

    def __init__(self, alpha: float, beta: float, transpose_a: int, transpose_b: int) -> None:
        super().__init__()
        self.alpha, self.beta, self.transpose_a, self.transpose_b = alpha, beta, transpose_a, transpose_b

    def forward(self, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
        """alpha * a @ b + beta * c."""
        product = (a.t() if self.transpose_a else a) @ (b.t() if self.transpose_b else b)
        product = product if self.alpha == 1.0 else self.alpha * product
        if c is None:
            return product
        return product + (c if self.beta == 1.0 else self.beta * c)


class BatchNorm(nn.Module):
    """A batch norm whose weights and statistics are arguments, because another layer owns them."""

    def __init__(self, eps: float, momentum: float) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum

    def forward(
        self, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, count: Tensor | None = None
    ) -> Tensor:
        """`x` normalized; when training, the statistics are updated in place."""
        if self.training and count is not None:
            count.add_(1)
        return F.batch_norm(x, mean, variance, weight, bias, self.training, self.momentum, self.eps)


class Swish(nn.Module):
    """x * sigmoid(alpha * x)."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """The activation."""
        return x * torch.sigmoid(self.alpha * x)


class HardSigmoid(nn.Module):
    """clamp(alpha * x + beta, 0, 1)."""

    def __init__(self, alpha: float, beta: float) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        """The activation."""
        return (self.alpha * x + self.beta).clamp(0, 1)


class StochasticDepth(nn.Module):
    """When training, drops the input, or rows of it, with probability `p`; drawn as torchvision draws it."""

    def __init__(self, p: float, mode: str) -> None:
        super().__init__()
        self.p, self.mode = p, mode

    def forward(self, x: Tensor) -> Tensor:
        """`x`, in training scaled by a random 0 or 1 / (1 - p)."""
        if not self.training or self.p == 0.0:
            return x
        survival = 1.0 - self.p
        size = [x.shape[0] if self.mode == "row" else 1] + [1] * (x.ndim - 1)
        noise = torch.empty(size, dtype=x.dtype, device=x.device).bernoulli_(survival)
        if survival > 0.0:
            noise.div_(survival)
        return x * noise


def in_training(x: Any) -> Any:
    """What InTraining is imported as: its argument in inference."""
    return x


class InTraining(nn.Module):
    """A layer that returns its argument, but for training."""

    lowers_as = (in_training, None)

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Any) -> Any:
        """The argument, or in training what the inner layer makes of it."""
        return self.inner(x) if self.training else x


def inference_only(reason: str) -> None:
    """What InferenceOnly is imported as: nothing in inference."""


class InferenceOnly(nn.Module):
    """Refuses to be called in training while it is enabled."""

    lowers_as = (inference_only, None)

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True

    def forward(self, reason: str) -> None:
        """Nothing. Raises QirError in training."""
        if self.training and self.enabled:
            raise QirError(
                f"{reason}, which was not recorded",
                help="call eval(), or keep the module whole that asks: modules_to_exclude=[…]\n"
                "to train what it computes in evaluation: model.inference_only.enabled = False",
            )


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """F.prelu with a slope of ONNX's shape, which broadcasts against `x`."""
    return F.prelu(x, slope.reshape(-1))


def gather(data: Tensor, indices: Tensor, axis: int) -> Tensor:
    """ONNX's Gather: `indices` of any rank in the place of `axis`."""
    axis = axis % data.ndim
    picked = data.index_select(axis, torch.where(indices < 0, indices + data.shape[axis], indices).reshape(-1))
    return picked.reshape([*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]])


def flatten(x: Tensor, axis: int) -> Tensor:
    """ONNX's Flatten: a matrix, with the axes before `axis` in its rows."""
    rows = 1
    for size in x.shape[: axis if axis >= 0 else x.ndim + axis]:
        rows *= size
    return x.reshape(rows, -1)


def reshape(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """ONNX's Reshape, where 0 copies a size."""
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


def unsqueeze(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """New axes of one element at these places of the result."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def same(x: Tensor) -> Tensor:
    """`x`."""
    return x
