"""What training a simulator needs beside a training loop: statistics of batch norms that fit the rounded network."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from qir.backends.torch_modules import BatchNorm
from qir.errors import QirError


class Statistics:
    """The buffers of a module as they were, for `undo`."""

    def __init__(self, module: nn.Module) -> None:
        self._kept = [(buffer, buffer.clone()) for buffer in module.buffers()]

    def undo(self) -> None:
        """Put the buffers back."""
        with torch.no_grad():
            for buffer, before in self._kept:
                buffer.copy_(before)


def reestimate_batch_norm(module: nn.Module, batches: Iterable[Any], count: int = 100) -> Statistics:
    """Give the batch norms of `module` the mean of the statistics of at most `count` batches; what undoes it.

    After training with rounding, the running statistics lag behind the weights. Each batch, a tensor, a sequence of
    positional arguments or a mapping of keyword arguments, is run without gradients, all other layers in evaluation
    mode; every batch weighs the same. Modes and momenta are afterwards as before.

    Raises QirError when there is no batch norm with statistics, or no batch.
    """
    layers = [layer for layer in module.modules() if _has_statistics(layer)]
    if not layers:
        raise QirError("the module has no batch norm with running statistics", help="re-estimate before folding them")
    before, seen = Statistics(module), 0
    with _only_training(module, layers), torch.no_grad():
        for batch in islice(batches, count):
            seen += 1
            for layer in layers:
                layer.momentum = 1 / seen  # type: ignore[assignment]  # so that the update is the mean until now
            _run(module, batch)
    if not seen:
        raise QirError("there is no batch to re-estimate from", help="give one batch at least")
    return before


def _has_statistics(layer: nn.Module) -> bool:
    return isinstance(layer, BatchNorm) or (isinstance(layer, _BatchNorm) and layer.running_mean is not None)


@contextmanager
def _only_training(module: nn.Module, layers: list[nn.Module]) -> Iterator[None]:
    """The module in evaluation mode but for `layers`; afterwards modes and momenta are as before."""
    modes = [(inner, inner.training) for inner in module.modules()]
    momenta = [(layer, layer.momentum) for layer in layers]
    module.eval()
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for inner, mode in modes:
            inner.training = mode
        for layer, momentum in momenta:
            layer.momentum = momentum


def _run(module: nn.Module, batch: Any) -> None:
    if isinstance(batch, Mapping):
        module(**batch)
    else:
        module(*(batch if isinstance(batch, list | tuple) else (batch,)))
