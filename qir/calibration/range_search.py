"""Calibration methods: which range a grid should cover, given what an observer saw of its tensor.

All searches are deterministic functions of the observer's state, and all find one range for each row of the state at
the same time.

`min-max` covers all that was seen. `percentile` cuts both tails at interpolated quantiles. `sqnr`, `mse` and `entropy`
search: ends of a range are tried at multiples of 1/32 of the power of two above the largest magnitude, of 1/128 where
one of them is zero or the other's negative; and the observed range, and the best of the others cut to it. The first of
the best wins, the observed range before all others, and none reaches beyond the largest magnitude that was seen.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Literal, get_args

import numpy as np

from qir.calibration.observers import BINS, ZERO_BIN, Histogram, MinMax
from qir.encodings.encoding import Encoding, FloatEncoding
from qir.errors import QirError

MethodName = Literal["min-max", "sqnr", "percentile", "mse", "entropy"]
Range = tuple[np.ndarray, np.ndarray]

CLIPPING_PENALTY = 3.0
"""How much worse than a rounding error a clipping error is for `sqnr`. Source: AIMET, TfEnhancedEncodingAnalyzer."""

TOP = BINS // 2
"""The power of two above the largest magnitude, in bins; all searches reckon in bins."""

FINE, COARSE = 128, 32
ROWS = 1024
"""Rows of weights that are observed at a time, so that histograms stay small."""


@dataclass(frozen=True)
class Method:
    """A calibration method by its name. `percentile` is how much each tail keeps, in percent; 100 is all of it.

    Raises QirError for a name that is none and a percentile outside 50 to 100.
    """

    name: str = "min-max"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.name not in get_args(MethodName):
            raise QirError(f"there is no calibration method {self.name!r}",
                           help=f"methods are {', '.join(get_args(MethodName))}")  # fmt: skip
        if not 50 <= self.percentile <= 100:
            raise QirError(f"{self.percentile} is no percentile to cut at", help="give one from 50 to 100, as 99.99")

    @property
    def needs_counts(self) -> bool:
        """Whether the method reads a `Histogram`; otherwise a `MinMax` is enough."""
        return self.name != "min-max"

    @property
    def for_weights(self) -> Method:
        """The method for weights: every one of them is known, so there is no tail of outliers to estimate."""
        return self if self.name in ("sqnr", "mse") else Method()

    def range(self, seen: MinMax) -> Range:
        """The range to cover, as float64 arrays that `seen.encoding.with_range` takes. `seen` has seen something."""
        return self.ranges([seen])[0]

    def ranges(self, seen: Iterable[MinMax]) -> list[Range]:
        """The range to cover for each observer; those on like grids are searched together, which is much faster.

        Observers are taken one by one, and let go once they are searched, so that few of many rows are held at a time.
        """
        found: dict[int, Range] = {}
        waiting, rows = defaultdict[object, dict[int, MinMax]](dict), Counter[object]()
        for index, each in enumerate(seen):
            waiting[space := self._space(each)][index] = each
            rows[space] += prod(each.shape)
            if rows[space] >= ROWS:
                found |= self._search(waiting.pop(space))
                del rows[space]
        for alike in waiting.values():
            found |= self._search(alike)
        return [found[index] for index in sorted(found)]

    def _space(self, seen: MinMax) -> object:
        """What the search for a range depends on beside the histogram; None where there is nothing to search."""
        if self.name not in SEARCHES or not isinstance(seen, Histogram) or isinstance(seen.encoding, FloatEncoding):
            return None
        grid = seen.encoding
        assert seen.low is not None
        assert seen.high is not None
        return grid.dtype, grid.symmetric, grid.narrow, grid.unsigned, _signs(grid, seen.low, seen.high)

    def _search(self, alike: Mapping[int, MinMax]) -> dict[int, Range]:
        """The ranges for observers of one space, by the same keys."""
        states = [each.state() for each in alike.values()]
        low, high = (np.concatenate([state[end] for state in states]).astype(np.float64) for end in ("low", "high"))
        first = next(iter(alike.values()))
        if self._space(first) is not None:
            joined = {name: np.concatenate([state[name] for state in states]) for name in states[0]}
            histogram = Histogram.from_state(_plain(first.encoding), joined)
            low, high = SEARCHES[self.name](histogram, low, high, self.percentile)
        parts = np.cumsum([len(state["low"]) for state in states])[:-1]
        split = zip(alike.items(), np.split(low, parts), np.split(high, parts), strict=True)
        return {index: (low.reshape(each.shape), high.reshape(each.shape)) for (index, each), low, high in split}

    def observers(self, weights: Sequence[np.ndarray], encoding: Encoding) -> Iterator[MinMax]:
        """Observers of weights of one shape, one after another, each of up to ROWS rows. Raises NonFiniteError."""
        rows = np.concatenate([encoding.rows(array) for array in weights], 1)
        by_row = replace(_plain(encoding), axis=0)
        if encoding.unsigned and rows.min(initial=0) < 0:  # in any row, searched together or not
            by_row = replace(by_row, dtype=f"i{encoding.bits}", unsigned=False)
        kind = Histogram if self.needs_counts and not isinstance(encoding, FloatEncoding) else MinMax
        for start in range(0, len(rows), ROWS):
            seen = kind(by_row)
            seen.see(rows[start : start + ROWS])
            yield seen


def _plain(encoding: Encoding) -> Encoding:
    """The grid of `encoding`, without a scale, channels or blocks."""
    if isinstance(encoding, FloatEncoding):
        return Encoding("i8")
    return Encoding(encoding.dtype, encoding.symmetric, narrow=encoding.narrow, unsigned=encoding.unsigned)


# -- percentile ------------------------------------------------------------------------------------------------------


def percentile(seen: Histogram, low: np.ndarray, high: np.ndarray, percent: float) -> Range:
    """The interpolated quantiles of `100 - percent` and `percent` percent, taking values as even inside a bin."""
    counts, width = _counts(seen), _width(seen)
    total = np.cumsum(counts, 1)
    share = percent / 100 * total[:, -1]
    first = np.argmax(total > (total[:, -1] - share)[:, None], 1)
    last = np.argmax(total >= share[:, None], 1)
    ends = []
    for index, rank in ((first, total[:, -1] - share), (last, share)):
        each = np.arange(len(index))
        left = np.maximum((index - ZERO_BIN - 1) * width, low)
        right = np.minimum((index - ZERO_BIN) * width, high)
        inside = 1 - (total[each, index] - rank) / counts[each, index]
        ends.append(left + np.clip(inside, 0, 1) * (right - left))
    return ends[0], ends[1]


# -- sqnr and mse ----------------------------------------------------------------------------------------------------


def sqnr(seen: Histogram, low: np.ndarray, high: np.ndarray, percent: float) -> Range:
    """The range with the least squared error, where clipping errors count three times (AIMET's tf_enhanced)."""
    return _least_noise(seen, low, high, CLIPPING_PENALTY)


def mse(seen: Histogram, low: np.ndarray, high: np.ndarray, percent: float) -> Range:
    """The range with the least squared error."""
    return _least_noise(seen, low, high, 1.0)


def _least_noise(seen: Histogram, low: np.ndarray, high: np.ndarray, penalty: float) -> Range:
    grid, width = _plain(seen.encoding), _width(seen)
    counts = _counts(seen).astype(np.float64)
    counts[low >= 0, ZERO_BIN] = 0  # these are zeros, which are free on every grid
    signs = _signs(grid, low, high)
    lows, highs = candidates(grid.symmetric, *signs)
    costs = counts @ _candidate_noise(grid.dtype, grid.symmetric, grid.narrow, grid.unsigned, *signs, penalty)
    largest = np.maximum(-low, high)
    costs[np.maximum(-lows, highs) * width[:, None] > largest[:, None]] = np.inf
    best = np.argmin(costs, 1)
    tried = [(low, high), (lows[best] * width, highs[best] * width)]
    noise = [_noise_of_rows(counts, grid, tried[0], width, penalty), costs[np.arange(len(best)), best]]
    if not grid.symmetric:  # the ends of a symmetric grid are bound to each other
        tried.append((np.maximum(tried[1][0], low), np.minimum(tried[1][1], high)))
        noise.append(_noise_of_rows(counts, grid, tried[2], width, penalty))
    choice = np.argmin(noise, axis=0)
    return np.choose(choice, [ends[0] for ends in tried]), np.choose(choice, [ends[1] for ends in tried])


def _signs(grid: Encoding, low: np.ndarray, high: np.ndarray) -> tuple[bool, bool]:
    """Whether ranges with negative and with positive ends are tried; both are where the ends are not bound."""
    return (bool(np.any(low < 0)), bool(np.any(high > 0))) if grid.symmetric else (True, True)


def candidates(symmetric: bool, negative: bool, positive: bool) -> Range:
    """The ranges that are tried, in bins. Those for symmetric grids depend on which signs there are."""
    fine, coarse = (np.arange(1, count + 1) * (TOP / count) for count in (FINE, COARSE))
    if symmetric:
        return -fine * (negative or not positive), fine * (positive or not negative)
    low, high = (ends.reshape(-1) for ends in np.meshgrid(-coarse, coarse, indexing="ij"))
    return np.concatenate([0 * fine, -fine, low]), np.concatenate([fine, 0 * fine, high])


@lru_cache(16)
def _candidate_noise(
    dtype: str, symmetric: bool, narrow: bool, unsigned: bool, negative: bool, positive: bool, penalty: float
) -> np.ndarray:
    """The noise of one value in each bin (rows) on the grid of each candidate (columns)."""
    grid = Encoding(dtype, symmetric, narrow=narrow, unsigned=unsigned)
    lows, highs = candidates(symmetric, negative, positive)
    parts = range(0, len(lows), 64)
    return np.hstack([noise_in_bins(grid.with_range(lows[i : i + 64], highs[i : i + 64]), penalty) for i in parts])


def _noise_of_rows(counts: np.ndarray, grid: Encoding, ends: Range, width: np.ndarray, penalty: float) -> np.ndarray:
    """The noise of each row of counts on its own grid."""
    fitted = grid.with_range(*(end / width for end in ends))
    assert fitted.scale is not None
    assert fitted.zero_point is not None
    costs = np.empty(len(counts))
    for i in range(0, len(counts), 64):
        part = slice(i, i + 64)
        rows = replace(fitted, scale=fitted.scale[part], zero_point=fitted.zero_point[part])
        costs[part] = np.einsum("rb,br->r", counts[part], noise_in_bins(rows, penalty))
    return costs


def noise_in_bins(grid: Encoding, penalty: float) -> np.ndarray:
    """The expected squared error of a value that lies anywhere in a bin, for each bin and each scale of `grid`.

    In steps of the scale, with r the nearest point of the grid and u clipped to its ends as c, an antiderivative of the
    squared error (u - r)^2 is r / 12 + (u - r)^3 / 3, and (u - c)^3 / 3 that of its clipped part, which is weighted by
    `penalty`. Scales are in bins.
    """
    assert grid.scale is not None
    assert grid.zero_point is not None
    zero = grid.zero_point.astype(np.float64)
    scale, first, last = grid.scale.astype(np.float64), grid.low - zero, grid.high - zero
    u = np.arange(-TOP, TOP + 1)[:, None] / scale
    nearest = np.clip(np.rint(u), first, last)
    total = nearest / 12 + _cube(u - nearest) / 3
    if penalty != 1:
        total += (penalty - 1) / 3 * _cube(u - np.clip(u, first, last))
    return np.asarray(np.diff(total, axis=0) * _cube(scale))


def _cube(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * x * x)  # several times as fast as x ** 3


# -- entropy ---------------------------------------------------------------------------------------------------------


def entropy(seen: Histogram, low: np.ndarray, high: np.ndarray, percent: float) -> Range:
    """The range whose quantized distribution diverges least from the observed one (Kullback-Leibler).

    As TensorRT does: magnitudes are cut at a threshold, what lies beyond is moved into the last bin, and each level of
    the grid spreads its mass evenly over the bins that it holds and that are not empty. The first bin, which holds the
    zeros, takes the count of its neighbour. Half of the levels are for each sign, all of them if there is one sign.
    Source: S. Migacz, 8-bit inference with TensorRT, 2017.
    """
    counts, width = _counts(seen).astype(np.float64), _width(seen)
    magnitudes = counts[:, TOP:] + counts[:, ZERO_BIN::-1]
    magnitudes[:, 0] = magnitudes[:, 1]
    points = seen.encoding.high - seen.encoding.low + 1
    levels = np.where((low < 0) & (high > 0), (points + 1) // 2, points)
    best, threshold = np.full(len(counts), np.inf), np.full(len(counts), np.inf)
    for bins in range(TOP, 0, -TOP // FINE):
        found = divergence(magnitudes, bins, levels)
        better = (found < best) & (bins * width < np.maximum(-low, high) + width * (TOP // FINE))
        best, threshold = np.where(better, found, best), np.where(better, bins * width, threshold)
    # Where all values lie beyond the threshold, the range ends at the nearest of them.
    return np.minimum(np.maximum(low, -threshold), high), np.maximum(np.minimum(high, threshold), low)


def divergence(magnitudes: np.ndarray, bins: int, levels: np.ndarray) -> np.ndarray:
    """The divergence of each row of `magnitudes` from what is left of it when it is cut after `bins` bins."""
    kept = magnitudes[:, :bins]
    level = np.arange(bins) * np.minimum(levels, bins)[:, None] // bins + np.arange(len(kept))[:, None] * bins
    level = level.reshape(-1)
    mass = np.bincount(level, kept.reshape(-1), minlength=kept.size)
    filled = np.bincount(level, kept.reshape(-1) > 0, minlength=kept.size)
    spread = (mass / np.maximum(filled, 1))[level].reshape(kept.shape) * (kept > 0)
    observed = kept.copy()
    observed[:, -1] += magnitudes[:, bins:].sum(1)
    p = observed / np.maximum(observed.sum(1, keepdims=True), 1)
    q = np.maximum(spread / np.maximum(spread.sum(1, keepdims=True), 1), 1e-4 / bins)
    return np.asarray((p * np.log(np.where(p > 0, p, 1) / q)).sum(1))


def _counts(seen: Histogram) -> np.ndarray:
    assert seen.counts is not None
    return seen.counts


def _width(seen: Histogram) -> np.ndarray:
    """The width of the bins of each row."""
    assert seen.exponent is not None
    return np.asarray(np.ldexp(1.0, seen.exponent))


SEARCHES: Mapping[str, Callable[[Histogram, np.ndarray, np.ndarray, float], Range]] = {
    "percentile": percentile,
    "sqnr": sqnr,
    "mse": mse,
    "entropy": entropy,
}
