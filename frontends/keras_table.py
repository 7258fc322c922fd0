"""The whole table of Keras lowerings."""

from __future__ import annotations

from qir.frontends import keras_layers, keras_ops  # noqa: F401  (they fill the table)
from qir.frontends.keras_lowerings import lowers

__all__ = ["lowers"]
