"""Lowerings of the functions of `keras.ops` that compare an output with its target."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from qir.frontends.keras_dtypes import agreed, cast, floating
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_reductions import reduced
from qir.frontends.keras_shapes import size_of
from qir.graph import Value
from qir.lowering import known


@lowers(ops.binary_crossentropy)
def binary_crossentropy(build: KerasBuilder, target: Any, output: Any, from_logits: bool = False) -> Value:
    """-(target * log(output) + (1 - target) * log(1 - output)), output kept off 0 and 1."""
    wanted, found = agreed(build, target, output)
    found = build("Sigmoid", found) if from_logits else found
    least = keras.config.epsilon()
    found = build("Clip", found, float(least), float(1 - least))
    hit = build("Mul", wanted, build("Log", found))
    miss = build("Mul", build("Sub", 1.0, wanted), build("Log", build("Sub", 1.0, found)))
    return build("Neg", build("Add", hit, miss))


def _log_chances(build: KerasBuilder, output: Value, from_logits: bool, axis: int) -> Value:
    """The logarithms of the chances of classes, kept off 0 and 1."""
    if from_logits:
        return build("LogSoftmax", output, axis=axis)
    least = keras.config.epsilon()
    shares = build("Div", output, reduced(build, "ReduceSum", output, axis, True))
    return build("Log", build("Clip", shares, float(least), float(1 - least)))


@lowers(ops.categorical_crossentropy)
def categorical_crossentropy(build: KerasBuilder, target: Any, output: Any, from_logits: bool = False,
                             axis: int = -1) -> Value:  # fmt: skip
    """The negative sum of the target times the logarithms of the chances."""
    wanted, found = agreed(build, target, output)
    products = build("Mul", wanted, _log_chances(build, found, from_logits, axis))
    return build("Neg", reduced(build, "ReduceSum", products, axis, False))


@lowers(ops.sparse_categorical_crossentropy)
def sparse_categorical_crossentropy(build: KerasBuilder, target: Any, output: Any, from_logits: bool = False,
                                    axis: int = -1) -> Value:  # fmt: skip
    """The negative logarithm of the chance of the target."""
    found = floating(build, output)
    places = cast(build, target, "int64")
    if rank_of(places) == rank_of(found) and size_of(places, axis) == 1:
        places = build("Squeeze", places, build.indices([axis % rank_of(found)]))
    known(rank_of(places) == rank_of(found) - 1, "a target of another rank")
    chances = _log_chances(build, found, from_logits, axis)
    place = axis % rank_of(found)
    picked = build("GatherElements", chances, build("Unsqueeze", places, build.indices([place])), axis=place)
    return build("Neg", build("Squeeze", picked, build.indices([place])))
