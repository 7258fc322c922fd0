"""Running a model without a trace in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qir.api.same_outputs import same


@contextmanager
def untouched(
    model: nn.Module, holds: Callable[[Any, Any], bool] = lambda now, before: now is before
) -> Iterator[Callable[[], list[str]]]:
    """Inside, forward may set attributes, buffers and training flags; in the end all are as before.

    Yields a function that lists the paths of the attributes and buffers that forward has changed. `holds` tells whether
    an attribute that was set is still what it was.
    """
    modules = {path: part for path, part in model.named_modules() if not isinstance(part, torch.jit.ScriptModule)}
    attributes = {path: vars(module).copy() for path, module in modules.items()}
    held = {path: module._buffers.copy() for path, module in modules.items()}
    buffers = {path: _Kept(buffer, buffer.detach().clone(), buffer._version) for path, buffer in model.named_buffers()}
    caches = [
        (value, value.copy())
        for kept in attributes.values()
        for name, value in kept.items()
        if type(value) is dict and not name.startswith("_")
    ]

    def changed() -> list[str]:
        found = [path for path, buffer in buffers.items() if buffer.written]
        for path, module in modules.items():
            for before, now in ((attributes[path], vars(module)), (held[path], module._buffers)):
                names = [
                    name for name, value in now.items() if name != "training" and not holds(value, before.get(name))
                ]
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
        for buffer in buffers.values():
            buffer.write_back()


@contextmanager
def with_parameters_kept(model: nn.Module) -> Iterator[None]:
    """Inside, forward may write to the parameters; in the end they are as before.

    Their memory is copied when they are first written, and no earlier; parameters whose memory is not torch's own, but
    numpy's or a file's, are not looked after.
    """
    kept = [
        _Kept(parameter, copy, parameter._version)
        for parameter in model.parameters()
        if (copy := _lazily(parameter)) is not None
    ]
    try:
        yield
    finally:
        for parameter in kept:
            parameter.write_back()


@dataclass(frozen=True)
class _Kept:
    """A tensor, and what was in it."""

    tensor: torch.Tensor
    before: torch.Tensor
    version: int

    @property
    def written(self) -> bool:
        """Whether it was written to; torch counts no writes through `.data`."""
        if self.tensor._version != self.version:
            return True
        if torch._C._is_cow_tensor(self.before):  # type: ignore[attr-defined]
            return not torch._C._is_cow_tensor(self.tensor)  # type: ignore[attr-defined]
        return not _equal(self.tensor, self.before)

    def write_back(self) -> None:
        """Put back what was in it."""
        if self.written:
            with torch.no_grad():
                self.tensor.copy_(self.before)


def _equal(tensor: torch.Tensor, before: torch.Tensor) -> bool:
    try:
        return same(tensor, before)
    except (RuntimeError, NotImplementedError):  # tensors without memory have no values
        return True


def _lazily(tensor: torch.Tensor) -> torch.Tensor | None:
    try:
        return tensor.detach()._lazy_clone()
    except (RuntimeError, NotImplementedError):
        return None
