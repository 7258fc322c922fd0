"""Lowerings of Keras's layers with weights."""

from __future__ import annotations

from typing import Any

import keras

from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import known


@lowers(keras.layers.Dense)
def dense(build: KerasBuilder, inputs: Value, kernel: Any, bias: Any, activation: Any) -> Value:
    """qir.Linear."""
    known(activation is keras.activations.linear, "its activation")
    return build("qir.Linear", inputs, build.kernel(kernel, (1, 0)), bias)
