"""Running a model without a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside, forward may set attributes, buffers and training flags; in the end all are as before."""
    modules = [(module, module.training, vars(module).copy(), module._buffers.copy()) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone(), buffer._version) for buffer in model.buffers()]
    try:
        yield
    finally:
        for module, training, attributes, held in modules:
            module.training = training
            for name in vars(module).keys() - attributes.keys():
                del vars(module)[name]
            vars(module).update(attributes)
            module._buffers.clear()
            module._buffers.update(held)
        for buffer, before, version in buffers:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(before)
