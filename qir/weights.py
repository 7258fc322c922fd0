"""Tensor data that a graph holds by reference."""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from qir.arrangements import Step
from qir.errors import QirError


def _as_numpy(data: Any) -> np.ndarray:
    return np.asarray(data)


@dataclass(frozen=True, eq=False)
class Weight:
    """The data of a value that no node computes.

    `data` is the framework's own tensor or a numpy array, never a copy; `read` views it as a numpy array.
    `paths` are its names in the model's state: several when layers share it, none for a literal.
    `arrangement` has the steps that `read` takes from the order of the framework's axes to ONNX's, none by default.
    A weight read from graph text knows only its `digest` and has `data` None, until a weights file is attached.
    """

    data: Any
    paths: tuple[str, ...] = ()
    read: Callable[[Any], np.ndarray] = _as_numpy
    trainable: bool = False
    persistent: bool = True
    known_digest: str | None = None
    arrangement: tuple[Step, ...] = ()

    @property
    def array(self) -> np.ndarray:
        """The data as a numpy array that shares memory with it where the framework allows.

        Raises QirError when only the digest is known.
        """
        if self.data is None:
            name = self.paths[0] if self.paths else "a constant"
            raise QirError(
                f"the data of {name} is not here: graph text names weights by hash only",
                help="put the weights beside the text, as <name>.safetensors, or work on the ONNX file",
            )
        return self.read(self.data)

    def with_data(self, data: np.ndarray) -> Weight:
        """The weight with the same names, holding `data`, which is arranged as its array and gets its dtype."""
        return replace(self, data=data.astype(self.array.dtype), read=_as_numpy, known_digest=None)

    def release(self) -> None:
        """Let go of the memory that holds data of a file; it is read again when it is asked for."""
        owner = self.data
        while isinstance(owner, np.ndarray) and not isinstance(owner, np.memmap):
            owner = owner.base
        pages = getattr(owner, "_mmap", None)
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)

    @property
    def digest(self) -> str:
        """16 hexadecimal digits of a hash of dtype, shape and bytes: equal exactly when the contents are equal."""
        if self.data is None and self.known_digest is not None:
            return self.known_digest
        array = np.asarray(self.array, order="C")
        hasher = hashlib.blake2b(f"{array.dtype}{array.shape}".encode(), digest_size=8)
        if array.dtype == object:
            hasher.update(repr(array.tolist()).encode())
        else:
            hasher.update(array.reshape(-1).view(np.uint8).data)
        return hasher.hexdigest()
