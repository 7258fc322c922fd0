"""Errors about Keras models whose code can not be followed: the user's line, what it does, and what to do instead."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, ModuleType, TracebackType
from typing import Any

import keras

from qir.errors import Loc, QirError
from qir.frontends.keras_lines import is_users
from qir.source_paths import shortened

_KEEP = "or keep the layer whole: modules_to_exclude=[…]"
_OTHERS = ("torch", "jax", "tensorflow", "numpy")
"""Packages whose functions know no symbolic tensors."""

_SPELLINGS = {
    "cat": "concatenate", "concat": "concatenate", "unsqueeze": "expand_dims", "permute": "transpose",
    "view": "reshape", "clamp": "clip", "reduce_sum": "sum", "reduce_mean": "mean", "reduce_max": "max",
    "asarray": "convert_to_tensor", "as_tensor": "convert_to_tensor", "constant": "convert_to_tensor",
    "float": "cast", "long": "cast", "astype": "cast", "dim": "ndim", "numpy": "convert_to_numpy",
}  # fmt: skip
"""What `keras.ops` calls functions that others call otherwise."""


@contextmanager
def followed(model: keras.Layer) -> Iterator[None]:
    """Inside, the model's code runs on symbolic tensors; what it raises becomes a QirError at the user's line."""
    try:
        yield
    except QirError as error:
        if error.snippet is None and (frames := _users_frames(error.__traceback__)):
            error.snippet = _shown(*frames[-1])
        raise
    except Exception as error:  # whatever the model's own code, or Keras, raises when run on symbolic tensors
        raise _untraceable(model, error) from error


def value_read(variable: keras.Variable) -> QirError:
    """The error for a call that computes with the value of a variable, which would then be a constant."""
    return QirError(
        f"call reads the value of {variable.path} in a way that would make it a constant", stage="import",
        help=f"hold the variable in an attribute of the layer, {_KEEP}",
    )  # fmt: skip


def foreign_variable(variable: keras.Variable, layer: keras.Layer) -> QirError:
    """The error for a variable that is no part of the model."""
    if isinstance(layer, keras.layers.Lambda):
        return QirError(
            f"the Lambda layer {layer.name} closes over the variable {variable.path}, which the model does not hold",
            stage="import", help="write a subclass of keras.Layer that creates it with add_weight in build",
        )  # fmt: skip
    return QirError(
        f"call of {type(layer).__name__} computes with the variable {variable.path}, which is no weight of the model",
        stage="import", help="create it with add_weight in build, not in call or outside of the layer",
    )  # fmt: skip


def drawn(layer: keras.Layer) -> QirError:
    """The error for random numbers that are drawn where no layer of Keras does."""
    return QirError(
        f"call of {type(layer).__name__} draws random numbers, which would be the same in every run", stage="import",
        help=f"use a layer such as keras.layers.Dropout or GaussianNoise, {_KEEP}",
    )  # fmt: skip


def _untraceable(model: keras.Layer, error: Exception) -> QirError:
    frames = _users_frames(error.__traceback__)
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if not frames:
        return QirError(f"{type(model).__name__} can not run on its inputs: {reason}", stage="import",
                        help="give input_layer=keras.Input(shape, dtype=…) that fits the model")  # fmt: skip
    frame, line = frames[-1]
    message, advice = _explained(frame, _statement(frame, line), reason)
    return QirError(message, stage="import", snippet=_shown(frame, line), help=advice)


def _explained(frame: FrameType, source: str, reason: str) -> tuple[str, str]:
    """What is wrong with a line, and what to do."""
    condition = _branched_on(source)
    if "as a boolean" in reason or ("truth value" in reason and condition):
        what = f"Python branches on {condition}" if condition else "Python asks a symbolic tensor whether it is true"
        return (f"{what}, which is known only when the model runs",
                f"use keras.ops.where(condition, a, b) or keras.ops.cond, {_KEEP}")  # fmt: skip
    if "interpreted as an integer" in reason or "not iterable" in reason or "Iterating" in reason:
        what = f"Python loops over {condition}" if condition else "Python needs a number here"
        return (f"{what}, and a symbolic tensor or size is known only when the model runs",
                f"give keras.Input a shape without None, use keras.ops.unstack or the like, {_KEEP}")  # fmt: skip
    if "cannot add new elements of state" in reason or "add_weight" in source:
        return (f"call creates weights or layers: {reason}", "create them in __init__ or build")
    if (name := _foreign_call(frame, source)) is not None:
        plain = name.rpartition(".")[2]
        known = plain if hasattr(keras.ops, plain) else _SPELLINGS.get(plain)
        other = f"use keras.ops.{known}" if known else "use a function of keras.ops"
        return f"call uses {name}, which knows no symbolic tensors", f"{other}, {_KEEP}"
    if "incompatible" in reason or "input shape" in reason:
        return f"the model does not take its inputs: {reason}", "give input_layer=keras.Input(shape, dtype=…) that fits"
    return f"the model's code does not run on symbolic tensors: {reason}", _KEEP.removeprefix("or ")


def _users_frames(trace: TracebackType | None) -> list[tuple[FrameType, int]]:
    """The user's frames below the call of the model."""
    frames: list[tuple[FrameType, int]] = []
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    return [(frame, line) for frame, line in frames if is_users(frame.f_code.co_filename)]


def _shown(frame: FrameType, line: int) -> str:
    loc = Loc(shortened(frame.f_code.co_filename), line)
    return f"{loc}\n    {loc.source.strip()}"


def _statement(frame: FrameType, line: int) -> str:
    return Loc(shortened(frame.f_code.co_filename), line).source.strip()


def _parsed(source: str) -> ast.AST | None:
    line = source.removeprefix("el")
    for text in (line, f"{line} pass", f"{line}\n pass", line.rstrip(",").strip()):
        with suppress(SyntaxError):
            return ast.parse(text)
    return None


def _branched_on(source: str) -> str | None:
    """The condition, or what is iterated over, in a line of code."""
    for part in ast.walk(tree) if (tree := _parsed(source)) is not None else ():
        if isinstance(part, ast.If | ast.While | ast.Assert | ast.IfExp):
            return ast.unparse(part.test)
        if isinstance(part, ast.For | ast.comprehension):
            return ast.unparse(part.iter)
    return None


def _foreign_call(frame: FrameType, source: str) -> str | None:
    """The function of another package, or method of a tensor, that a line of code calls."""
    calls = [part.func for part in ast.walk(_parsed(source) or ast.Module([], [])) if isinstance(part, ast.Call)]
    for function in calls:
        if not isinstance(function, ast.Attribute | ast.Name):
            continue
        name = ast.unparse(function)
        root = name.partition(".")[0]
        holder: Any = frame.f_locals.get(root, frame.f_globals.get(root))
        home = holder.__name__ if isinstance(holder, ModuleType) else getattr(holder, "__module__", None) or ""
        if home.partition(".")[0] in _OTHERS and home.partition(".")[0] != "keras":
            return name if isinstance(holder, ModuleType) else f"{home}.{name}"
        if isinstance(holder, keras.KerasTensor):
            return name
    return None
