"""Running a model without a trace in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[Callable[[], list[str]]]:
    """Inside, forward may set attributes, buffers and training flags; in the end all are as before.

    Yields a function that lists the paths of the attributes and buffers that forward has changed.
    """
    modules = {path: part for path, part in model.named_modules() if not isinstance(part, torch.jit.ScriptModule)}
    attributes = {path: vars(module).copy() for path, module in modules.items()}
    held = {path: module._buffers.copy() for path, module in modules.items()}
    buffers = {path: (buffer, buffer.detach().clone(), buffer._version) for path, buffer in model.named_buffers()}

    caches = [
        (value, value.copy())
        for kept in attributes.values()
        for name, value in kept.items()
        if type(value) is dict and not name.startswith("_")
    ]

    def changed() -> list[str]:
        found = [path for path, (buffer, _, version) in buffers.items() if buffer._version != version]
        for path, module in modules.items():
            for before, now in ((attributes[path], vars(module)), (held[path], module._buffers)):
                names = [name for name, value in now.items() if name != "training" and before.get(name) is not value]
                found += [f"{path}.{name}" if path else name for name in names]
        return found

    try:
        yield changed
    finally:
        for path, module in modules.items():
            for name in vars(module).keys() - attributes[path].keys():
                del vars(module)[name]
            vars(module).update(attributes[path])
            module._buffers.clear()
            module._buffers.update(held[path])
        for cache, kept in caches:
            cache.clear()
            cache.update(kept)
        for buffer, before, version in buffers.values():
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(before)
