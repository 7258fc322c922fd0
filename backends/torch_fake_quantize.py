"""Fake quantization: rounding to a grid in float, with a gradient. One operation forward, one backward.

    y = (clamp(round_half_even(x / scale) + zero, low, high) - zero) * scale

The gradient of the rounding is that of the identity (straight-through): it passes where the clamp changed nothing.
Nothing is kept for it but `x` itself, which the operation before usually keeps anyway. All arithmetic is in float32,
with the true division of ONNX's QuantizeLinear.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def fake_quantize(x: Tensor, scale: Tensor, zero: Tensor | None, low: int, high: int) -> Tensor:
    """`x` (float32) on the integer grid; `scale` and `zero` broadcast against it, and None stands for zero."""
    if not (x.requires_grad and torch.is_grad_enabled()):
        return _on_grid(_steps(x, scale, zero).clamp_(low, high), scale, zero)
    rounded: Tensor = _FakeQuantize.apply(x, scale, zero, low, high)  # type: ignore[no-untyped-call]
    return rounded


def learned_fake_quantize(x: Tensor, scale: Tensor, zero: Tensor | None, low: int, high: int) -> Tensor:
    """`fake_quantize` with gradients for `scale` and `zero`, too: those of LSQ and LSQ+.

    Inside the range, d y / d scale = round(x / scale) - x / scale; outside it is the end of the grid, in steps from
    zero, and d y / d zero = -scale. The gradients are multiplied by 1 / sqrt(elements for each scale * high), so that
    scales and weights move at like speed (Esser et al., Learned Step Size Quantization, section 2.2).
    """
    rounded: Tensor = _LearnedFakeQuantize.apply(x, scale, zero, low, high)  # type: ignore[no-untyped-call]
    return rounded


def fake_cast(x: Tensor, scale: Tensor | None, dtype: torch.dtype, top: float) -> Tensor:
    """`x` (float32) rounded to a float format whose largest number is `top`; 8-bit formats saturate there."""
    rounded: Tensor = _FakeCast.apply(x, scale, dtype, top)  # type: ignore[no-untyped-call]
    return rounded


def _steps(x: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """The integers of `x` before they are limited to the grid, in memory of their own."""
    return torch.div(x, scale).round_().add_(0.0 if zero is None else zero)  # adding zero makes -0.0 an integer: 0.0


def _on_grid(integers: Tensor, scale: Tensor, zero: Tensor | None) -> Tensor:
    """The values of integers, in their memory."""
    return (integers if zero is None else integers.sub_(zero)).mul_(scale)


def _where_inside(gradient: Tensor, steps: Tensor, low: int, high: int) -> Tensor:
    """`gradient` where `low` <= `steps` <= `high` (whole numbers), zero elsewhere.

    One operation over memory. A compiler keeps a byte an element for it; computed as numbers, since conditions are
    slow to store.
    """
    if torch.compiler.is_compiling():
        past = (steps - steps.clamp(low, high)).abs().clamp(max=1)
        return gradient * (1 - past).to(torch.uint8)
    passed: Tensor = torch.ops.aten.hardtanh_backward(gradient, steps, low - 0.5, high + 0.5)
    return passed


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: Tensor | None, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x, scale, zero)
        ctx.ends = low, high
        return _on_grid(_steps(x, scale, zero).clamp_(low, high), scale, zero)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        steps = _steps(*ctx.saved_tensors)
        return _where_inside(gradient, steps, *ctx.ends), None, None, None, None


class _LearnedFakeQuantize(_FakeQuantize):
    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero = ctx.saved_tensors
        low, high = ctx.ends
        steps = _steps(x, scale, zero)
        passed = _where_inside(gradient, steps, low, high)
        slope = -_where_inside(x / scale, steps, low, high)
        slope.add_(steps.clamp_(low, high))
        slope = (slope if zero is None else slope.sub_(zero)).mul_(gradient)
        weight = (x.numel() / scale.numel() * high) ** -0.5
        for_scale = slope.sum_to_size(scale.shape) * weight
        if zero is None:
            return passed, for_scale, None, None, None
        for_zero = (passed.sum_to_size(scale.shape) - gradient.sum_to_size(scale.shape)) * scale * weight
        return passed, for_scale, for_zero, None, None


@torch.library.custom_op("qir::there_and_back", mutates_args=())
def _there_and_back(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` (float32) cast to `dtype` and back: an operation of its own, because compilers drop such pairs of casts."""
    return x.to(dtype).to(torch.float32)


@_there_and_back.register_fake
def _(x: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty_like(x)


class _FakeCast(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor | None, dtype: torch.dtype, top: float) -> Tensor:
        ctx.save_for_backward(x, scale)
        ctx.top = top
        scaled = x if scale is None else x / scale
        if dtype.itemsize == 1:
            scaled = scaled.clamp(-top, top)
        rounded: Tensor = _there_and_back(scaled, dtype)
        return rounded if scale is None else rounded * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        past = ctx.top * (1 + 2**-22)  # this operation's limits lie outside
        scaled = x if scale is None else x / scale
        return torch.ops.aten.hardtanh_backward(gradient, scaled, -past, past), None, None, None
