"""Batches taken apart into samples, so that what a model computes does not depend on how data was split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from qir.backends.torch_quantizers import quantizers_of
from qir.errors import QirError

Arguments = tuple[Sequence[Any], Mapping[str, Any]]
"""Positional and keyword arguments of a call."""


def one_by_one(module: nn.Module, batches: Iterable[Arguments]) -> Iterator[Arguments]:
    """The samples of every batch, each as a batch of one; the batches themselves where samples are not independent.

    That is tried on the first two samples of the first batch of several: their outputs in float have to be those of the
    two together but for rounding. (Kernels round differently for batches of different sizes.)
    """
    independent: bool | None = None
    for batch in batches:
        samples = _samples(batch)
        if independent is None and len(samples) > 1:
            independent = _independent(module, _together(samples[:2]), samples[:2])
        yield from samples if independent and len(samples) > 1 else [batch]


def _samples(batch: Arguments) -> list[Arguments]:
    """The batch cut along the first axis of its tensors; nothing where they have no such axis in common."""
    leaves, spec = pytree.tree_flatten(tuple(batch))
    sizes = {leaf.shape[0] if leaf.ndim else None for leaf in leaves if isinstance(leaf, Tensor)}
    if len(sizes) != 1 or None in sizes:
        return []
    (size,) = sizes
    return [
        pytree.tree_unflatten([leaf[i : i + 1] if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)
        for i in range(size or 0)
    ]


def _together(samples: Sequence[Arguments]) -> Arguments:
    """Samples as a batch."""
    (leaves, spec), *others = [pytree.tree_flatten(tuple(sample)) for sample in samples]
    rest = [other for other, _ in others]
    joined = [
        torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0] for parts in zip(leaves, *rest, strict=True)
    ]
    arguments: Arguments = pytree.tree_unflatten(joined, spec)
    return arguments


def _independent(module: nn.Module, batch: Arguments, samples: Sequence[Arguments]) -> bool:
    """Whether the samples give together what the batch gives."""
    quantizers = [(quantizer, quantizer.enabled, quantizer.observer) for _, quantizer in quantizers_of(module)]
    for quantizer, _, _ in quantizers:
        quantizer.enabled, quantizer.observer = False, None
    try:
        whole = _tensors(module(*batch[0], **batch[1]))
        parts = [_tensors(module(*arguments, **keywords)) for arguments, keywords in samples]
        joined = [torch.cat(pieces) for pieces in zip(*parts, strict=True)]
        return all(
            a.shape == b.shape
            and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-3 * _reach(a), equal_nan=True)
            for a, b in zip(whole, joined, strict=True)
        )
    except (RuntimeError, ValueError, IndexError, QirError):  # the model takes no batch of one
        return False
    finally:
        for quantizer, enabled, observer in quantizers:
            quantizer.enabled, quantizer.observer = enabled, observer


def _tensors(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def _reach(tensor: Tensor) -> float:
    return float(tensor.float().abs().max()) if tensor.numel() else 0.0
