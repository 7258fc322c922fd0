"""Running torch.export on a module, quietly, and with training flags that can be told."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from qir.frontends.torch_errors import untraceable
from qir.frontends.torch_lowerings import DTYPES
from qir.frontends.torch_trace import nothing_whole, recording_flags
from qir.frontends.torch_whole import Call, kept_whole, observed
from qir.types import UNKNOWN, ScalarType, TensorType, Type


@dataclass(frozen=True)
class Recording:
    """An exported program, for every call with a training flag whether it was the module's own, and the whole calls."""

    program: torch.export.ExportedProgram
    flags: Sequence[bool] = ()
    calls: Mapping[str, Call] = field(default_factory=dict)


def export(
    model: nn.Module,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    whole: Callable[[nn.Module], bool] = nothing_whole,
    dynamic: bool = True,
    layers: tuple[type[nn.Module], ...] = (),
) -> Recording:
    """What torch.export records of the model, in which modules of which `whole` is true are called and not looked into.

    Nor are those of the classes `layers`, which are lowered as the layers that they are.
    With `dynamic`, the sizes that the model lets be any number are symbols: of all axes, up to rank 3, or of axis 0.
    """
    calls = observed(model, whole, layers, args, keywords)
    given = (args, keywords)
    twice = pytree.tree_map(_twice, given) if dynamic and _is_one(given) and not calls else given
    failures: list[Exception] = []
    for axes in (all_axes, _first_axis, None) if dynamic else (None,):
        args, keywords = given if axes is None else twice
        shapes = None if axes is None else dynamic_shapes(model, args, keywords, axes)
        try:
            with kept_whole(calls), recording_flags(model) as flags, quiet(), _remembering(shapes is None):
                program = torch.export.export(model, args, keywords, dynamic_shapes=shapes, strict=False)
            return Recording(program, flags, calls)
        except Exception as error:  # torch.export raises whatever the model's own code raises, and much of its own
            failures.append(error)
    raise untraceable("torch.export can not follow this model", model, failures[-1]) from failures[-1]


def dynamic_shapes(model: nn.Module, args: Any, keywords: Any, axes: Callable[[Any], Any]) -> Any:
    """What torch.export is told of the arguments' sizes: `axes` says it of one argument."""
    bound = inspect.signature(model.forward).bind(*args, **keywords)
    return {name: pytree.tree_map(axes, value) for name, value in bound.arguments.items()}


def all_axes(leaf: Any) -> Any:
    """Every axis of sequences is of any size; images and videos keep theirs."""
    if not isinstance(leaf, torch.Tensor) or leaf.ndim > 3:
        return _first_axis(leaf)
    return {axis: torch.export.Dim.AUTO for axis, size in enumerate(leaf.shape) if size > 1} or None


def _first_axis(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.shape[0] > 1:
        return {0: torch.export.Dim.AUTO}
    return None


def _is_one(given: Any) -> bool:
    """Whether the batch is a single item, a size of which torch.export makes no symbol."""
    return all(leaf.shape[:1] == (1,) for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor))


def _twice(leaf: Any) -> Any:
    return torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) else leaf


def _remembering(types: bool) -> AbstractContextManager[None]:
    """Inside, torch remembers the `types` of calls, or does not: keys of symbolic sizes cost more than they spare."""
    return torch._dynamo.config.patch(fake_tensor_cache_enabled=types)  # type: ignore[no-any-return]


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, torch neither prints, warns nor logs."""
    log = logging.getLogger("torch")
    level = log.level
    try:
        log.setLevel(logging.CRITICAL)
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def type_of_example(value: Any) -> Type:
    """The type of a value that torch.export kept: a fake tensor, or a number that may be symbolic."""
    if isinstance(value, torch.Tensor):
        shape = tuple(_size(size) for size in value.shape)
        return TensorType(DTYPES.get(value.dtype), shape)
    if isinstance(value, torch.SymInt | int) and not isinstance(value, bool):
        return ScalarType("int")
    if isinstance(value, torch.SymFloat | float):
        return ScalarType("float")
    if isinstance(value, torch.SymBool | bool):
        return ScalarType("bool")
    return UNKNOWN


def _size(size: Any) -> int | str | None:
    text = str(size)
    if text.isdigit():  # a symbol may turn out to be one number
        return int(text)
    return text if re.fullmatch(r"[A-Za-z]\w*", text) else None
