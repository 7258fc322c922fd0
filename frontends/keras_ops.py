"""Lowerings of functions of `keras.ops`."""

from __future__ import annotations

from typing import Any

import keras

from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value


@lowers(keras.ops.add)
def add(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Add."""
    return build("Add", x1, x2)
