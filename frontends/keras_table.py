"""The whole table of Keras lowerings."""

from __future__ import annotations

from qir.frontends import (  # noqa: F401  (they fill the table)
    keras_activations,
    keras_attention,
    keras_convolutions,
    keras_creation,
    keras_einops,
    keras_images,
    keras_indexing,
    keras_joining,
    keras_layers,
    keras_losses,
    keras_merging,
    keras_missing,
    keras_ops,
    keras_padding,
    keras_pooling,
    keras_preprocessing,
    keras_products,
    keras_recurrent,
    keras_reductions,
    keras_shapes,
)
from qir.frontends.keras_lowerings import lowers

__all__ = ["lowers"]
