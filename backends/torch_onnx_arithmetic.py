"""ONNX's operators on elements and its reductions, for every dtype, broadcast and set of axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from qir.backends.torch_onnx_emissions import computes, listed, torch_dtype


@computes("Div")
def divide(a: Tensor, b: Tensor) -> Tensor:
    """The quotient; of integers without its fraction."""
    return a / b if a.is_floating_point() or a.is_complex() else torch.div(a, b, rounding_mode="trunc")


@computes("Pow")
def power(x: Tensor, exponent: Tensor) -> Tensor:
    """`x` to the power of the exponent, in the dtype of `x`."""
    return torch.pow(x, exponent).to(x.dtype)


@computes("Clip")
def clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """`x` between the limits that are given; the higher limit counts where they cross."""
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


@computes("Sum", "Mean", "Max", "Min")
def folded(*tensors: Tensor, op: str) -> Tensor:
    """The sum, mean, maximum or minimum of tensors that broadcast."""
    functions = {"Max": torch.maximum, "Min": torch.minimum}
    total: Tensor = reduce(functions.get(op, torch.add), tensors)
    return total / len(tensors) if op == "Mean" else total


@computes("PRelu")
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """`x`, times the slope where it is negative."""
    return torch.where(x < 0, x * slope, x)


@computes("Selu")
def selu(x: Tensor, alpha: float, gamma: float) -> Tensor:
    """gamma * x, or gamma * alpha * (e^x - 1) where `x` is negative."""
    return gamma * (torch.clamp(x, min=0) + alpha * torch.expm1(torch.clamp(x, max=0)))


@computes("ThresholdedRelu")
def thresholded_relu(x: Tensor, alpha: float) -> Tensor:
    """`x` where it is more than alpha, else 0."""
    return torch.where(x > alpha, x, torch.zeros_like(x))


@computes("Shrink")
def shrink(x: Tensor, bias: float, lambd: float) -> Tensor:
    """`x` moved towards zero by the bias, and 0 within the limits."""
    zero = torch.zeros_like(x)
    return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, zero))


@computes("Hardmax")
def hardmax(x: Tensor, axis: int) -> Tensor:
    """1 for the first largest element along the axis, else 0."""
    return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1)


@computes("LpNormalization")
def lp_normalization(x: Tensor, axis: int, p: int) -> Tensor:
    """`x` divided by its norm along the axis, 0 where that is 0."""
    norm = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / norm)


@computes("Det")
def determinant(x: Tensor) -> Tensor:
    """The determinants of the matrices."""
    found: Tensor = torch.linalg.det(x)
    return found


@computes("BitShift")
def bit_shift(x: Tensor, by: Tensor, direction: str) -> Tensor:
    """The bits of `x`, moved."""
    return torch.bitwise_left_shift(x, by) if direction == "LEFT" else torch.bitwise_right_shift(x, by)


@computes("IsInf")
def is_infinite(x: Tensor, detect_negative: int, detect_positive: int) -> Tensor:
    """Where `x` is infinite, of the signs that count."""
    none = torch.zeros_like(x, dtype=torch.bool)
    return (torch.isneginf(x) if detect_negative else none) | (torch.isposinf(x) if detect_positive else none)


Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _extreme(largest: bool) -> Reduction:
    def of(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if x.dtype == torch.bool:
            return _extreme(largest)(x.to(torch.uint8), axes, keep).to(torch.bool)
        if x.numel():
            return torch.amax(x, axes, keep) if largest else torch.amin(x, axes, keep)
        limits = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
        worst = (
            (limits.min if largest else limits.max)
            if not x.is_floating_point()
            else float("-inf" if largest else "inf")
        )
        return torch.full_like(torch.sum(x, axes, keep, dtype=x.dtype), worst)

    return of


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = torch.prod(x, axis, keep, dtype=x.dtype)
    return x


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.mean(x if x.is_floating_point() else x.double(), axes, keep).to(x.dtype)


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.logsumexp(x if x.is_floating_point() else x.double(), axes, keep).to(x.dtype)


REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _sum, "ReduceMean": _mean, "ReduceMax": _extreme(True), "ReduceMin": _extreme(False),
    "ReduceProd": _product, "ReduceLogSumExp": _log_sum_exp,
    "ReduceLogSum": lambda x, axes, keep: torch.log(_sum(x, axes, keep)).to(x.dtype),
    "ReduceL1": lambda x, axes, keep: _sum(x.abs(), axes, keep),
    "ReduceL2": lambda x, axes, keep: torch.sqrt(_sum(x * x, axes, keep)).to(x.dtype),
    "ReduceSumSquare": lambda x, axes, keep: _sum(x * x, axes, keep),
}  # fmt: skip


@computes(*REDUCTIONS)
def reduction(x: Tensor, axes: Tensor | None = None, *, keepdims: int, noop_with_empty_axes: int, op: str) -> Tensor:
    """One number for all elements along the axes; without any, all axes, or none if `noop_with_empty_axes`."""
    along = listed(axes) or ([] if noop_with_empty_axes else list(range(x.ndim)))
    if not along:
        return REDUCTIONS[op](x.unsqueeze(-1), [-1], False)
    return REDUCTIONS[op](x, along, bool(keepdims))


@computes("RandomNormal", "RandomUniform")
def random(shape: tuple[int, ...], dtype: int, op: str, mean: float = 0.0, scale: float = 1.0, low: float = 0.0,
           high: float = 1.0) -> Tensor:  # fmt: skip
    """Random numbers, drawn by torch's generator."""
    drawn = torch.empty(shape, dtype=torch_dtype(dtype))
    return drawn.normal_(mean, scale) if op == "RandomNormal" else drawn.uniform_(low, high)
