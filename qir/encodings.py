"""Encodings: the grid of integers on which a tensor's values lie.

One arithmetic everywhere, that of ONNX's QuantizeLinear and DequantizeLinear, in float32 with a true division:

    q = saturate(round_half_even(x / scale) + zero_point)        x' = (q - zero_point) * scale
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qir.types import NUMPY, integer_range


@dataclass(frozen=True, eq=False)
class Encoding:
    """An affine grid. Quantizers that must share a grid hold the same object, so identity is equality.

    `scale` and `zero_point` are scalars (rank 0), or one per index of `axis`; None until calibrated.
    A symmetric grid has its zero in the middle; `narrow` leaves out the lowest integer, so that -q exists for every q.
    """

    dtype: str
    symmetric: bool = False
    axis: int | None = None
    narrow: bool = False
    scale: np.ndarray | None = None
    zero_point: np.ndarray | None = None

    @property
    def calibrated(self) -> bool:
        """Whether the scale is known."""
        return self.scale is not None

    @property
    def low(self) -> int:
        """The lowest integer of the grid."""
        return integer_range(self.dtype)[0] + self.narrow

    @property
    def high(self) -> int:
        """The highest integer of the grid."""
        return integer_range(self.dtype)[1]

    def with_range(self, low: np.ndarray, high: np.ndarray) -> Encoding:
        """This grid, scaled so that it covers `low` to `high` and zero (float arrays, one per channel or rank 0).

        The zero of the tensor is always a point of the grid. An empty range gets the scale 1. Sources of the formulas:
        ONNX QuantizeLinear; the asymmetric zero point is the integer nearest to where the range puts zero.
        """
        low, high = np.minimum(low, 0).astype(np.float64), np.maximum(high, 0).astype(np.float64)
        middle = (integer_range(self.dtype)[0] + integer_range(self.dtype)[1] + 1) // 2
        if self.symmetric:
            reach = np.maximum(high / (self.high - middle), -low / (middle - self.low))
            scale = _usable(reach)
            zero = np.full(scale.shape, middle)
        else:
            scale = _usable((high - low) / (self.high - self.low))
            zero = np.clip(np.rint(self.low - low / scale), self.low, self.high)
        return replace(self, scale=scale, zero_point=np.asarray(zero, NUMPY[self.dtype]))

    def within(self, low: float | None, high: float | None) -> Encoding:
        """This grid with the largest scale, no larger than now, that puts no point outside `low` to `high`.

        A clamp to that range before the quantizer then changes nothing, so a runtime can drop it. A grid that reaches
        more than a thousandth beyond a limit was not made for that clamp: it is not changed for it.
        """
        if self.scale is None or self.zero_point is None:
            return self
        zero, scale = self.zero_point.astype(np.float32), self.scale
        if high is not None:
            scale = _limited(scale, np.float32(self.high) - zero, np.float32(high))
        if low is not None:
            scale = _limited(scale, zero - np.float32(self.low), -np.float32(low))
        return replace(self, scale=scale)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """The integers that stand for `x`, in the encoding's dtype."""
        scale, zero = self.broadcast(x.ndim)
        with np.errstate(over="ignore"):
            q = np.rint(x.astype(np.float32) / scale) + zero.astype(np.float32)
        low, high = (np.float64(self.low), np.float64(self.high)) if self.dtype == "i32" else (self.low, self.high)
        integers: np.ndarray = np.clip(q.astype(np.float64), low, high).astype(NUMPY[self.dtype])
        return integers

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """The float32 values that the integers `q` stand for."""
        scale, zero = self.broadcast(q.ndim)
        steps = q.astype(np.int64) - zero.astype(np.int64)
        return np.asarray(steps.astype(np.float32) * scale, np.float32)

    def broadcast(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale (float32) and zero point, shaped to broadcast against a tensor of `rank` axes."""
        if self.scale is None or self.zero_point is None:
            raise ValueError("the encoding is not calibrated")
        if self.axis is None:
            return self.scale, self.zero_point
        shape = [1] * rank
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape)


def _limited(scale: np.ndarray, steps: np.ndarray, limit: np.float32) -> np.ndarray:
    """The largest scales, no larger than `scale`, at which `steps` steps do not pass `limit`."""
    over = steps * scale > limit
    if not np.any(over) or np.any(steps * scale > limit * np.float32(1.001)):
        return scale
    fits = np.nextafter((limit / np.maximum(steps, 1)).astype(np.float32), np.float32(np.inf))
    while np.any(past := steps * fits > limit):
        fits = np.where(past, np.nextafter(fits, np.float32(0)), fits)
    return np.asarray(np.where(over, np.minimum(scale, fits), scale), np.float32)


def _usable(scale: np.ndarray) -> np.ndarray:
    """`scale` in float32, with 1 where it would vanish."""
    rounded = np.asarray(scale, np.float32)
    return np.asarray(np.where(rounded < np.finfo(np.float32).tiny, np.float32(1), rounded))


@dataclass(frozen=True, eq=False)
class ProductEncoding(Encoding):
    """The grid of a bias that is added to an integer accumulator: 32 bits at the scale `input.scale * weight.scale`.

    The scale is computed from the two grids that the accumulator multiplies, never stored, so it can not drift from
    them: runtimes trust it without a check.
    """

    dtype: str = "i32"
    input: Encoding = None  # type: ignore[assignment]
    weight: Encoding = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.input is None or self.weight is None:
            raise TypeError("a product encoding has two factors")
        if self.input.scale is not None and self.weight.scale is not None:
            scale = np.asarray(self.input.scale * self.weight.scale, np.float32)
            object.__setattr__(self, "scale", scale)
            object.__setattr__(self, "zero_point", np.zeros(scale.shape, np.int32))
            object.__setattr__(self, "axis", 0 if scale.ndim else None)
