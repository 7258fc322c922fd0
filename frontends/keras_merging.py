"""Lowerings of Keras's layers that merge several tensors."""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_letters
from typing import Any

import keras
import numpy as np
from keras import layers

from qir.frontends.keras_dtypes import agreed
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_ops import named
from qir.frontends.keras_reductions import reduced
from qir.graph import Value


def _merged(name: str, kind: Any, fold: Callable[[KerasBuilder, Any, Any], Value]) -> None:
    def lowering(build: KerasBuilder, inputs: Any) -> Value:
        made, *others = _of_one_rank(build, inputs)
        for other in others:
            made = fold(build, made, other)
        return made

    named(name, kind)(lowering)


def _of_one_rank(build: KerasBuilder, inputs: Any) -> list[Value]:
    """The tensors, those with fewer axes given new ones behind the first."""
    most = max(map(rank_of, inputs))
    return [x if rank_of(x) == most else build("Unsqueeze", x, build.indices(range(1, 1 + most - rank_of(x))))
            for x in inputs]  # fmt: skip


def _of(op: str) -> Callable[[KerasBuilder, Any, Any], Value]:
    return lambda build, a, b: build(op, a, b)


for _name, _kind, _op in (("add_layer", layers.Add, "Add"), ("subtract_layer", layers.Subtract, "Sub"),
                          ("multiply_layer", layers.Multiply, "Mul"), ("maximum_layer", layers.Maximum, "Max"),
                          ("minimum_layer", layers.Minimum, "Min")):  # fmt: skip
    _merged(_name, _kind, _of(_op))


@lowers(layers.Average)
def average_layer(build: KerasBuilder, inputs: Any) -> Value:
    """The sum over the number of tensors."""
    made, *others = _of_one_rank(build, inputs)
    for other in others:
        made = build("Add", made, other)
    return build("Div", made, float(len(inputs)))


@lowers(layers.Concatenate)
def concatenate_layer(build: KerasBuilder, inputs: Any, axis: int) -> Value:
    """Concat."""
    return build("Concat", *agreed(build, *inputs), axis=axis)


@lowers(layers.Dot)
def dot_layer(build: KerasBuilder, inputs: Any, axes: Any, normalize: bool) -> Value:
    """Einsum over an axis of each, sample by sample."""
    a, b = inputs
    places = [axes % rank_of(a), axes % rank_of(b)] if isinstance(axes, int) else \
        [place % rank_of(x) for place, x in zip(axes, inputs, strict=True)]  # fmt: skip
    if normalize:
        a, b = (_unit(build, x, place) for x, place in zip(inputs, places, strict=True))
    letters = iter(ascii_letters[2:])
    names = [["a", *(next(letters) for _ in range(rank_of(x) - 1))] for x in (a, b)]
    for name, place in zip(names, places, strict=True):
        name[place] = "b"
    left = [letter for name in names for letter in name[1:] if letter != "b"]
    made = build("Einsum", a, b, equation=f"{''.join(names[0])},{''.join(names[1])}->a{''.join(left)}")
    return made if left else build("Unsqueeze", made, build.indices([1]))


def _unit(build: KerasBuilder, x: Value, axis: int) -> Value:
    squares = reduced(build, "ReduceSum", build("Mul", x, x), axis, True)
    return build("Mul", x, build("qir.Rsqrt", build("Max", squares, np.array(keras.config.epsilon() ** 2, np.float32))))
