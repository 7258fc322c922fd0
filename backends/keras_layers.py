"""Layers of emitted Keras models that Keras itself does not have. They save and load as any registered layer."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import keras

from qir.attributes import Port
from qir.backends.keras_operators import COMPUTED
from qir.nests import map_nested


@dataclass(frozen=True)
class Number:
    """A whole number in the arguments of a call, computed from the sizes of its operands."""

    op: str
    operands: tuple[Any, ...]

    def value(self, tensors: Sequence[Any]) -> Any:
        """The number, for these operands of the call."""
        if self.op == "qir.AxisSize":
            port, axis = self.operands
            return keras.ops.shape(tensors[port.index])[axis]
        return _ARITHMETIC[self.op](*(each.value(tensors) if isinstance(each, Number) else each
                                      for each in self.operands))  # fmt: skip


_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "qir.FloorDivide": operator.floordiv,
}  # fmt: skip


@keras.saving.register_keras_serializable("qir")
class FunctionLayer(keras.Layer):  # type: ignore[misc]
    """A function of `keras.ops`, or an operator of ONNX in such functions, as a layer.

    The inputs and then the weights stand in the places `Port(0)`, `Port(1)`, … of `args` and `kwargs`. A weight is
    described by the keywords of `add_weight`, or is number `index` of the variables of another layer. `outputs` are the
    shapes and dtypes of what the function returns, where they are known.
    """

    def __init__(
        self,
        function: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        weights: Sequence[Mapping[str, Any]] = (),
        outputs: Sequence[tuple[Sequence[int | None], str]] = (),
        **config: Any,
    ) -> None:
        super().__init__(**{**config, "autocast": False})
        self.function, self.args, self.named, self.described = function, list(args), dict(kwargs or {}), list(weights)
        self.outputs = list(outputs)
        self.owners = [each["owner"] for each in self.described if "owner" in each]
        self.own: list[keras.Variable] = []
        self.supports_masking = True

    def build(self, input_shape: Any = None) -> None:
        """Create the weights that are its own."""
        self.own = [self.add_weight(**each) for each in self.described if "owner" not in each]

    def call(self, inputs: Any) -> Any:
        """The function's result on the inputs."""
        operands = [*keras.tree.flatten(inputs), *self._values()]

        def filled(leaf: Any) -> Any:
            if isinstance(leaf, Number):
                return leaf.value(operands)
            return operands[leaf.index] if isinstance(leaf, Port) else leaf

        args, kwargs = map_nested(self.args, filled), map_nested(self.named, filled)
        return function_named(self.function)(*args, **kwargs)

    def _values(self) -> list[Any]:
        own = iter(self.own)
        return [each["owner"].variables[each["index"]] if "owner" in each else next(own) for each in self.described]

    def compute_output_spec(self, inputs: Any) -> Any:
        """The symbolic results."""
        if not self.outputs:
            return super().compute_output_spec(inputs)
        results = [keras.KerasTensor(shape, dtype) for shape, dtype in self.outputs]
        return results[0] if len(results) == 1 else results

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Nothing: a function's result has no mask."""

    def get_config(self) -> dict[str, Any]:
        """What the layer is made from."""
        outputs = [(tuple(shape), dtype) for shape, dtype in self.outputs]
        weights = [{**each, "owner": _shared(each["owner"])} if "owner" in each else each for each in self.described]
        return {
            **super().get_config(),
            "function": self.function,
            "args": keras.saving.serialize_keras_object(_written(self.args)),
            "kwargs": keras.saving.serialize_keras_object(_written(self.named)),
            "weights": keras.saving.serialize_keras_object(weights),
            "outputs": outputs,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FunctionLayer:
        """The layer that this is the configuration of."""
        parts = {name: keras.saving.deserialize_keras_object(config[name]) for name in ("args", "kwargs", "weights")}
        return cls(**{**config, **parts, "args": _read(parts["args"]), "kwargs": _read(parts["kwargs"])})


@keras.saving.register_keras_serializable("qir")
class SharedLayer(keras.Layer):  # type: ignore[misc]
    """A call of another layer, with the same weights; always in one mode, where `mode` says whether it is training."""

    def __init__(self, layer: keras.Layer, mode: bool | None = None, **config: Any) -> None:
        super().__init__(**{**config, "autocast": False})
        self.layer, self.mode = layer, mode
        self.supports_masking = layer.supports_masking

    def call(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The result of the other layer."""
        mode = {} if self.mode is None else {"training": self.mode}
        return self.layer(inputs, *args, **kwargs, **mode)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The other layer's."""
        return self.layer.compute_mask(inputs, previous_mask)

    def get_config(self) -> dict[str, Any]:
        """What the layer is made from."""
        return {**super().get_config(), "layer": _shared(self.layer), "mode": self.mode}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SharedLayer:
        """The layer that this is the configuration of."""
        return cls(**{**config, "layer": keras.saving.deserialize_keras_object(config["layer"])})


@keras.saving.register_keras_serializable("qir")
class ChoiceLayer(keras.Layer):  # type: ignore[misc]
    """The first of two tensors in inference, the second in training."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**{**config, "autocast": False})
        self.supports_masking = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """One of the two."""
        return inputs[1] if training else inputs[0]

    def compute_mask(self, inputs: Any, previous_mask: Any) -> None:
        """Nothing: a computed tensor has no mask."""


def function_named(name: str) -> Callable[..., Any]:
    """The function of Keras with this dotted name, such as `ops.matmul`, or an operator's, such as `onnx.Conv`."""
    if name.startswith("onnx."):
        return COMPUTED[name.removeprefix("onnx.")]
    function: Callable[..., Any] = reduce(getattr, name.split("."), keras)
    return function


def _shared(layer: keras.Layer) -> dict[str, Any]:
    """The configuration of a layer that is in the model on its own too.

    Keras marks the second place where it meets an object, and forgets the first where that lies within another layer.
    """
    return {**keras.saving.serialize_keras_object(layer), "shared_object_id": id(layer)}


def _written(template: Any) -> Any:
    """A template as configurations of layers hold it: JSON knows neither ports nor tuples."""
    match template:
        case Port(index):
            return {"port": index}
        case Number(op, operands):
            return {"number": op, "of": list(map(_written, operands))}
        case slice():
            return {"slice": list(map(_written, (template.start, template.stop, template.step)))}
        case tuple():
            return {"tuple": list(map(_written, template))}
        case list():
            return list(map(_written, template))
        case dict():
            return {key: _written(item) for key, item in template.items()}
    return template


def _read(template: Any) -> Any:
    """The template that a configuration holds."""
    match template:
        case {"port": int(index)}:
            return Port(index)
        case {"number": str(op), "of": [*operands]}:
            return Number(op, tuple(map(_read, operands)))
        case {"slice": [start, stop, step]}:
            return slice(_read(start), _read(stop), _read(step))
        case {"tuple": [*items]}:
            return tuple(map(_read, items))
        case list():
            return list(map(_read, template))
        case dict():
            return {key: _read(item) for key, item in template.items()}
    return template
