"""Lowerings of torch's functions that put tensors beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qir.frontends.torch_lowerings import Builder, known, lowers
from qir.frontends.torch_tensors import stack
from qir.graph import Value


def _ranks(tensors: Any) -> list[int]:
    known(isinstance(tensors, list | tuple), "a list of tensors that is computed")
    ranks = [tensor.type.rank for tensor in tensors]
    known(None not in ranks and len(set(ranks)) == 1, "tensors of different or unknown ranks")
    return ranks


@lowers(torch.hstack)
def hstack(build: Builder, tensors: Sequence[Value]) -> Value:
    """Concat along axis 1, of vectors along axis 0."""
    rank = _ranks(tensors)[0]
    known(rank > 0, "numbers side by side")
    return build("Concat", *tensors, axis=int(rank > 1))


@lowers(torch.vstack, torch.row_stack)
def vstack(build: Builder, tensors: Sequence[Value]) -> Value:
    """Concat along axis 0, of vectors along a new one."""
    rank = _ranks(tensors)[0]
    known(rank > 0, "numbers above each other")
    return build("Concat", *tensors, axis=0) if rank > 1 else stack(build, tensors)


@lowers(torch.dstack)
def dstack(build: Builder, tensors: Sequence[Value]) -> Value:
    """Concat along axis 2."""
    known(_ranks(tensors)[0] > 2, "matrices behind each other")
    return build("Concat", *tensors, axis=2)


@lowers(torch.column_stack)
def column_stack(build: Builder, tensors: Sequence[Value]) -> Value:
    """Concat along axis 1, of vectors along a new one."""
    rank = _ranks(tensors)[0]
    known(rank > 0, "numbers side by side")
    return build("Concat", *tensors, axis=1) if rank > 1 else stack(build, tensors, 1)
