"""Lowerings of torch's functions that copy what a view would share, which its own passes call: the view, copied."""

from __future__ import annotations

from typing import Any

import torch

from qir.frontends.torch_functions import clone, detach
from qir.frontends.torch_indexing import at, getitem
from qir.frontends.torch_lowerings import Builder, lowers
from qir.frontends.torch_shapes import equal_parts  # noqa: F401  (its views are read below)
from qir.graph import Value


def _copy(view: Any, *spellings: Any) -> None:
    def lowering(build: Builder, *args: Any, **kwargs: Any) -> Any:
        made = view(build, *args, **kwargs)
        if isinstance(made, Value):
            return build("qir.Clone", made)
        return tuple(build("qir.Clone", part) for part in made)

    lowering.__name__ = view.__name__
    lowers(*spellings)(lowering)


def _slice(build: Builder, input: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    """qir.Index."""
    return getitem(build, input, at(dim, slice(start, end, step)))  # type: ignore[no-any-return]


for _name in ("diagonal", "expand", "narrow", "permute", "select", "split_with_sizes", "squeeze", "t", "transpose",
              "unbind", "unfold", "unsqueeze", "view", "split"):  # fmt: skip
    _copy(lowers.table[f"Tensor.{_name}"], getattr(torch, f"{_name}_copy"))
_copy(_slice, torch.slice_copy)
_copy(lowers.table["Tensor.narrow"], "Tensor.narrow_copy")
_copy(detach, torch.detach_copy)
lowers(torch.alias_copy)(clone)

for _name in ("split", "split_with_sizes", "chunk"):
    lowers(getattr(torch, f"unsafe_{_name}"), f"Tensor.unsafe_{_name}")(lowers.table[f"Tensor.{_name}"])
