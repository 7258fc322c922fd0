"""Sizes that are known only when a model runs, as arguments of its calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras

from qir.graph import Value
from qir.lowering import Builder


class Size(keras.KerasTensor):  # type: ignore[misc]
    """The size of an axis of a symbolic tensor, or whole arithmetic on sizes: a number for Python, a scalar for Keras.

    `op` is the graph's operator, `operands` are tensors, sizes and numbers.
    """

    def __init__(self, op: str, *operands: Any, **attrs: Any) -> None:
        super().__init__((), "int32", name="size")
        self.op, self.operands, self.attrs = op, operands, attrs


def _arithmetic(name: str, op: str) -> None:
    def forward(self: Size, other: Any) -> Any:
        return Size(op, self, other) if isinstance(other, int | Size) else getattr(keras.KerasTensor, name)(self, other)

    def reflected(self: Size, other: Any) -> Any:
        back = name.replace("__", "__r", 1)
        return Size(op, other, self) if isinstance(other, int) else getattr(keras.KerasTensor, back)(self, other)

    setattr(Size, name, forward)
    setattr(Size, name.replace("__", "__r", 1), reflected)


for _name, _op in (("add", "Add"), ("sub", "Sub"), ("mul", "Mul"), ("floordiv", "qir.FloorDivide")):
    _arithmetic(f"__{_name}__", _op)


def with_sizes(tensor: keras.KerasTensor, shape: Sequence[int | None]) -> tuple[Any, ...]:
    """The shape of `tensor`, with sizes in the places of those that are not known."""
    return tuple(Size("qir.AxisSize", tensor, axis=axis) if size is None else size for axis, size in enumerate(shape))


def value_of(size: Size, build: Builder, value: Callable[[Any], Any]) -> Value:
    """The number in a graph; `value` gives the values of tensors."""
    operands = [value_of(each, build, value) if isinstance(each, Size) else value(each) for each in size.operands]
    return build(size.op, *operands, **size.attrs)


def holds_size(argument: Any) -> bool:
    """Whether a nest of arguments holds such a size."""
    if isinstance(argument, slice):
        return any(isinstance(part, Size) for part in (argument.start, argument.stop, argument.step))
    if isinstance(argument, list | tuple):
        return any(map(holds_size, argument))
    return isinstance(argument, Size)


def result_of(operation: keras.Operation, args: Sequence[Any]) -> keras.KerasTensor | None:
    """The symbolic result of a call that is given sizes for a shape or an index; None where that is not known."""
    match type(operation).__name__, args:
        case "Reshape", [x, *_]:
            return keras.KerasTensor([_known(size) for size in operation.newshape], x.dtype)
        case "BroadcastTo", [x, *_]:
            return keras.KerasTensor([_known(size) for size in operation.shape], x.dtype)
        case "GetItem", [x, key]:
            spec = operation.compute_output_spec(x, _without_sizes(key))
            keys = [each for each in (key if isinstance(key, tuple) else (key,)) if not isinstance(each, int)]
            if None in keys or Ellipsis in keys:
                return None
            shape = [None if number < len(keys) and holds_size(keys[number]) else size
                     for number, size in enumerate(spec.shape)]  # fmt: skip
            return keras.KerasTensor(shape, x.dtype)
    return None


def _known(size: Any) -> int | None:
    return None if isinstance(size, Size) or size == -1 else size


def _without_sizes(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(map(_without_sizes, key))
    if isinstance(key, slice):
        return slice(*(None if isinstance(part, Size) else part for part in (key.start, key.stop, key.step)))
    return key
