"""Work by several ranks: what each saw of its share of the data, or found out, becomes what all know."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import torch
import torch.distributed as dist

from qir.calibration.observers import BINS, Histogram, MinMax, coarser, exponents

RANKS = 8
"""The most axes that a tensor with a scale for each block has."""


def all_reduce(observers: Sequence[MinMax]) -> None:
    """Let the observers of every rank of the default process group know what those of all ranks saw, bit for bit.

    The ranks give observers of the same tensors in the same order; a rank may have seen nothing. That takes three
    collective calls. Does nothing where no process group is up.
    """
    if not observers or not dist.is_available() or not dist.is_initialized():
        return
    shapes = _shapes(observers)
    rows = [0 if shape is None else prod(shape) for shape in shapes]
    lows, highs = _extremes(observers, rows)
    wide = [exponents(low, high) for low, high in zip(lows, highs, strict=True)]
    counted = [(seen, e) for seen, e in zip(observers, wide, strict=True) if isinstance(seen, Histogram)]
    counts = iter(_counts(counted))
    for observer, shape, low, high, exponent in zip(observers, shapes, lows, highs, wide, strict=True):
        state = {"low": low, "high": high, "shape": np.array(shape or (), np.int64), "exponent": exponent}
        if isinstance(observer, Histogram):
            state["counts"] = next(counts)
        observer.load(state if shape is not None else {})


def exchanged(text: str) -> list[str]:
    """The texts of all ranks of the default process group, in order; the own one alone where no group is up."""
    if not dist.is_available() or not dist.is_initialized():
        return [text]
    data = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    sizes = np.zeros(dist.get_world_size(), np.int64)
    sizes[dist.get_rank()] = len(data)
    sizes = _reduced(sizes, dist.ReduceOp.SUM)
    table = np.zeros((len(sizes), int(sizes.max())), np.int64)
    table[dist.get_rank(), : len(data)] = data
    rows = _reduced(table, dist.ReduceOp.SUM).astype(np.uint8)
    return [row[:size].tobytes().decode() for row, size in zip(rows, sizes, strict=True)]


def place() -> tuple[int, int]:
    """The rank of this process in the default process group and the number of ranks; 0 of 1 where no group is up."""
    up = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if up else (0, 1)


def _shapes(observers: Sequence[MinMax]) -> list[tuple[int, ...] | None]:
    """The shape of the ranges of each observer; None where no rank saw anything."""
    table = np.zeros((len(observers), 2 + RANKS), np.int64)
    for line, observer in zip(table, observers, strict=True):
        if observer.low is not None:
            line[:2] = 1, len(observer.shape)
            line[2 : 2 + len(observer.shape)] = observer.shape
    table = _reduced(table, dist.ReduceOp.MAX)
    return [tuple(int(size) for size in line[2 : 2 + line[1]]) if line[0] else None for line in table]


def _extremes(observers: Sequence[MinMax], rows: Sequence[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The lowest and highest values of all ranks."""
    unknown = np.float32(np.inf)
    ends = [
        np.stack([observer.low, -observer.high] if observer.low is not None and observer.high is not None
                 else [np.full(count, unknown)] * 2)
        for observer, count in zip(observers, rows, strict=True)
    ]  # fmt: skip
    reduced = _reduced(np.concatenate(ends, 1).astype(np.float32), dist.ReduceOp.MIN)
    parts = np.split(reduced, np.cumsum(rows)[:-1], 1)
    return [part[0] for part in parts], [-part[1] for part in parts]


def _counts(histograms: Sequence[tuple[Histogram, np.ndarray]]) -> list[np.ndarray]:
    """The counts of all ranks, in bins with the exponents of the range of all ranks."""
    if not histograms:
        return []
    own = [
        np.zeros((len(exponent), BINS), np.int64) if histogram.counts is None or histogram.exponent is None
        else coarser(histogram.counts, exponent - histogram.exponent)
        for histogram, exponent in histograms
    ]  # fmt: skip
    reduced = _reduced(np.concatenate(own), dist.ReduceOp.SUM)
    return np.split(reduced, np.cumsum([len(part) for part in own])[:-1])


def _reduced(array: np.ndarray, operation: dist.ReduceOp.RedOpType) -> np.ndarray:
    """The array, reduced over all ranks."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    tensor = tensor.cuda() if dist.get_backend() == "nccl" else tensor
    dist.all_reduce(tensor, operation)
    return tensor.cpu().numpy()
