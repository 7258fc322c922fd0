"""The symbolic inputs of a Keras model."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import keras

from qir.errors import QirError


@dataclass(frozen=True)
class Inputs:
    """Symbolic inputs, and how `call` takes them: as one argument, or `spread` over several."""

    nest: Any
    spread: bool = False
    guessed: bool = False
    """Whether nothing says the dtypes."""

    def call(self, model: keras.Layer, nest: Any, **kwargs: Any) -> Any:
        """The model's result on a nest like the inputs."""
        if not self.spread:
            return model(nest, **kwargs)
        return model(**nest, **kwargs) if isinstance(nest, dict) else model(*nest, **kwargs)

    def with_indices(self, found: set[int]) -> Inputs:
        """The same with dtype int32 for the tensors of these identities."""

        def index(tensor: keras.KerasTensor) -> keras.KerasTensor:
            return keras.KerasTensor(tensor.shape, "int32", name=tensor.name) if id(tensor) in found else tensor

        return Inputs(keras.tree.map_structure(index, self.nest), self.spread)


def inputs_of(model: keras.Model, given: Any = None) -> Inputs:
    """New symbolic tensors like the inputs of the model, or like those `given` for one that says none.

    A subclassed model says the shapes with which it was built; all but the size of the batch are kept. Raises QirError
    for a model that was never called, and for given inputs that do not fit it.
    """
    own = _own(model)
    if own is None and given is None:
        raise QirError(
            f"nothing says what the inputs of {type(model).__name__} are", stage="import",
            help="call the model on data once, or give input_layer=keras.Input(shape, dtype=…), its shape without the "
            "size of the batch; for several inputs a list or a dict of them",
        )  # fmt: skip
    if own is None:
        return Inputs(keras.tree.map_structure(_like, given), _is_spread(model, given))
    if given is not None:
        _check(model, given, own.nest)
        return Inputs(keras.tree.map_structure(_like, given), own.spread)
    return own


def _own(model: keras.Model) -> Inputs | None:
    """What the model says of its inputs."""
    if isinstance(model, keras.Sequential):
        inputs = model.inputs if model.built else None
        return inputs and Inputs(keras.tree.map_structure(_like, inputs[0] if len(inputs) == 1 else inputs))
    if (inputs := getattr(model, "input", None)) is not None:
        return Inputs(keras.tree.map_structure(_like, inputs))
    built = (model.get_build_config() or {}) if model.built else {}
    if built.get("input_shape") is not None and len(_needed(model)) < 2:
        return Inputs(_of_shapes(built["input_shape"]), guessed=True)
    if "shapes_dict" in built:
        return Inputs({name.removesuffix("_shape"): _of_shapes(shape, name.removesuffix("_shape"))
                       for name, shape in built["shapes_dict"].items()}, spread=True, guessed=True)  # fmt: skip
    return None


def _of_shapes(shapes: Any, name: str | None = None) -> Any:
    if isinstance(shapes, dict):
        return {key: _of_shapes(shape, key) for key, shape in shapes.items()}
    if shapes and not isinstance(shapes[0], int | None):
        return type(shapes)(map(_of_shapes, shapes))
    return keras.KerasTensor((None, *shapes[1:]), name=name)


def _like(tensor: Any) -> keras.KerasTensor:
    """A new symbolic tensor of the same name, shape and dtype as this tensor, or input layer."""
    tensor = tensor.output if isinstance(tensor, keras.layers.InputLayer) else tensor
    if not isinstance(tensor, keras.KerasTensor):
        raise QirError(f"input_layer holds a {type(tensor).__name__}, which is no keras.Input", stage="import",
                       help="give keras.Input(shape, dtype=…), or a list or dict of them")  # fmt: skip
    return keras.KerasTensor(tensor.shape, tensor.dtype, tensor.sparse, name=tensor.name)


def _needed(model: keras.Model) -> list[str]:
    """The arguments of `call` that have no default."""
    return [parameter.name for parameter in _parameters(model) if parameter.default is Parameter.empty]


def _parameters(model: keras.Model) -> list[Parameter]:
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return [parameter for parameter in signature(model.call).parameters.values() if parameter.kind in kinds]


def _is_spread(model: keras.Model, given: Any) -> bool:
    """Whether `call` takes each of the given inputs as an argument of its own."""
    needed = _needed(model)
    if isinstance(given, dict):
        return len(given) > 1 and set(needed) <= set(given) <= {parameter.name for parameter in _parameters(model)}
    return isinstance(given, list | tuple) and len(needed) > 1


def _check(model: keras.Model, given: Any, own: Any) -> None:
    """Raise QirError where the given inputs can not be those of the model."""
    said, known = ([tuple(_like(tensor).shape) for tensor in keras.tree.flatten(nest)] for nest in (given, own))
    fits = len(said) == len(known) and all(
        len(one) == len(two) and all(a == b for a, b in zip(one[1:], two[1:], strict=True) if None not in (a, b))
        for one, two in zip(said, known, strict=True)
    )
    if not fits:
        raise QirError(
            f"input_layer has the shapes {_listed(said)}, and {type(model).__name__} takes {_listed(known)}",
            stage="import", help="leave input_layer out: the model says its inputs itself",
        )  # fmt: skip


def _listed(shapes: list[tuple[int | None, ...]]) -> str:
    return " and ".join(map(str, shapes)) or "nothing"


def described_input(tensor: keras.KerasTensor, number: int) -> dict[str, Any]:
    """The keywords of `keras.Input` that make such an input; one that nobody named is called by its number."""
    plain = "input" if number == 0 else f"input_{number}"
    name = plain if tensor.name.startswith("keras_tensor") else tensor.name
    return {"batch_shape": tensor.shape, "dtype": tensor.dtype, "name": name, "sparse": tensor.sparse}
