"""What quantizers of a module do to their tensors: ranges, histograms, and the noise of a grid beside the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qir.analysis.results import Bins, decibels, without_luck
from qir.backends.torch_observers import TorchHistogram
from qir.backends.torch_quantizers import Quantizer
from qir.calibration.calibration import Calibration
from qir.calibration.observers import ZERO_BIN, Histogram, NonFiniteError
from qir.encodings.encoding import Encoding, FloatEncoding, ProductEncoding
from qir.errors import QirError

BARS = 96
"""The most bins of a histogram that is shown."""

BEST = Calibration("mse")


@dataclass
class Power:
    """The power of a signal and of the noise in it, summed over arrays."""

    signal: float = 0.0
    noise: float = 0.0

    def add(self, exact: Tensor, rounded: Tensor) -> None:
        """Take note of what became of a tensor of floats. Values that are equal, infinite ones too, hold no noise."""
        if not exact.is_floating_point():
            return
        apart = torch.where(exact == rounded, 0, rounded.double() - exact.double())
        finite = exact.double().nan_to_num(0.0, 0.0, 0.0)
        self.signal += float(finite.square().sum())
        self.noise += float(apart.square().sum())

    @property
    def sqnr(self) -> float | None:
        """The ratio in decibels."""
        return decibels(self.signal, self.noise)


class TensorRanges:
    """What one grid does to the tensors that it rounds. `look` is shown all of them, then `measure` all again.

    Where the grid is `free`, it is compared with the best one. `weights` are all that it rounds, if it rounds no more.
    """

    def __init__(self, name: str, quantizer: Quantizer, free: bool, weights: Sequence[Tensor] = ()) -> None:
        self.name, self.weights = name, weights
        self.encoding, self.grid = quantizer.encoding, quantizer.grid
        self.whole = TorchHistogram(Encoding("u8"))
        self.kind = replace(self.encoding, scale=None, zero_point=None) if free else None
        self.rows = None if self.kind is None or weights else TorchHistogram(self.kind)
        self.best: Quantizer | None = None
        self.now, self.fitted = Power(), Power()
        self.beyond = self.values = 0

    def look(self, x: Tensor) -> None:
        """Take note of the values of a tensor. Raises QirError for NaN and infinities."""
        try:
            self.whole.see(x)
            if self.rows is not None:
                self.rows.see(x)
        except NonFiniteError as error:
            raise QirError(f"what {self.name} rounds holds {error}", stage="analyze",
                           help="look at the data, or at the operator before it") from None  # fmt: skip

    def fit(self) -> None:
        """Find the best grid for all that `look` was shown."""
        if self.rows is not None and self.rows.low is not None:
            self.best = Quantizer(BEST.fit(self.rows))
        elif self.kind is not None and self.weights:
            arrays = [weight.detach().float().cpu().numpy() for weight in self.weights]
            self.best = Quantizer(BEST.fit_weights(self.kind, arrays))

    def measure(self, x: Tensor) -> None:
        """Take note of the noise that the grid adds to a tensor, and of that of the best grid."""
        self.now.add(x, self.grid(x))
        if self.best is not None:
            self.fitted.add(x, self.best.to(x.device)(x))
        ends = _ends(self.encoding, x.ndim)
        if ends is not None:
            low, high = (torch.from_numpy(end).to(x.device) for end in ends)
            self.beyond += int(((x < low) | (x > high)).sum())
        self.values += x.numel()

    def result(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        ends = _ends(self.encoding, 0, slack=0.0)
        low, high = self.whole.low, self.whole.high
        return {
            "low": 0.0 if low is None else float(low[0]),
            "high": 0.0 if high is None else float(high[0]),
            "grid_low": None if ends is None else float(ends[0].min()),
            "grid_high": None if ends is None else float(ends[1].max()),
            "clipped": self.beyond / max(self.values, 1),
            "histogram": bins_of(self.whole),
            "sqnr": self.now.sqnr,
            "fitted_sqnr": None if self.best is None else without_luck(self.fitted.sqnr, self.encoding.bits),
            "stretch": None if self.best is None else _stretch(self.encoding, self.best.encoding),
        }


def is_free(encoding: Encoding) -> bool:
    """Whether another scale could be chosen: not for 16-bit floats, nor for accumulators."""
    accumulates = isinstance(encoding, ProductEncoding) or encoding.bits > 16
    return not accumulates and not (isinstance(encoding, FloatEncoding) and encoding.bits == 16)


def _stretch(encoding: Encoding, best: Encoding) -> float | None:
    """How many times as large the scale of one grid is as that of another; the median over channels."""
    if encoding.scale is None or best.scale is None:
        return None
    return round(float(np.median(encoding.scale.astype(np.float64) / best.scale)), 4)


def _ends(encoding: Encoding, rank: int, slack: float = 0.5) -> Sequence[np.ndarray] | None:
    """Where an integer grid ends, `slack` steps further out, to broadcast against a tensor; None for float formats."""
    if isinstance(encoding, FloatEncoding) or encoding.scale is None or encoding.zero_point is None:
        return None
    scale, zero = encoding.broadcast(rank) if rank else (encoding.scale, encoding.zero_point)
    steps = zero.astype(np.float64)
    ends = (encoding.low - slack - steps) * scale, (encoding.high + slack - steps) * scale
    return [np.asarray(end, np.float32) for end in ends]


def bins_of(seen: Histogram) -> dict[str, Any]:
    """The histogram of all that was seen, in `BARS` bins at most."""
    if seen.counts is None or seen.exponent is None:
        return asdict(Bins(0.0, 0.0, []))
    counts, width = seen.counts[0], float(2.0 ** int(seen.exponent[0]))
    (used,) = np.nonzero(counts)
    first, last = int(used[0]), int(used[-1]) + 1
    step = 1
    while (last - 1) // step - first // step >= BARS:
        step *= 2
    start, stop = first // step * step, -(-last // step) * step
    padded = np.pad(counts, (0, max(0, stop - len(counts))))[start:stop]
    grouped = padded.reshape(-1, step).sum(1)
    low, high = ((edge - ZERO_BIN - 1) * width for edge in (start, stop))
    return asdict(Bins(low, high, [int(count) for count in grouped]))
