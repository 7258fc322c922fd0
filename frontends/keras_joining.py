"""Lowerings of the functions of `keras.ops` that join tensors and take them apart."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from keras import ops

from qir.frontends.keras_dtypes import agreed, tensor
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_ops import named
from qir.frontends.keras_shapes import ravel, size_of
from qir.graph import Value
from qir.lowering import known


@lowers(ops.concatenate)
def concatenate(build: KerasBuilder, xs: Any, axis: Any = 0) -> Value:
    """Concat."""
    if axis is None:
        return build("Concat", *(ravel(build, x) for x in agreed(build, *xs)), axis=0)
    return build("Concat", *agreed(build, *xs), axis=axis)


@lowers(ops.append)
def append(build: KerasBuilder, x1: Any, x2: Any, axis: Any = None) -> Value:
    """Concat."""
    return concatenate(build, [x1, x2], axis)  # type: ignore[no-any-return]


@lowers(ops.stack)
def stack(build: KerasBuilder, x: Any, axis: int = 0) -> Value:
    """Concat of tensors with a new axis."""
    values = agreed(build, *x)
    place = axis % (rank_of(values[0]) + 1)
    return build("Concat", *(build("Unsqueeze", value, build.indices([place])) for value in values), axis=place)


def _stacks(name: str, at_least: int, axis: int) -> None:
    def lowering(build: KerasBuilder, xs: Any) -> Value:
        values = [_with_rank(build, value, at_least) for value in agreed(build, *xs)]
        along = 0 if name == "hstack" and rank_of(values[0]) == 1 else axis
        return build("Concat", *values, axis=along)

    named(name, getattr(ops, name))(lowering)


def _with_rank(build: KerasBuilder, x: Value, rank: int) -> Value:
    """The tensor with so many axes at least, as numpy's `atleast_1d`, `atleast_2d` and `atleast_3d` give them."""
    have = rank_of(x)
    if have >= rank:
        return x
    new = {(0, 1): [0], (0, 2): [0, 1], (1, 2): [0], (0, 3): [0, 1, 2], (1, 3): [0, 2], (2, 3): [2]}[have, rank]
    return build("Unsqueeze", x, build.indices(new))


for _name, _rank, _axis in (("hstack", 1, 1), ("vstack", 2, 0), ("dstack", 3, 2)):
    _stacks(_name, _rank, _axis)


def parts_of(build: KerasBuilder, x: Value, sections: Any, axis: int) -> list[Value]:
    """The results of a Split into equal parts, or at these places."""
    size = size_of(x, axis)
    if isinstance(sections, int):
        sizes = [size // sections + (part < size % sections) for part in range(sections)]
    else:
        limits = [0, *(min(place % size if place < 0 else place, size) for place in sections), size]
        sizes = [end - start for start, end in pairwise(limits)]
    known(min(sizes) > 0, "parts without elements")
    if len(sizes) == 1:
        return [build("Identity", x)]
    return build.several("Split", len(sizes), x, build.indices(sizes), axis=axis)


@lowers(ops.split, ops.array_split)
def split(build: KerasBuilder, x: Any, indices_or_sections: Any, axis: int = 0) -> list[Value]:
    """Split."""
    return parts_of(build, tensor(build, x), indices_or_sections, axis)


def _splits(name: str, axis: int) -> None:
    def lowering(build: KerasBuilder, x: Any, indices_or_sections: Any) -> list[Value]:
        value = tensor(build, x)
        return parts_of(build, value, indices_or_sections, min(axis, rank_of(value) - 1))

    named(name, getattr(ops, name))(lowering)


for _name, _axis in (("hsplit", 1), ("vsplit", 0), ("dsplit", 2)):
    _splits(_name, _axis)


@lowers(ops.unstack)
def unstack(build: KerasBuilder, x: Any, num: Any = None, axis: int = 0) -> list[Value]:
    """Split into parts of one element, without their axis."""
    value = tensor(build, x)
    count, place = size_of(value, axis), axis % rank_of(value)
    return [build("Squeeze", part, build.indices([place])) for part in parts_of(build, value, count, place)]
