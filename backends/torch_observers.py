"""Observers of torch tensors on any device. Their state is that of the numpy observers, bit for bit."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from qir.encodings import Encoding
from qir.observers import BINS, CHUNK, ZERO_BIN, Histogram, MinMax, factors


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
        integers = torch.int16 if len(rows) * BINS < 2**15 else torch.int32
        first = torch.arange(ZERO_BIN, len(rows) * BINS, BINS, dtype=integers, device=rows.device)[:, None]
        factor = torch.from_numpy(factors(exponent)).to(rows.device)[:, None]
        counts = torch.zeros(len(rows) * BINS, dtype=torch.int64, device=rows.device)
        step = max(1, CHUNK // (integers.itemsize * len(rows))) if rows.device.type == "cpu" else rows.shape[1]
        for part in torch.split(rows, step, dim=1):
            index = torch.mul(part, factor).ceil_().to(integers).add_(first)
            counts += torch.bincount(index.reshape(-1), minlength=counts.numel())
        return counts.reshape(-1, BINS).cpu().numpy()


class TorchMinMax(_OfTensors, MinMax):
    """The lowest and the highest value of torch tensors."""


class TorchHistogram(_OfTensors, Histogram):
    """The lowest and the highest value of torch tensors, and how many values lie in each bin."""


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
