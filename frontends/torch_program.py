"""Running torch.export on a module, quietly, and with training flags that can be told."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from qir.errors import Loc, QirError
from qir.frontends.torch_lowerings import DTYPES
from qir.frontends.torch_trace import recording_flags
from qir.types import UNKNOWN, ScalarType, TensorType, Type


def export(
    model: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[torch.export.ExportedProgram, list[bool]]:
    """The exported program, and for every call with a training flag whether it was given the module's own."""
    failures: list[Exception] = []
    for dynamic in (True, False):
        shapes = pytree.tree_map(_first_axis, (args, keywords)) if dynamic else None
        shapes = None if shapes is None else (*shapes[0], *shapes[1].values())
        if dynamic and (keywords or not any(shapes or ())):
            continue
        try:
            with recording_flags(model) as flags, quiet():
                program = torch.export.export(model, args, keywords, dynamic_shapes=shapes, strict=False)
            return program, flags
        except Exception as error:  # torch.export raises whatever the model's own code raises, and much of its own
            failures.append(error)
    raise _unexportable(failures[-1]) from failures[-1]


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


def _first_axis(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.shape[0] > 1:
        return {0: torch.export.Dim.AUTO}
    return None


def _unexportable(error: Exception) -> QirError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    user = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    snippet = None
    if user:
        loc = Loc(user[-1][0], int(user[-1][1]))
        snippet = f"{loc}\n    {loc.source.strip()}"
    return QirError(
        f"torch.export can not follow this model: {lines[0]}", stage="import", snippet=snippet,
        help="a branch on tensor data goes into a function that torch.fx.wrap keeps whole",
    )  # fmt: skip


def type_of_example(value: Any) -> Type:
    """The type of a value that torch.export kept: a fake tensor, or a number that may be symbolic."""
    if isinstance(value, torch.Tensor):
        shape = tuple(size if isinstance(size, int) else _symbol(size) for size in value.shape)
        return TensorType(DTYPES.get(value.dtype), shape)
    if isinstance(value, torch.SymInt | int) and not isinstance(value, bool):
        return ScalarType("int")
    if isinstance(value, torch.SymFloat | float):
        return ScalarType("float")
    if isinstance(value, torch.SymBool | bool):
        return ScalarType("bool")
    return UNKNOWN


def _symbol(size: Any) -> str | None:
    text = str(size)
    return text if re.fullmatch(r"[A-Za-z]\w*", text) else None
