"""Observers of torch tensors on any device. Their state is that of the numpy observers, bit for bit."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from qir.calibration.observers import BINS, CHUNK, ZERO_BIN, Histogram, MinMax, factors
from qir.encodings.encoding import Encoding

TOGETHER = 1 << 17
"""Tensors with fewer elements are counted together, until they have as many."""


class _OfTensors:
    """How observers read torch tensors: on the tensor's device, in one pass for the extremes and one for the counts."""

    encoding: Encoding

    def _rows(self, tensor: Tensor) -> Tensor:
        """The tensor in float32, as a matrix with a row for each range."""
        return matrix(tensor.detach().to(torch.float32), self.encoding)

    def _extremes(self, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and highest value of each row; NaN where the row holds one."""
        low, high = torch.stack([rows.amin(1), rows.amax(1)]).cpu().numpy()  # aminmax along an axis is not vectorised
        return low, high

    def _counted(self, rows: Tensor, exponent: np.ndarray) -> np.ndarray:
        """How many values of each row lie in each bin."""
        on_cpu = rows.device.type == "cpu"
        ways = 2 if on_cpu else 1
        integers = torch.int16 if ways * len(rows) * BINS < 2**15 else torch.int32
        step = min(rows.shape[1], max(1, CHUNK // (integers.itemsize * len(rows)))) if on_cpu else rows.shape[1]
        first = first_bins(len(rows), step, ways, integers, rows.device)
        factor = torch.from_numpy(factors(exponent)).to(rows.device)[:, None]
        counts = torch.zeros(ways * len(rows) * BINS, dtype=torch.int64, device=rows.device)
        for part in torch.split(rows, step, dim=1):
            index = torch.mul(part, factor).ceil_().to(integers).add_(first[:, : part.shape[1]])
            counts += torch.bincount(index.reshape(-1), minlength=counts.numel())
        return counts.reshape(ways, -1, BINS).sum(0).cpu().numpy()


@lru_cache(maxsize=4)
def first_bins(rows: int, columns: int, ways: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Where bin 0 of each row lies among all bins, which there are `ways` times: columns take them in turns.

    A count is faster when its neighbours, which are often equal, are in other places.
    """
    if ways == 1:
        columns = 1
    of_rows = torch.arange(rows, device=device)[:, None] * BINS + ZERO_BIN
    of_columns = torch.arange(columns, device=device) % ways * (rows * BINS)
    return (of_rows + of_columns).to(dtype)


class TorchMinMax(_OfTensors, MinMax):
    """The lowest and the highest value of torch tensors."""


class TorchHistogram(_OfTensors, Histogram):
    """The lowest and the highest value of torch tensors, and how many values lie in each bin.

    Copies of small tensors wait until there are `TOGETHER` elements to count.
    """

    def __init__(self, encoding: Encoding) -> None:
        super().__init__(encoding)
        self._waiting: list[Tensor] = []

    def _count(self, rows: Tensor) -> None:
        if rows.numel() >= TOGETHER:
            self._add(self._counted(rows, self._current_exponent()))
            return
        self._waiting.append(rows.clone())
        if sum(map(Tensor.numel, self._waiting)) >= TOGETHER:
            self._settle()

    def _settle(self) -> None:
        """Count what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._add(self._counted(torch.cat(waiting, 1), self._current_exponent()))


def matrix(tensor: Tensor, encoding: Encoding) -> Tensor:
    """What `Encoding.rows` is for arrays: a row for each scale."""
    if encoding.axis is None and encoding.block_axis is None:
        return tensor.reshape(1, -1)
    count = int(np.prod(encoding.scale_shape(tuple(tensor.shape))))
    kept = sorted(axis for axis in (encoding.axis, encoding.block_axis) if axis is not None)
    if encoding.block_axis is not None and encoding.block_size is not None:
        tensor = torch.unflatten(tensor, encoding.block_axis, (-1, encoding.block_size))
        kept = [axis + (axis > encoding.block_axis) for axis in kept]
    return tensor.movedim(kept, list(range(len(kept)))).reshape(count, -1)
