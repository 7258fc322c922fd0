"""Lowerings of torch's questions about a tensor to which its type is the answer: Python numbers, no nodes."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from qir.frontends.torch_functions import spelled
from qir.frontends.torch_lowerings import TORCH_DTYPES, Builder, known, lowers
from qir.graph import Value
from qir.types import ScalarType


def _dtype(input: Value) -> torch.dtype:
    known(not isinstance(input.type, ScalarType) and input.type.dtype in TORCH_DTYPES, "a tensor of unknown dtype")
    return TORCH_DTYPES[str(input.type.dtype)]


@lowers("Tensor.dim", "Tensor.ndimension")
def dim(build: Builder, input: Value) -> int:
    """The number of axes."""
    known(input.type.rank is not None and not isinstance(input.type, ScalarType), "a tensor of unknown rank")
    return int(input.type.rank or 0)


@lowers(*spelled("numel"), "Tensor.nelement")
def numel(build: Builder, input: Value) -> int:
    """The number of elements, where every size is known."""
    sizes = input.type.static
    known(sizes is not None and not isinstance(input.type, ScalarType), "a tensor of unknown size")
    return prod(sizes or ())


@lowers("Tensor.element_size")
def element_size(build: Builder, input: Value) -> int:
    """The bytes of an element."""
    return _dtype(input).itemsize


def _question(name: str, answer: Any) -> None:
    def lowering(build: Builder, input: Value) -> bool:
        return bool(answer(_dtype(input)))

    lowering.__name__ = name
    lowers(*spelled(name))(lowering)


_question("is_floating_point", lambda dtype: dtype.is_floating_point)
_question("is_complex", lambda dtype: dtype.is_complex)
_question("is_signed", lambda dtype: dtype.is_signed)
