"""Observers: what is remembered of the values of a tensor while data streams by, in bounded memory.

The state of an observer depends on the multiset of the values that it saw alone: not on their order, nor on how they
were split into arrays, nor on how many observers saw parts of them and were merged.

A `Histogram` counts in bins whose width is a power of two and whose edges are multiples of it:

    bin k holds (k - 1) * 2^e < x <= k * 2^e        k = -1023 … 1024,   2^(e + 9) <= max |x| < 2^(e + 10)

When the range grows, e grows, and bins 2k - 1 and 2k become bin k: exactly the count that the wider bins would have had
from the start, as ceil(ceil(y) / 2) = ceil(y / 2). Zero is the right edge of bin 0: in a tensor without negative values
that bin holds the exact zeros alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from qir.encodings.encoding import Encoding

BINS = 2048
"""The bins of a histogram."""

ZERO_BIN = BINS // 2 - 1
"""The index of bin 0."""

NARROWEST, OCTAVES = -126, 10
"""The least exponent of a bin's width, whose inverse float32 still holds; powers of two between a bin and the range."""

CHUNK = 1 << 19
"""Bytes of indices that are counted at a time, to stay in the cache."""


class NonFiniteError(ValueError):
    """An observer saw NaN or an infinity; the text says which."""


class MinMax:
    """The lowest and the highest value, for each row of the encoding: one, or one for each channel or block.

    `low` and `high` are float32 vectors; None until something was seen.
    """

    low: np.ndarray | None = None
    high: np.ndarray | None = None
    shape: tuple[int, ...] = ()

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding

    def see(self, array: Any) -> None:
        """Take note of an array, in float32. Raises NonFiniteError, and then what was seen before stays."""
        if 0 in array.shape:
            return
        rows = self._rows(array)
        low, high = self._extremes(rows)
        _check_finite(low, high)
        self.shape = self.encoding.scale_shape(tuple(array.shape))
        self._widen(low, high)
        self._count(rows)

    def merge(self, other: MinMax) -> None:
        """Take note of all that another observer of the same tensor saw."""
        if other.low is not None and other.high is not None:
            self.shape = other.shape
            self._widen(other.low, other.high)

    def state(self) -> dict[str, np.ndarray]:
        """All that is remembered, as arrays; empty before anything was seen."""
        if self.low is None or self.high is None:
            return {}
        return {"low": self.low, "high": self.high, "shape": np.array(self.shape, np.int64)}

    @classmethod
    def from_state(cls, encoding: Encoding, state: Mapping[str, np.ndarray]) -> Self:
        """The observer with this state."""
        made = cls(encoding)
        made.load(state)
        return made

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Remember this, and nothing else."""
        if state:
            self.low, self.high = np.array(state["low"]), np.array(state["high"])
            self.shape = tuple(int(size) for size in state["shape"])

    def _count(self, rows: Any) -> None:
        """Take note of more than the extremes."""

    def _widen(self, low: np.ndarray, high: np.ndarray) -> None:
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def _rows(self, array: Any) -> Any:
        """The array in float32, as a matrix with a row for each range."""
        with np.errstate(over="ignore"):
            return self.encoding.rows(np.asarray(array, np.float32))

    def _extremes(self, rows: Any) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest value of each row; NaN where the row holds one."""
        return rows.min(1), rows.max(1)


class Histogram(MinMax):
    """The lowest and the highest value, and how many values lie in each bin, for each row of the encoding.

    `exponent` is an int32 vector and `counts` an int64 matrix of `BINS` columns; None until something was seen.
    """

    _exponent: np.ndarray | None = None
    _counts: np.ndarray | None = None

    @property
    def exponent(self) -> np.ndarray | None:
        """2^exponent is the width of the bins of each row."""
        self._settle()
        return self._exponent

    @property
    def counts(self) -> np.ndarray | None:
        """How many values lie in each bin of each row."""
        self._settle()
        return self._counts

    def merge(self, other: MinMax) -> None:
        """Take note of all that another histogram of the same tensor saw."""
        super().merge(other)
        if isinstance(other, Histogram) and other.counts is not None and other.exponent is not None:
            self._add(coarser(other.counts, self._current_exponent() - other.exponent))

    def state(self) -> dict[str, np.ndarray]:
        """All that is remembered, as arrays; empty before anything was seen."""
        if self.exponent is None or self.counts is None:
            return {}
        return super().state() | {"exponent": self.exponent, "counts": self.counts}

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Remember this, and nothing else."""
        super().load(state)
        if state:
            self._exponent, self._counts = np.array(state["exponent"]), np.array(state["counts"])

    def _settle(self) -> None:
        """Count what was seen and is not counted yet."""

    def _count(self, rows: Any) -> None:
        self._add(self._counted(rows, self._current_exponent()))

    def _current_exponent(self) -> np.ndarray:
        """The exponent for all that was seen, after the counts were brought to it."""
        assert self.low is not None
        assert self.high is not None
        exponent = exponents(self.low, self.high)
        if self._counts is not None and self._exponent is not None:
            self._counts = coarser(self._counts, exponent - self._exponent)
        self._exponent = exponent
        return exponent

    def _add(self, counts: np.ndarray) -> None:
        self._counts = counts if self._counts is None else self._counts + counts

    def _counted(self, rows: Any, exponent: np.ndarray) -> np.ndarray:
        """How many values of each row lie in each bin."""
        first = np.arange(len(rows))[:, None] * BINS + ZERO_BIN
        factor = factors(exponent)[:, None]
        counts = np.zeros(len(rows) * BINS, np.int64)
        step = max(1, CHUNK // (8 * len(rows)))
        for start in range(0, rows.shape[1], step):
            index = np.ceil(rows[:, start : start + step] * factor).astype(np.int64)
            counts += np.bincount((index + first).reshape(-1), minlength=counts.size)
        return counts.reshape(-1, BINS)


def exponents(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The exponent e of the bins for values between `low` and `high` (float32 vectors)."""
    largest = np.maximum(-low, high)
    exponent = np.where(largest > 0, np.frexp(largest)[1] - OCTAVES, NARROWEST)
    return np.asarray(np.maximum(exponent, NARROWEST), np.int32)


def factors(exponent: np.ndarray) -> np.ndarray:
    """2^-e, in a dtype in which its products with float32 values are exact.

    With wide bins a small value times 2^-e may be less than float32 holds; float64 holds it.
    """
    dtype = np.float32 if exponent.max() <= 0 else np.float64
    return np.asarray(np.ldexp(dtype(1), -exponent), dtype)


def coarser(counts: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """The counts in bins that are 2^steps as wide (`steps` has an element for each row)."""
    steps = np.minimum(steps, OCTAVES + 1)  # by then bins 0 and 1 hold everything, for good
    if not steps.any():
        return counts
    counts = counts.copy()
    while np.any(wider := steps > 0):
        pairs = counts[wider].reshape(-1, BINS // 2, 2).sum(2)
        counts[wider] = np.pad(pairs, ((0, 0), (BINS // 4, BINS // 4)))
        steps = steps - wider
    return counts


def _check_finite(low: np.ndarray, high: np.ndarray) -> None:
    if np.isnan(low).any() or np.isnan(high).any():
        raise NonFiniteError("NaN")
    if np.isinf(low).any() or np.isinf(high).any():
        raise NonFiniteError("infinite values")
