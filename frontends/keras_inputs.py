"""The symbolic inputs of a Keras model."""

from __future__ import annotations

from typing import Any

import keras


def inputs_of(model: keras.Model) -> Any:
    """A nest of new symbolic tensors like the inputs of a Functional or Sequential model."""
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(like, inputs)


def like(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """A new symbolic tensor of the same name, shape and dtype."""
    return keras.KerasTensor(tensor.shape, tensor.dtype, tensor.sparse, name=tensor.name)
