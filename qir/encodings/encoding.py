"""Encodings: the grid on which a tensor's values lie.

One arithmetic everywhere, that of ONNX's QuantizeLinear and DequantizeLinear, in float32 with a true division:

    q = saturate(round_half_even(x / scale) + zero_point)        x' = (q - zero_point) * scale
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod

import ml_dtypes
import numpy as np

from qir.errors import QirError
from qir.types import NUMPY, bit_width, integer_range, storage


@dataclass(frozen=True, eq=False)
class Encoding:
    """An affine grid of integers. Quantizers that must share a grid hold the same object, so identity is equality.

    `dtype` is `i` or `u` with 2 to 16 bits, or `i32`. A symmetric grid has its zero in the middle; `narrow` leaves out
    its lowest integer, so that -q exists for every q. An `unsigned` symmetric grid starts at zero instead when its
    range holds nothing negative: `with_range` chooses between `i8` and `u8`.

    `scale` and `zero_point` are None until calibrated. They have the shape `scale_shape`: rank 0; or one for each index
    of `axis`; or, with `block_axis`, one for each block of `block_size` along it (within each index of `axis`).
    """

    dtype: str
    symmetric: bool = False
    axis: int | None = None
    narrow: bool = False
    scale: np.ndarray | None = None
    zero_point: np.ndarray | None = None
    unsigned: bool = field(default=False, kw_only=True)
    block_axis: int | None = field(default=None, kw_only=True)
    block_size: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self._check_dtype()
        if self.unsigned and not self.symmetric:
            raise QirError("only a symmetric grid can be unsigned", help="an asymmetric u8 grid is so anyway")
        if (self.block_axis is None) != (self.block_size is None):
            raise QirError("blocks have both an axis and a size", help="give block_axis and block_size")
        if self.block_size is not None and (self.block_size < 1 or self.block_axis == self.axis):
            raise QirError("blocks have a positive size, and another axis than the channels", help="give axis=None")

    def _check_dtype(self) -> None:
        try:
            integer_range(self.dtype)
        except ValueError as error:
            raise QirError(str(error), help="an integer grid has 2 to 16 bits, as u8 or i4, or is i32") from None

    @property
    def calibrated(self) -> bool:
        """Whether the scale is known."""
        return self.scale is not None

    @property
    def bits(self) -> int:
        """The width of the integers."""
        return bit_width(self.dtype)

    @property
    def low(self) -> int:
        """The lowest integer of the grid."""
        starts_at_zero = self.unsigned and self.dtype.startswith("u")
        return integer_range(self.dtype)[0] + (self.narrow and not starts_at_zero)

    @property
    def high(self) -> int:
        """The highest integer of the grid."""
        return integer_range(self.dtype)[1]

    def scale_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the scale of a tensor of `shape`. Raises QirError when the blocks do not divide it."""
        if self.block_axis is None or self.block_size is None:
            return () if self.axis is None else (shape[self.axis],)
        if shape[self.block_axis] % self.block_size:
            raise QirError(f"blocks of {self.block_size} do not divide axis {self.block_axis} of {list(shape)}",
                           help=f"choose a block_size that divides {shape[self.block_axis]}")  # fmt: skip
        sizes = [size if axis == self.axis else 1 for axis, size in enumerate(shape)]
        sizes[self.block_axis] = shape[self.block_axis] // self.block_size
        return tuple(sizes)

    def rows(self, x: np.ndarray) -> np.ndarray:
        """`x` as a matrix with a row for each scale, in the order of `scale_shape`."""
        count = prod(self.scale_shape(x.shape))
        kept = sorted(axis for axis in (self.axis, self.block_axis) if axis is not None)
        if self.block_axis is not None and self.block_size is not None:
            split = (x.shape[self.block_axis] // self.block_size, self.block_size)
            kept = [axis + (axis > self.block_axis) for axis in kept]
            x = x.reshape(*x.shape[: self.block_axis], *split, *x.shape[self.block_axis + 1 :])
        return np.moveaxis(x, kept, range(len(kept))).reshape(count, -1)

    def ranges(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest value of `x` for each scale, as `with_range` takes them. `x` is not empty."""
        rows, shape = self.rows(x), self.scale_shape(x.shape)
        return rows.min(1).reshape(shape), rows.max(1).reshape(shape)

    def _spread(self, array: np.ndarray, rank: int) -> np.ndarray:
        """An array of `scale_shape`, shaped to broadcast against a tensor of `rank` axes."""
        if self.block_axis is not None and self.block_size is not None:
            return np.repeat(array, self.block_size, self.block_axis)
        if self.axis is None:
            return array
        return array.reshape([-1 if axis == self.axis else 1 for axis in range(rank)])

    def broadcast(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale (float32) and zero point, shaped to broadcast against a tensor of `rank` axes."""
        if self.scale is None or self.zero_point is None:
            raise ValueError("the encoding is not calibrated")
        return self._spread(self.scale, rank), self._spread(self.zero_point, rank)

    def with_range(self, low: np.ndarray, high: np.ndarray) -> Encoding:
        """This grid, scaled so that it covers `low` to `high` and zero (float arrays of shape `scale_shape`).

        The zero of the tensor is always a point of the grid. An empty range gets the scale 1. Sources of the formulas:
        ONNX QuantizeLinear; the asymmetric zero point is the integer nearest to where the range puts zero.
        """
        low, high = np.minimum(low, 0).astype(np.float64), np.maximum(high, 0).astype(np.float64)
        grid = self._signed_for(low)
        if self.symmetric:
            first, last = integer_range(grid.dtype)
            middle = 0 if self.unsigned else (first + last + 1) // 2
            scale = self._usable(np.maximum(high / (grid.high - middle), -low / max(middle - grid.low, 1)))
            zero = np.full(scale.shape, middle)
        else:
            scale = self._usable((high - low) / (self.high - self.low))
            zero = np.clip(np.rint(self.low - low / scale), self.low, self.high)
        return replace(grid, scale=scale, zero_point=np.asarray(zero, NUMPY[storage(grid.dtype)]))

    def _signed_for(self, low: np.ndarray) -> Encoding:
        """This grid; an unsigned symmetric one with the dtype that data from `low` on needs."""
        if not self.unsigned:
            return self
        return replace(self, dtype=f"{'i' if np.any(low < 0) else 'u'}{self.bits}", scale=None, zero_point=None)

    def _usable(self, scale: np.ndarray) -> np.ndarray:
        """The scale in float32 that stands for `scale`: 1 where it would vanish."""
        rounded = np.asarray(scale, np.float32)
        return np.asarray(np.where(rounded < np.finfo(np.float32).tiny, np.float32(1), rounded))

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
        """The points that stand for `x`, in the dtype `storage(dtype)`."""
        scale, zero = self.broadcast(x.ndim)
        with np.errstate(over="ignore"):
            q = np.rint(x.astype(np.float32) / scale) + zero.astype(np.float32)
        return np.asarray(np.clip(q.astype(np.float64), self.low, self.high), NUMPY[storage(self.dtype)])

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """The float32 values that the points `q` stand for."""
        scale, zero = self.broadcast(q.ndim)
        steps = q.astype(np.int64) - zero.astype(np.int64)
        return np.asarray(steps.astype(np.float32) * scale, np.float32)


def _limited(scale: np.ndarray, steps: np.ndarray, limit: np.float32) -> np.ndarray:
    """The largest scales, no larger than `scale`, at which `steps` steps do not pass `limit`."""
    over = steps * scale > limit
    if not np.any(over) or np.any(steps * scale > limit * np.float32(1.001)):
        return scale
    fits = np.nextafter((limit / np.maximum(steps, 1)).astype(np.float32), np.float32(np.inf))
    while np.any(past := steps * fits > limit):
        fits = np.where(past, np.nextafter(fits, np.float32(0)), fits)
    return np.asarray(np.where(over, np.minimum(scale, fits), scale), np.float32)


@dataclass(frozen=True, eq=False)
class LowPowerEncoding(Encoding):
    """A blockwise grid whose scales are small integers times one float for each channel (low-power blockwise, LPBQ).

    `scale` = `channel_scale` × `block_scale`, where `block_scale` has `scale_bits` bits: 1 … 2^scale_bits. The integers
    can so be decompressed to a per-channel grid of `bits + scale_bits` bits.
    """

    scale_bits: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.block_axis is None or not 1 <= self.scale_bits <= 16:
            raise QirError("a low-power grid has blocks, and scales of 1 to 16 bits", help="give block_axis")

    @property
    def channel_scale(self) -> np.ndarray | None:
        """The float factor of the scales, with one block along `block_axis`: the largest scale / 2^scale_bits."""
        if self.scale is None:
            return None
        return np.asarray(np.max(self.scale, self.block_axis, keepdims=True) / np.float32(2**self.scale_bits))

    @property
    def block_scale(self) -> np.ndarray | None:
        """The integer factor of the scales."""
        return None if self.scale is None else np.rint(self.scale / self.channel_scale).astype(np.int64)

    def within(self, low: float | None, high: float | None) -> Encoding:
        """This grid: its scales are not free."""
        return self

    def _usable(self, scale: np.ndarray) -> np.ndarray:
        largest, steps = np.max(scale, axis=self.block_axis, keepdims=True), 2**self.scale_bits
        channel = super()._usable(largest) / np.float32(steps)
        integers = np.clip(np.rint(np.where(largest > 0, scale, 1) / channel), 1, steps)
        return np.asarray(integers.astype(np.float32) * channel)


@dataclass(frozen=True, eq=False)
class FloatEncoding(Encoding):
    """The grid of a float format: `f16`, `bf16`, `f8e4m3` or `f8e5m2`; values round to the nearest, ties to even.

    A 16-bit format needs no scale and is always calibrated; what f16 can not hold is infinite. An 8-bit format divides
    by `scale` first and saturates. `zero_point` stays None. (The formats are ONNX's FLOAT16, BFLOAT16, FLOAT8E4M3FN and
    FLOAT8E5M2.)
    """

    symmetric: bool = True

    def _check_dtype(self) -> None:
        if self.dtype not in ("f16", "bf16", "f8e4m3", "f8e5m2"):
            raise QirError(f"{self.dtype!r} is no float grid", help="float grids are f16, bf16, f8e4m3 and f8e5m2")

    @property
    def calibrated(self) -> bool:
        """Whether the scale is known, or not needed."""
        return self.scale is not None or self.bits == 16

    @property
    def top(self) -> float:
        """The largest finite number of the format."""
        return float(ml_dtypes.finfo(NUMPY[storage(self.dtype)]).max)

    def with_range(self, low: np.ndarray, high: np.ndarray) -> Encoding:
        """This grid; an 8-bit one scaled so that its largest number is the largest magnitude from `low` to `high`."""
        if self.bits == 16:
            return self
        return replace(self, scale=self._usable(np.maximum(np.abs(low), np.abs(high)).astype(np.float64) / self.top))

    def broadcast(self, rank: int) -> tuple[np.ndarray, np.ndarray]:
        """Scale, and a zero."""
        if not self.calibrated:
            raise ValueError("the encoding is not calibrated")
        scale = np.ones((), np.float32) if self.scale is None else self._spread(self.scale, rank)
        return scale, np.zeros((), np.float32)

    def quantize(self, x: np.ndarray) -> np.ndarray:
        """The numbers of the format that stand for `x`."""
        with np.errstate(over="ignore"):
            scaled = x.astype(np.float32) / self.broadcast(x.ndim)[0]
            if self.bits == 8:
                scaled = np.clip(scaled, -self.top, self.top)
            return np.asarray(scaled, NUMPY[storage(self.dtype)])

    def dequantize(self, q: np.ndarray) -> np.ndarray:
        """The float32 values that the numbers `q` stand for."""
        return np.asarray(q.astype(np.float32) * self.broadcast(q.ndim)[0], np.float32)


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
        for factor in (self.input, self.weight):
            if isinstance(factor, FloatEncoding | ProductEncoding) or factor.block_axis is not None:
                raise QirError("a bias can only lie on the product of two integer grids without blocks",
                               help="leave the bias in float: remove its quantizer")  # fmt: skip
        if self.input.scale is not None and self.weight.scale is not None:
            scale = np.asarray(self.input.scale * self.weight.scale, np.float32)
            object.__setattr__(self, "scale", scale)
            object.__setattr__(self, "zero_point", np.zeros(scale.shape, np.int32))
            object.__setattr__(self, "axis", 0 if scale.ndim else None)
