"""Lowerings of the functions of `keras.ops` that make tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from qir.frontends.keras_dtypes import agreed, cast, dtype_of, floating, tensor
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import known
from qir.types import DTYPES as ONNX_DTYPES
from qir.types import ScalarType


def standard(dtype: Any) -> str:
    """Keras's name of a dtype, that of its floats for None."""
    return str(keras.backend.standardize_dtype(dtype or keras.config.floatx()))


def _filled(build: KerasBuilder, shape: Sequence[Any], number: Any, dtype: str) -> Value:
    if not any(isinstance(size, Value) for size in shape):
        return build.value(np.full(tuple(shape), number, dtype))  # type: ignore[return-value]
    parts = [build("Reshape", _tensor_of(build, size), build.indices([1])) if isinstance(size, Value)
             else build.indices([size]) for size in shape]  # fmt: skip
    joined = parts[0] if len(parts) == 1 else build("Concat", *parts, axis=0)
    return build("ConstantOfShape", joined, value=np.array([number], dtype))


def _tensor_of(build: KerasBuilder, size: Value) -> Value:
    """A size as a tensor of whole numbers."""
    return build("Cast", size, to=ONNX_DTYPES["i64"]) if isinstance(size.type, ScalarType) else size


@lowers(ops.zeros)
def zeros(build: KerasBuilder, shape: Any, dtype: Any = None) -> Value:
    """ConstantOfShape, where sizes are computed."""
    return _filled(build, shape, 0, standard(dtype))


@lowers(ops.ones)
def ones(build: KerasBuilder, shape: Any, dtype: Any = None) -> Value:
    """ConstantOfShape, where sizes are computed."""
    return _filled(build, shape, 1, standard(dtype))


def _like(name: str, number: int) -> None:
    def lowering(build: KerasBuilder, x: Any, dtype: Any = None) -> Value:
        return full_like(build, x, number, dtype)  # type: ignore[no-any-return]

    lowering.__name__ = name
    lowers(getattr(ops, name))(lowering)


@lowers(ops.full_like)
def full_like(build: KerasBuilder, x: Any, fill_value: Any, dtype: Any = None) -> Value:
    """A constant where the shape is known, else ConstantOfShape."""
    value = tensor(build, x)
    known(isinstance(fill_value, bool | int | float), "a computed number")
    to = str(dtype_of(value)) if dtype is None else standard(dtype)
    if value.type.static is not None:
        return build.value(np.full(value.type.static, fill_value, to))  # type: ignore[return-value]
    return build("ConstantOfShape", build("Shape", value), value=np.array([fill_value], to))


_like("zeros_like", 0)
_like("ones_like", 1)
_like("empty_like", 0)


@lowers(ops.full)
def full(build: KerasBuilder, shape: Any, fill_value: Any, dtype: Any = None) -> Value:
    """Expand of a number."""
    value = cast(build, fill_value, standard(dtype))
    known(all(isinstance(size, int) for size in shape), "a computed shape")
    return build("Expand", value, build.indices(list(shape)))


@lowers(ops.arange)
def arange(build: KerasBuilder, start: Any, stop: Any = None, step: Any = None, dtype: Any = None) -> Value:
    """Range."""
    first, last = (0, start) if stop is None else (start, stop)
    limits = [first, last, 1 if step is None else step]
    to = standard(dtype) if dtype is not None else "int32"
    numbers = [_tensor_of(build, one) if isinstance(one, Value) else np.asarray(one, np.int64) for one in limits]
    known(all(isinstance(one, Value | int) for one in limits), "limits that are no whole numbers")
    return cast(build, build("Range", *numbers), to)


def _spaced(build: KerasBuilder, start: Any, stop: Any, num: int, endpoint: bool, axis: int) -> tuple[Value, Value]:
    """Numbers from one tensor to another along a new axis, and the distance between them."""
    first, last = (floating(build, one) for one in agreed(build, start, stop, also=(float,)))
    known(axis == 0 and num > 0, "another axis")
    steps = max(num - 1 if endpoint else num, 1)
    step = build("Div", build("Sub", last, first), float(steps))
    rank = max(first.type.rank or 0, last.type.rank or 0)
    count = np.arange(num, dtype=np.float32).reshape(num, *[1] * rank)
    return build("Add", first, build("Mul", count, step)), step


@lowers(ops.linspace)
def linspace(build: KerasBuilder, start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False,
             dtype: Any = None, axis: int = 0) -> Any:  # fmt: skip
    """The first number and multiples of the distance."""
    made, step = _spaced(build, start, stop, num, endpoint, axis)
    return (made, step) if retstep else made


@lowers(ops.logspace)
def logspace(build: KerasBuilder, start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10,
             dtype: Any = None, axis: int = 0) -> Value:  # fmt: skip
    """Powers of the base with evenly spaced exponents."""
    return build("Pow", float(base), _spaced(build, start, stop, num, endpoint, axis)[0])


@lowers(ops.geomspace)
def geomspace(build: KerasBuilder, start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None,
              axis: int = 0) -> Value:  # fmt: skip
    """Powers between positive numbers."""
    first, last = (build("Log", floating(build, one)) for one in (start, stop))
    return build("Exp", _spaced(build, first, last, num, endpoint, axis)[0])


@lowers(ops.array, ops.convert_to_tensor)
def array(build: KerasBuilder, x: Any, dtype: Any = None, sparse: Any = None, ragged: Any = None) -> Value:
    """The tensor, in its dtype."""
    return tensor(build, x) if dtype is None else cast(build, x, standard(dtype))
