"""ONNX's Resize, as one matrix for each axis. Source of the formulas: ONNX Resize."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qir.backends.torch_onnx_emissions import computes, listed

ROUNDED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5), "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor, "ceil": np.ceil,
}  # fmt: skip


@dataclass(frozen=True)
class Axis:
    """An axis that is resized from `length` to `wanted` elements; `region` is what of it is read, from 0 to 1."""

    length: int
    wanted: int
    scale: float
    region: tuple[float, float]

    def coordinates(self, mode: str) -> np.ndarray:
        """Where in the axis each element of the result lies."""
        at, scale, resized = np.arange(self.wanted, dtype=np.float64), self.scale, self.scale * self.length
        match mode:
            case "asymmetric":
                return at / scale
            case "align_corners":
                return at * (self.length - 1) / (resized - 1) if resized != 1 else np.zeros(self.wanted)
            case "tf_crop_and_resize":
                start, end = self.region
                if resized == 1:
                    return np.full(self.wanted, (self.length - 1) * (start + end) / 2)
                return start * (self.length - 1) + at * (end - start) * (self.length - 1) / (resized - 1)
            case "pytorch_half_pixel" if resized == 1:
                return np.full(self.wanted, -0.5)
            case "half_pixel_symmetric":
                offset = self.length / 2 * (1 - self.wanted / resized)
                return offset + (at + 0.5) / scale - 0.5
        return (at + 0.5) / scale - 0.5

    def matrix(self, mode: str, coordinates: str, cubic: float, exclude: bool, antialias: bool) -> np.ndarray:
        """How much each element of the axis counts for each of the result."""
        places = self.coordinates(coordinates)
        shrunk = min(self.scale, 1.0) if antialias else 1.0
        reach = 1 if mode == "linear" else 2
        first = math.floor(-reach / shrunk) + 1
        offsets = np.arange(first, 2 - first)
        base = np.floor(places)
        distance = np.abs((base[:, None] + offsets) - places[:, None]) * shrunk
        weights = np.maximum(1 - distance, 0) if mode == "linear" else _cubic(distance, cubic)
        taps = base[:, None] + offsets
        if exclude:
            weights = np.where((taps < 0) | (taps >= self.length), 0, weights)
        if exclude or antialias:
            weights = weights / weights.sum(1, keepdims=True)
        result = np.zeros((self.wanted, self.length))
        rows = np.broadcast_to(np.arange(self.wanted)[:, None], taps.shape)
        np.add.at(result, (rows, np.clip(taps, 0, self.length - 1).astype(np.int64)), weights)
        return result


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return np.where(distance <= 1, near, np.where(distance < 2, far, 0))


@computes("Resize")
def resize(x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None, *,
           antialias: int, axes: tuple[int, ...] | None, coordinate_transformation_mode: str, cubic_coeff_a: float,
           exclude_outside: int, extrapolation_value: float, keep_aspect_ratio_policy: str, mode: str,
           nearest_mode: str) -> Tensor:  # fmt: skip
    """`x`, larger or smaller along some of its axes."""
    along = [axis % x.ndim for axis in axes or range(x.ndim)]
    regions = listed(roi) or [0.0] * len(along) + [1.0] * len(along)
    lengths = [x.shape[axis] for axis in along]
    for number, (factor, wanted) in enumerate(_targets(lengths, scales, sizes, keep_aspect_ratio_policy)):
        whole = Axis(lengths[number], wanted, factor, (regions[number], regions[number + len(along)]))
        if wanted == lengths[number] and factor == 1 and coordinate_transformation_mode != "tf_crop_and_resize":
            continue
        if mode == "nearest":
            places = ROUNDED[nearest_mode](whole.coordinates(coordinate_transformation_mode))
            chosen = torch.from_numpy(np.clip(places, 0, whole.length - 1).astype(np.int64))
            x = x.index_select(along[number], chosen)
        else:
            matrix = whole.matrix(
                mode, coordinate_transformation_mode, cubic_coeff_a, bool(exclude_outside), bool(antialias)
            )
            x = _along(x, along[number], torch.from_numpy(matrix))
        if coordinate_transformation_mode == "tf_crop_and_resize":
            x = _extrapolated(x, along[number], whole, extrapolation_value)
    return x


def _targets(lengths: list[int], scales: Tensor | None, sizes: Tensor | None, policy: str) -> list[tuple[float, int]]:
    """The factor and the new length of each axis."""
    if sizes is None or not sizes.numel():
        factors = listed(scales) or []
        return [(factor, math.floor(length * factor)) for length, factor in zip(lengths, factors, strict=True)]
    factors = [wanted / length for length, wanted in zip(lengths, sizes.tolist(), strict=True)]
    if policy == "stretch":
        return list(zip(factors, sizes.tolist(), strict=True))
    one = min(factors) if policy == "not_larger" else max(factors)
    return [(one, math.floor(length * one + 0.5)) for length in lengths]


def _along(x: Tensor, axis: int, matrix: Tensor) -> Tensor:
    wide = x if x.is_floating_point() else x.float()
    mixed: Tensor = torch.tensordot(matrix.to(wide.dtype), wide, ([1], [axis])).movedim(0, axis)
    return mixed if x.is_floating_point() else mixed.round().to(x.dtype)


def _extrapolated(x: Tensor, axis: int, whole: Axis, value: float) -> Tensor:
    places = torch.from_numpy(whole.coordinates("tf_crop_and_resize"))
    outside = (places < 0) | (places > whole.length - 1)
    return torch.where(
        outside.reshape([-1 if a == axis else 1 for a in range(x.ndim)]), torch.tensor(value, dtype=x.dtype), x
    )
