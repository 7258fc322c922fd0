"""Values between torch and numpy, those included that torch has no dtype for: these stay numpy arrays."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch

SAME_BYTES: dict[torch.dtype, tuple[torch.dtype, Any]] = {
    torch.bfloat16: (torch.int16, ml_dtypes.bfloat16),
    torch.float8_e4m3fn: (torch.uint8, ml_dtypes.float8_e4m3fn),
    torch.float8_e4m3fnuz: (torch.uint8, ml_dtypes.float8_e4m3fnuz),
    torch.float8_e5m2: (torch.uint8, ml_dtypes.float8_e5m2),
    torch.float8_e5m2fnuz: (torch.uint8, ml_dtypes.float8_e5m2fnuz),
    torch.float8_e8m0fnu: (torch.uint8, ml_dtypes.float8_e8m0fnu),
}
"""The dtypes that numpy has from elsewhere: an integer dtype of the same width, and the dtype there."""

_FROM_NUMPY = {np.dtype(theirs): (through, ours) for ours, (through, theirs) in SAME_BYTES.items()}
_PLAIN = frozenset("?bhilqBHILQefdFD")


def to_numpy(value: Any) -> Any:
    """A tensor as an array that shares its memory where it can; sequences item by item, anything else as it is."""
    if isinstance(value, list | tuple):
        return [to_numpy(item) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    tensor = value.detach().cpu().contiguous()
    if tensor.dtype in SAME_BYTES:
        through, theirs = SAME_BYTES[tensor.dtype]
        return tensor.view(through).numpy().view(theirs)
    return tensor.resolve_conj().numpy()


def to_torch(value: Any) -> Any:
    """An array as a tensor; sequences item by item; what torch has no dtype for, and anything else, as it is."""
    if isinstance(value, list | tuple):
        return [to_torch(item) for item in value]
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        return value
    if not value.flags.writeable or not value.flags.c_contiguous:
        value = value.copy()
    if value.dtype == np.ulonglong:  # numpy has two names for 64 bits, and torch knows one
        value = value.view(np.uint64)
    if value.dtype in _FROM_NUMPY:
        through, ours = _FROM_NUMPY[value.dtype]
        return torch.from_numpy(value.view(_plain(through))).view(ours)
    return torch.from_numpy(value) if value.dtype.char in _PLAIN else value


def _plain(dtype: torch.dtype) -> Any:
    return np.int16 if dtype is torch.int16 else np.uint8
