"""How far apart two results of one tensor are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qir.errors import Loc
from qir.graph import Node, Value


@dataclass(frozen=True)
class Deviation:
    """How far a result is from what it should be: the name of the tensor, the operator and line that compute it.

    `largest` is the largest absolute difference, infinite for another shape or for NaN in one of them alone.
    `signal_to_noise` is in decibels, None when all values are equal.
    """

    tensor: str
    op: str
    loc: Loc | None
    largest: float
    signal_to_noise: float | None

    @classmethod
    def of(cls, value: Value, exact: Any, other: Any) -> Deviation:
        """How far `other` is from `exact`, two results of `value`."""
        node: Node | None = value.node
        op, loc = ("", None) if node is None else (node.op, node.loc)
        return cls(value.hint, op, loc, largest_difference(exact, other), signal_to_noise(exact, other))


def largest_difference(exact: Any, other: Any) -> float:
    """The largest absolute difference, infinite when only one is NaN, or for other shapes, strings or sequences."""
    noise = _noise(exact, other)
    return float("inf") if noise is None else float(np.max(noise, initial=0))


def signal_to_noise(exact: Any, other: Any) -> float | None:
    """The power of `exact` over that of the difference, in decibels; None when they are equal.

    It is minus infinity where the difference is infinite.
    """
    noise = _noise(exact, other)
    if noise is not None and not np.any(noise):
        return None
    power = float("inf") if noise is None else float(np.sum(noise**2))
    if not np.isfinite(power):
        return float("-inf")
    signal = np.abs(_flat(exact))
    return float(10 * np.log10(max(float(np.sum(signal[np.isfinite(signal)] ** 2)), 1e-300) / power))


def lowest(ratios: Sequence[float | None]) -> float | None:
    """The lowest of signal-to-noise ratios; None when there is none, or nothing differs anywhere."""
    return min((ratio for ratio in ratios if ratio is not None), default=None)


def decibels(ratio: float | None) -> str:
    """A signal-to-noise ratio for a reader."""
    return "equal" if ratio is None else f"{ratio:.1f} dB"


def _noise(exact: Any, other: Any) -> np.ndarray | None:
    """The absolute difference of every element, NaN taken to equal NaN; None when they are not comparable."""
    if _shapes(exact) != _shapes(other):
        return None
    ours, theirs = _flat(exact), _flat(other)
    if ours.dtype.kind not in "fc" or theirs.dtype.kind not in "fc":
        return np.zeros(0) if np.array_equal(ours, theirs) else None
    if np.any(np.isnan(ours) != np.isnan(theirs)):
        return None
    with np.errstate(invalid="ignore"):
        return np.abs(np.where((ours == theirs) | np.isnan(ours), 0, ours - theirs))


def _shapes(result: Any) -> Any:
    """The shape of a tensor, those of a sequence of tensors."""
    return [_shapes(part) for part in result] if isinstance(result, list) else np.shape(result)


def _flat(result: Any) -> np.ndarray:
    """All elements in a row, numbers in double precision."""
    if isinstance(result, list):
        return np.concatenate([np.zeros(0), *map(_flat, result)])
    array = np.asarray(result).reshape(-1)
    if array.dtype.kind in "OSU":
        return array
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
