"""Lowerings of Keras's preprocessing layers that are arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers

from qir.frontends.keras_creation import standard
from qir.frontends.keras_dtypes import cast, tensor
from qir.frontends.keras_indexing import digitize, multi_hot, one_hot
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_shapes import size_of
from qir.graph import Value
from qir.lowering import known


def _encoded(build: KerasBuilder, x: Value, mode: str, depth: int, dtype: Any, weights: Any = None) -> Value:
    """Whole numbers as rows with a place for each: 1 where it is there, or how often it is."""
    if mode == "one_hot":
        if rank_of(x) > 1 and size_of(x, -1) == 1:
            x = build("Squeeze", x, build.indices([rank_of(x) - 1]))
        return one_hot(build, x, depth, dtype=dtype)  # type: ignore[no-any-return]
    if mode == "multi_hot":
        return multi_hot(build, x, depth, dtype=dtype)  # type: ignore[no-any-return]
    known(mode == "count", f"output_mode={mode!r}")
    hits = one_hot(build, x, depth, dtype=dtype)
    if weights is not None:
        given = cast(build, weights, standard(dtype))
        hits = build("Mul", hits, build("Unsqueeze", given, build.indices([rank_of(given)])))
    return build("ReduceSum", hits, build.indices([1 if rank_of(x) > 1 else 0]), keepdims=0)


@lowers(layers.MixUp, layers.RandomColorDegeneration, layers.RandomGrayscale, layers.RandomHue,
        layers.RandomSaturation, layers.RandomSharpness)  # fmt: skip
def augmentation(build: KerasBuilder, data: Value, training: Any = None) -> Value:
    """Nothing: it changes images when training alone."""
    known(training is not True, "an augmentation that is always on")
    return build("Identity", data)


@lowers(layers.CategoryEncoding)
def category_encoding(build: KerasBuilder, inputs: Value, count_weights: Any = None, *, num_tokens: int,
                      output_mode: str, sparse: bool = False, compute_dtype: Any = None) -> Value:  # fmt: skip
    """Rows of zeros and ones, or of counts."""
    known(not sparse, "a sparse tensor")
    return _encoded(build, tensor(build, inputs), output_mode, num_tokens, compute_dtype, count_weights)


@lowers(layers.Discretization)
def discretization(build: KerasBuilder, inputs: Value, bin_boundaries: Any, output_mode: str, sparse: bool = False,
                   compute_dtype: Any = None) -> Value:  # fmt: skip
    """How many limits are at most x, as a number or as a row of zeros and ones."""
    known(not sparse and bin_boundaries is not None, "a sparse tensor, or limits that are not known yet")
    numbers: Value = digitize(build, inputs, np.asarray(bin_boundaries, np.float32))
    if output_mode == "int":
        return numbers
    return _encoded(build, numbers, output_mode, len(bin_boundaries) + 1, compute_dtype)
