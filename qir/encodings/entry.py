"""One tensor's entry in an encodings file, and the encoding that it makes.

The files count zero points from the lowest integer of the grid, whatever its sign: AIMET's `offset` is minus that
count, so `real = scale * (q + offset)` with q from 0. Older versions state neither the axis of the channels nor the
sign of the integers; those come from the graph that the file is for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding
from qir.errors import QirError
from qir.json_documents import refuse
from qir.types import NUMPY, integer_range, storage

Granularity = Literal["tensor", "channel", "block"]


@dataclass(frozen=True)
class Place:
    """What a graph knows of a tensor: the grid that its quantizer has, its shape, and whether it is a parameter."""

    encoding: Encoding
    shape: tuple[int, ...] | None = None
    parameter: bool = False


@dataclass(frozen=True)
class Entry:
    """What a file says of the tensor `name`, at the JSON path `at`.

    `dtype`, `symmetric`, `parameter` and the axes are None where the version does not state them. `zero` is counted
    from the lowest integer of all `bits`. `scale_bits` is stated for low-power grids, whose `scale` is already the
    product of its two factors.
    """

    name: str
    at: str
    bits: int
    granularity: Granularity = "tensor"
    floating: bool = False
    dtype: str | None = None
    parameter: bool | None = None
    symmetric: bool | None = None
    scale: np.ndarray | None = None
    zero: np.ndarray | None = None
    axis: int | None = None
    block_axis: int | None = None
    block_size: int | None = None
    scale_bits: int | None = None
    channel_scale: np.ndarray | None = None

    def encoding(self, place: Place | None = None) -> Encoding:
        """The encoding, for the tensor at `place`. Raises QirError when the entry contradicts itself or the tensor."""
        try:
            made = self._float_grid(place) if self.floating else self._integer_grid(place)
        except QirError as error:
            if error.stage is not None:
                raise
            refuse(self.at, error.message, error.help)
        if not made.calibrated:
            refuse(self.at, f"{self.name} has no scale", "give scale and offset, or min and max")
        return made

    # -- the grid ----------------------------------------------------------------------------------------------------

    def _float_grid(self, place: Place | None) -> Encoding:
        now = place.encoding if place is not None else None
        same = isinstance(now, FloatEncoding) and now.bits == self.bits
        dtype = self.dtype or (now.dtype if same and now is not None else {16: "f16"}.get(self.bits))
        if dtype is None:
            refuse(self.at, f"a float grid of {self.bits} bits", "float grids are f16, bf16, f8e4m3 and f8e5m2")
        if self.scale is None or self.bits == 16:
            return FloatEncoding(dtype)
        return self._laid_out(FloatEncoding(dtype), self.scale, None, place)

    def _integer_grid(self, place: Place | None) -> Encoding:
        if self.scale is None or self.zero is None:
            refuse(self.at, f"{self.name} has no scale", "give scale and offset, or min and max")
        if not 2 <= self.bits <= 16 and self.bits != 32:
            refuse(self.at, f"integers of {self.bits} bits", "grids have 2 to 16 bits, or 32")
        if np.any(self.zero < 0) or np.any(self.zero >= 2**self.bits):
            refuse(self.at, f"a zero point lies outside of {self.bits} bits")
        now = place.encoding if place is not None and not isinstance(place.encoding, FloatEncoding) else None
        symmetric = self._is_symmetric(now, self.zero)
        middle, zero = 2 ** (self.bits - 1), self.zero
        narrow = now is not None and now.narrow and now.symmetric == symmetric
        unsigned = False
        if symmetric:
            if np.unique(zero).size != 1 or int(zero.flat[0]) not in (0, middle - 1, middle):
                refuse(self.at, f"a symmetric grid of {self.bits} bits has its zero 0, {middle - 1} or {middle} steps "
                                "above its lowest integer")  # fmt: skip
            unsigned = not np.any(zero) or (now is not None and now.unsigned)
            if self.dtype is None and self.scale_bits is None:
                narrow = bool(np.all(zero == middle - 1)) or (narrow and not np.any(zero))
            zero = zero + np.int64(np.all(zero == middle - 1))
        dtype = self.dtype or self._dtype(symmetric, zero, now)
        grid = Encoding(dtype, symmetric, narrow=narrow, unsigned=unsigned)
        low = integer_range(dtype)[0]
        return self._laid_out(grid, self.scale, (zero + low).astype(NUMPY[storage(dtype)]), place)

    def _is_symmetric(self, now: Encoding | None, zero: np.ndarray) -> bool:
        """Whether the grid is symmetric: as the file says, or as the graph says where that can be."""
        if self.symmetric is not None:
            return self.symmetric
        signed = (self.dtype or "").startswith("i")
        if now is not None and not now.symmetric:
            return False
        centred = bool(np.all(zero == 2 ** (self.bits - 1)))
        return (centred and (signed or now is not None)) or (now is not None and now.unsigned and not np.any(zero))

    def _dtype(self, symmetric: bool, zero: np.ndarray, now: Encoding | None) -> str:
        if self.bits == 32:
            return "i32"
        if symmetric and not np.any(zero):
            return f"u{self.bits}"
        if now is not None and not now.unsigned:
            return f"{now.dtype[0]}{self.bits}"
        return f"{'i' if symmetric else 'u'}{self.bits}"

    # -- axes --------------------------------------------------------------------------------------------------------

    def _laid_out(self, grid: Encoding, scale: np.ndarray, zero: np.ndarray | None, place: Place | None) -> Encoding:
        """`grid` with the scales in the shape that its granularity has for the tensor."""
        if np.any(scale <= 0):
            refuse(self.at, "a scale is not positive")
        now, shape = (place.encoding, place.shape) if place is not None else (None, None)
        if self.granularity == "tensor":
            axes: tuple[int | None, int | None] = None, None
            if now is not None and now.axis is not None and now.block_axis is None and shape and shape[now.axis] == 1:
                axes = now.axis, None
        elif self.granularity == "channel":
            axes = self._axis(self.axis, now.axis if now is not None else None, 0, shape), None
        else:
            axes = self._block_axes(scale, now, shape)
        made: Encoding = replace(grid, axis=axes[0])
        if axes[1] is not None:
            made = replace(made, block_axis=axes[1], block_size=self.block_size)
            if self.scale_bits is not None:
                made = LowPowerEncoding(made.dtype, made.symmetric, made.axis, made.narrow, unsigned=made.unsigned,
                                        block_axis=axes[1], block_size=self.block_size,
                                        scale_bits=self.scale_bits)  # fmt: skip
        wanted = self._scale_shape(made, scale, shape)
        if self.channel_scale is not None:
            scale = self._times_channel(scale.reshape(wanted), made)
        scale = np.array(scale.reshape(wanted), np.float32)
        if zero is None:
            return replace(made, scale=scale)
        if zero.size not in (1, scale.size):
            refuse(self.at, f"{self.name} has {scale.size} scales and {zero.size} zero points")
        zero = zero.reshape(()) if zero.size == 1 else zero.reshape(wanted)
        return replace(made, scale=scale, zero_point=np.array(np.broadcast_to(zero, wanted)))

    def _axis(self, stated: int | None, known: int | None, default: int, shape: tuple[int, ...] | None) -> int:
        axis = stated if stated is not None else known if known is not None else default
        rank = len(shape) if shape is not None else 8
        if not -rank <= axis < rank or (axis < 0 and shape is None):
            refuse(self.at, f"{self.name} has no axis {axis}")
        return axis % rank

    def _block_axes(
        self, scale: np.ndarray, now: Encoding | None, shape: tuple[int, ...] | None
    ) -> tuple[int | None, int]:
        """The axis of the channels, and that of the blocks."""
        if shape is None and scale.ndim < 2:
            refuse(self.at, f"nothing says how the blocks of {self.name} lie", "read the file for a graph")
        blocked = now is not None and now.block_axis is not None
        ranked = shape if shape is not None else scale.shape
        channel = now.axis if now is not None else None
        if blocked and now is not None:
            block = self._axis(self.block_axis, now.block_axis, 1, ranked)
        else:
            block = self._axis(self.block_axis, None, 0 if channel == 1 else 1, ranked)
        if self.axis is not None:
            return self._axis(self.axis, None, 0, ranked), block
        if blocked:
            return channel, block
        others = [axis for axis, size in enumerate(scale.shape if scale.ndim == len(ranked) else ranked)
                  if axis != block and size > 1]  # fmt: skip
        if channel is None or channel == block:
            channel = others[0] if others else None
        return channel, block

    def _scale_shape(self, made: Encoding, scale: np.ndarray, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        """The shape that the scales have; refused when there are more or fewer of them."""
        if shape is None:
            wanted = scale.shape if made.block_axis is not None else (scale.size,) if made.axis is not None else ()
        else:
            wanted = made.scale_shape(shape)
        if scale.size != prod(wanted):
            what = f"axis {made.axis} of {list(shape)}" if shape is not None else "one tensor"
            refuse(self.at, f"{self.name} has {scale.size} scales and should have {prod(wanted)}, for {what}",
                   "the file belongs to another model")  # fmt: skip
        return wanted

    def _times_channel(self, blocks: np.ndarray, made: Encoding) -> np.ndarray:
        """The integer scales of the blocks times the float scales of the channels."""
        assert self.channel_scale is not None
        count = 1 if made.axis is None else blocks.shape[made.axis]
        if self.channel_scale.size != count or np.any(self.channel_scale <= 0):
            refuse(self.at, f"{self.name} needs {count} positive channel scales, and has {self.channel_scale.size}")
        sizes = [-1 if axis == made.axis else 1 for axis in range(blocks.ndim)]
        return np.asarray(blocks.astype(np.float32) * self.channel_scale.reshape(sizes), np.float32)


def zero_steps(encoding: Encoding) -> np.ndarray:
    """The zero points counted from the lowest integer, as AIMET's offset counts them; for symmetric grids that is the
    lowest that they use.
    """
    assert encoding.zero_point is not None
    low = encoding.low if encoding.symmetric else integer_range(encoding.dtype)[0]
    return np.asarray(encoding.zero_point.astype(np.int64) - low)


def low_power_factors(encoding: LowPowerEncoding, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Integer scales of the blocks and float scales of the channels whose float32 products are exactly the scales.

    The channel scales keep one block along the axis of the blocks. Raises QirError when there are none such.
    """
    scale = encoding.scale
    assert scale is not None
    largest = np.max(scale, axis=encoding.block_axis, keepdims=True)
    found = np.zeros_like(largest)
    integers = np.zeros(scale.shape, np.int64)
    for steps in range(2**encoding.scale_bits, 0, -1):
        guess = np.asarray(largest / np.float32(steps))
        for candidate in (guess, np.nextafter(guess, np.float32(0)), np.nextafter(guess, np.float32(np.inf))):
            factors = np.rint(scale / candidate)
            exact = np.all(factors.astype(np.float32) * candidate == scale, axis=encoding.block_axis, keepdims=True)
            new = exact & (found == 0) & np.all(factors >= 1, axis=encoding.block_axis, keepdims=True)
            found, integers = np.where(new, candidate, found), np.where(new, factors.astype(np.int64), integers)
        if np.all(found > 0):
            return integers, found
    raise QirError(f"the scales of {name} are no integers of {encoding.scale_bits} bits times one for each channel",
                   stage="encodings", help="calibrate the low-power grid again")  # fmt: skip
