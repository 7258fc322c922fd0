"""The symbolic inputs of a Keras model."""

from __future__ import annotations

from typing import Any

import keras

from qir.errors import QirError


def inputs_of(model: keras.Model, given: Any = None) -> Any:
    """A nest of new symbolic tensors like the inputs of the model, or like those given for one that says none.

    A subclassed model says the shapes with which it was built; all but the size of the batch are kept. Raises QirError
    for a model that was never called.
    """
    if isinstance(model, keras.Sequential) and model.built:
        return keras.tree.map_structure(like, model.inputs[0] if len(model.inputs) == 1 else model.inputs)
    if (own := getattr(model, "input", None)) is not None:
        return keras.tree.map_structure(like, own)
    if given is not None:
        return keras.tree.map_structure(like, given)
    shapes = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if shapes is None:
        raise QirError(
            f"nothing says what the inputs of {type(model).__name__} are", stage="import",
            help="call the model on data once, or give input_layer=keras.Input(shape, dtype=…), without the batch size"
            "; for several inputs, a list or dict of them",
        )  # fmt: skip
    if isinstance(shapes, dict):
        return {name: keras.KerasTensor((None, *shape[1:]), name=name) for name, shape in shapes.items()}
    return keras.tree.map_shape_structure(lambda shape: keras.KerasTensor((None, *shape[1:])), shapes)


def like(tensor: Any) -> keras.KerasTensor:
    """A new symbolic tensor of the same name, shape and dtype as this tensor, or input layer."""
    tensor = tensor.output if isinstance(tensor, keras.layers.InputLayer) else tensor
    return keras.KerasTensor(tensor.shape, tensor.dtype, tensor.sparse, name=tensor.name)


def described_input(tensor: keras.KerasTensor) -> dict[str, Any]:
    """The keywords of `keras.Input` that make such an input; the name is None where nobody gave one."""
    name = None if tensor.name.startswith("keras_tensor") else tensor.name
    return {"batch_shape": tensor.shape, "dtype": tensor.dtype, "name": name, "sparse": tensor.sparse}
