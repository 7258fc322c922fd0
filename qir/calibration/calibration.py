"""What every calibration ends with: an encoding for what was seen of a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from qir.calibration.observers import Histogram, MinMax
from qir.calibration.range_search import Method, Range
from qir.encodings.encoding import Encoding
from qir.errors import QirError

NARROWEST_CHANNEL = 2.0**-16
"""A channel is taken to be this wide at least, next to the widest one."""


class Seen(NamedTuple):
    """What is known of a tensor: its encoding, the shape of its scale, and observers of its rows, in order."""

    encoding: Encoding
    shape: tuple[int, ...]
    parts: Iterable[MinMax]


@dataclass(frozen=True)
class Calibration:
    """How encodings are fitted: a method, its percentile, and the smallest scale that the target takes.

    Raises QirError for a method that there is not, and for a percentile or a scale that is out of range.
    """

    method: str = "min-max"
    percentile: float = 99.99
    minimum_scale: float = 0.0

    def __post_init__(self) -> None:
        Method(self.method, self.percentile)
        if not 0 <= self.minimum_scale < 1:
            raise QirError(f"{self.minimum_scale} is no smallest scale", help="give a small number, as 1e-6, or 0")

    @property
    def search(self) -> Method:
        """The method that finds ranges."""
        return Method(self.method, self.percentile)

    def observer(self, encoding: Encoding) -> MinMax:
        """An observer that remembers what the method needs."""
        return Histogram(encoding) if self.search.needs_counts else MinMax(encoding)

    def fit(self, seen: MinMax) -> Encoding:
        """The observer's encoding, scaled for what it saw, which is something."""
        return self.fit_all([self.observed(seen)])[0]

    def fit_weights(self, encoding: Encoding, weights: Sequence[np.ndarray]) -> Encoding:
        """`encoding`, scaled for weights that are known as a whole. Raises NonFiniteError."""
        return self.fit_all([self.weights(encoding, weights)])[0]

    def observed(self, seen: MinMax) -> Seen:
        """What an observer saw, which is something, for `fit_all`."""
        return Seen(seen.encoding, seen.shape, [seen])

    def weights(self, encoding: Encoding, weights: Sequence[np.ndarray]) -> Seen:
        """Weights that are known as a whole, for `fit_all`, which raises NonFiniteError."""
        return Seen(
            encoding, encoding.scale_shape(weights[0].shape), self.search.for_weights.observers(weights, encoding)
        )

    def fit_all(self, tensors: Iterable[Seen]) -> list[Encoding]:
        """The encodings, each scaled for what is known of its tensor. Weights are looked at one after another."""
        owners: list[Seen] = []

        def parts() -> Iterator[MinMax]:
            for tensor in tensors:
                for part in tensor.parts:
                    owners.append(tensor)
                    yield part

        ranges, made = self.search.ranges(parts()), []
        for _, members in groupby(zip(owners, ranges, strict=True), lambda pair: id(pair[0])):
            (tensor, *_), found = zip(*members, strict=True)
            low, high = (np.concatenate([end.reshape(-1) for end in ends]) for ends in zip(*found, strict=True))
            made.append(self._covering(tensor.encoding, (low.reshape(tensor.shape), high.reshape(tensor.shape))))
        return made

    def _covering(self, encoding: Encoding, range: Range) -> Encoding:
        """`encoding`, scaled for a range, with scales that are not vanishing.

        A channel of next to nothing would have a scale on which no bias can be represented and which some runtimes
        refuse (AIMET's issue 4054). A width that is relative to the other channels, and not absolute, loses nothing.
        """
        low, high = range
        reach = np.maximum(np.maximum(-low, high), 0)
        least = np.max(reach, initial=0) * NARROWEST_CHANNEL
        factor = np.maximum(least / np.where(reach > 0, reach, 1), 1)
        low, high = low * factor, np.where(reach > 0, high * factor, least)
        made = encoding.with_range(low, high)
        if made.scale is None or np.all(made.scale >= self.minimum_scale):
            return made
        factor = np.maximum(self.minimum_scale / made.scale.astype(np.float64) * (1 + 1e-6), 1)
        return encoding.with_range(low * factor, high * factor)


def no_data(names: Iterable[str]) -> None:
    """Raise QirError when there is a name of a tensor that never saw data, with all of them."""
    if missing := list(names):
        raise QirError(
            f"no data reached {len(missing)} {'tensor' if len(missing) == 1 else 'tensors'}",
            snippet="\n".join(missing),
            help="give data that reaches them, or leave them without quantizers",
        )
