"""Errors about models that can not be imported: the user's line, what it branches on, and what can be done."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from torch import nn

from qir.errors import Loc, QirError
from qir.frontends.torch_lines import is_users
from qir.source_paths import shortened


def untraceable(what: str, model: nn.Module, error: Exception) -> QirError:
    """Why `what` is so, at the deepest line that is not torch's, with ways around it."""
    frames = [frame for frame in _frames(error.__traceback__) if is_users(frame[0].f_code.co_filename)]
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    reason = (lines[0] if lines else type(error).__name__).partition(". ")[0]
    if not frames:
        return QirError(f"{what}: {reason}", stage="import")
    frame, line = frames[-1]
    loc = Loc(shortened(frame.f_code.co_filename), line)
    source = loc.source.strip()
    value = _branched_on(source)
    message = f"{what}: {reason}" + (f"; it branches on {value}" if value else "")
    return QirError(
        message, stage="import", snippet=f"{loc}\n    {source}", help="\n".join(_fixes(model, frames, value or ""))
    )


def _frames(trace: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    while trace is not None:
        yield trace.tb_frame, trace.tb_lineno
        trace = trace.tb_next


def _branched_on(source: str) -> str | None:
    """The condition, or what is iterated over, in a line of code."""
    line = source.removeprefix("el")
    for text in (line, f"{line} pass", f"{line}\n pass"):
        with suppress(SyntaxError):
            for part in ast.walk(ast.parse(text)):
                if isinstance(part, ast.If | ast.While | ast.Assert | ast.IfExp):
                    return ast.get_source_segment(text, part.test)
                if isinstance(part, ast.For | ast.comprehension):
                    return ast.get_source_segment(text, part.iter)
    return None


def _fixes(model: nn.Module, frames: list[tuple[FrameType, int]], value: str) -> Iterator[str]:
    """What the user may paste, most specific last."""
    yield "one of these:"
    names = [name for name in inspect.signature(model.forward).parameters if re.search(rf"\b{name}\b(?![.\[(])", value)]
    if names:
        fixed = ", ".join(f'"{name}": …' for name in names)
        yield f"  qir.prepare_model(model, concrete_args={{{fixed}}})  # where it is the same in every call"
    path = next((path for frame, _ in reversed(frames) if (path := _path_of(_receiver(frame), model))), None)
    if path:
        module = f'model.get_submodule("{path}")'
        yield f"  qir.prepare_model(model, modules_to_exclude=[{module}])"
        if sum(type(other) is type(model.get_submodule(path)) for other in model.modules()) > 1:
            yield f"  qir.prepare_model(model, module_classes_to_exclude=[type({module})])"
    code = frames[-1][0].f_code
    if "." not in code.co_qualname:
        file = Path(frames[-2 if len(frames) > 1 else -1][0].f_code.co_filename).name
        yield f'  torch.fx.wrap("{code.co_name}")  # in {file}, which calls it: the function stays whole'
    else:
        yield "  torch.fx.wrap on a function of its own that holds the branch, or torch.cond in its place"


def _receiver(frame: FrameType) -> Any:
    """What a method calls `self`."""
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
    return frame.f_locals.get(names[0]) if names else None


def _path_of(module: Any, model: nn.Module) -> str:
    """The path of a module; nothing for the model itself and for other objects."""
    base = getattr(module, "get_base", lambda: module)()
    return next((path for path, other in model.named_modules() if other is base), "")
