"""What data are, whatever the order and the batches that they come in: a hash, and a few samples."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from heapq import nsmallest

import numpy as np

from qir.batches import Batch, arrays_of
from qir.calibration.observing import samples_of
from qir.graph import Graph


class Tally:
    """Takes note of data as they stream by, sample by sample; of batches, where samples can not be told apart.

    The `hash` and the samples that are `kept` depend on the samples alone, not on their order or on how they were
    batched: kept are those with the lowest hashes.
    """

    def __init__(self, graph: Graph, keep: int) -> None:
        self.graph = graph
        self.keep = keep
        self.batches = 0
        self.hashes: list[str] = []
        self._kept: list[tuple[str, Sequence[np.ndarray]]] = []

    def add(self, batch: Batch) -> None:
        """Take note of a batch. Raises QirError when it does not fit the graph."""
        self.batches += 1
        arrays = arrays_of(self.graph, batch, self.batches)
        samples = samples_of(self.graph, arrays) or [arrays]
        hashed = [(_hash(sample), sample) for sample in samples]
        self.hashes += [name for name, _ in hashed]
        self._kept = nsmallest(self.keep, [*self._kept, *hashed], key=lambda pair: pair[0])

    @property
    def hash(self) -> str:
        """A hash of all samples; those that come twice count twice."""
        return hashlib.sha256("".join(sorted(self.hashes)).encode()).hexdigest()

    @property
    def kept(self) -> list[np.ndarray]:
        """The samples that have the first one's sizes as one batch; where it is a batch of its own, that."""
        first, *others = (sample for _, sample in self._kept)
        if not samples_of(self.graph, first):
            return list(first)
        alike = [sample for sample in others if [a.shape for a in sample] == [a.shape for a in first]]
        return [np.concatenate(arrays) for arrays in zip(first, *alike, strict=True)]


class Noted:
    """Batches that `tally` takes note of when they are first read; `batches` may be read several times."""

    def __init__(self, batches: Iterable[Batch], tally: Tally) -> None:
        self.batches = batches
        self.tally = tally

    def __iter__(self) -> Iterator[Batch]:
        first = self.tally.batches == 0
        for batch in self.batches:
            if first:
                self.tally.add(batch)
            yield batch

    def read_through(self) -> None:
        """Let the tally take note of all of them, where nobody has read them."""
        if self.tally.batches == 0:
            deque(self, maxlen=0)


def _hash(arrays: Sequence[np.ndarray]) -> str:
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(f"{array.dtype}{array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()
