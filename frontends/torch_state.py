"""Running a model without a trace in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
        _write_back(buffers.values())


@contextmanager
def with_parameters_kept(model: nn.Module) -> Iterator[None]:
    """Inside, forward may write to the parameters; in the end they are as before.

    Their memory is copied when they are first written, and no earlier; parameters whose memory is not torch's own, but
    numpy's or a file's, are not looked after.
    """
    kept = [
        (parameter, copy, parameter._version)
        for parameter in model.parameters()
        if (copy := _lazily(parameter)) is not None
    ]
    try:
        yield
    finally:
        _write_back(kept)


def _write_back(kept: Iterable[tuple[torch.Tensor, torch.Tensor, int]]) -> None:
    for tensor, before, version in kept:
        if tensor._version != version:
            with torch.no_grad():
                tensor.copy_(before)


def _lazily(tensor: torch.Tensor) -> torch.Tensor | None:
    try:
        return tensor.detach()._lazy_clone()
    except (RuntimeError, NotImplementedError):
        return None
