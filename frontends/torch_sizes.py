"""What a symbolic trace asks a tensor for: its shape, its sizes, its number of axes, its data."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from functools import partial, reduce
from typing import Any

from qir.frontends.torch_calls import Shape, opaque
from qir.frontends.torch_computed import DeviceOf
from qir.frontends.torch_lowerings import TORCH_DTYPES, Builder, lowers
from qir.graph import Value


def shape_access(build: Builder, target: Any, args: Sequence[Any]) -> Any:
    """What `x.shape`, `x.size()`, `x.shape[i]`, `x.shape + (1,)`, `x.ndim` and `x.data` stand for; None otherwise."""
    of = args[0] if args else None
    if isinstance(of, tuple):
        return _of_tuple(build, target, of, args[1:])
    if isinstance(of, Value):
        if (target is getattr and args[1] == "shape") or (target == "size" and len(args) == 1):
            return Shape(of) if of.type.rank is None else _sizes(build, of, range(of.type.rank))
        if (target is getattr and args[1] == "ndim") or target in ("dim", "ndimension"):
            unknown = "the number of axes is not known"
            return opaque(build, "Tensor.dim", [of], {}, None, unknown) if of.type.rank is None else of.type.rank
        if target is getattr and args[1] == "data":
            return build("qir.Detach", of)
        if target is getattr and args[1] == "device":
            return DeviceOf(of)
        if target is getattr and args[1] == "dtype" and of.type.dtype in TORCH_DTYPES:
            return TORCH_DTYPES[str(of.type.dtype)]
    if target is operator.getitem and isinstance(of, Shape) and isinstance(args[1], int):
        return _sizes(build, of.of, [args[1]])[0]
    return None


def _of_tuple(build: Builder, target: Any, of: tuple[Any, ...], args: Sequence[Any]) -> Any:
    """What a call makes of sizes, or of several results."""
    if target is getattr:
        return getattr(of, args[0])
    if target is operator.mul or (target is operator.add and isinstance(args[0], tuple)):
        return target(of, *args)
    if target == "numel":
        multiplied = lowers.of_function(operator.mul)
        assert multiplied is not None
        return reduce(partial(multiplied, build), of, 1)
    return None


def _sizes(build: Builder, of: Value, axes: Iterable[int]) -> tuple[Value, ...]:
    return tuple(build("qir.AxisSize", of, axis=axis) for axis in axes)
