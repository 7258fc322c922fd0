"""Running a Keras model on symbolic tensors, and the flat list of calls that it makes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras

from qir.errors import Loc
from qir.frontends.keras_lines import location
from qir.frontends.keras_names import KerasNames
from qir.frontends.keras_patches import own_variables, recording

Whole = Callable[[keras.Layer], bool]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer that stays whole, or of an operation of `keras.ops`.

    Tensors in the nests of arguments and outputs are `KerasTensor`s, `keras.Variable`s or concrete. `module` is the
    path of the layer, empty for an operation; `loc` the user's line, and the path of the layer whose code it is.
    """

    operation: keras.Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: Any
    module: str
    loc: Loc


@dataclass(frozen=True)
class Trace:
    """The calls of one run, in order, from `inputs` (a nest of symbolic tensors) to `outputs`."""

    inputs: Any
    outputs: Any
    calls: list[Call]
    names: KerasNames
    variables: dict[int, keras.Variable]
    """The variable that a symbolic tensor stands for, by the tensor's identity."""


_CONVERSIONS = ("Cast", "ConvertToTensor")
"""Operations that do nothing to a tensor of their dtype."""


def is_keras_own(layer: keras.Layer) -> bool:
    """Whether `call` is Keras's own code, and neither a model nor a function of the user's runs in it."""
    home = type(layer).call.__module__ or ""
    return home.startswith("keras.") and not isinstance(layer, keras.Model | keras.layers.Lambda)


def trace(model: keras.Layer, inputs: Any, whole: Whole = is_keras_own, training: bool = False) -> Trace:
    """The calls that the model makes on `inputs`. A layer of which `whole` is true is one call, others are opened."""
    recorder = _Recorder(KerasNames(model), whole)
    with recording(recorder.operation, recorder.layer):
        outputs = model(inputs, training=training)
    return Trace(inputs, outputs, recorder.calls, recorder.names, recorder.variables)


@dataclass
class _Recorder:
    """Notes calls while a model runs."""

    names: KerasNames
    whole: Whole
    calls: list[Call] = field(default_factory=list)
    variables: dict[int, keras.Variable] = field(default_factory=dict)
    met: dict[int, keras.KerasTensor] = field(default_factory=dict)
    """The results so far, kept alive."""
    scopes: list[str] = field(default_factory=list)
    inferring: bool = False
    """Whether Keras computes a shape, for which it may call layers and operations too."""

    def operation(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        """The result of a symbolic call of an operation."""
        if self.inferring:
            return operation.compute_output_spec(*args, **kwargs)
        return self._note(operation, args, kwargs, "")

    def layer(self, layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        """The result of a symbolic call of a layer: as one call, or as the calls that it makes."""
        if self.inferring:
            return layer.compute_output_spec(*args, **kwargs)
        path = self.names.of_layer(layer, self.scopes[-1] if self.scopes else "")
        if self.whole(layer):
            for variable in layer.variables:
                self.names.of_variable(variable, layer)
            return self._note(layer, args, kwargs, path)
        self.scopes.append(path)
        try:
            with own_variables(layer, lambda variable: self._symbolic(variable, layer)):
                return layer.call(*args, **kwargs)
        finally:
            self.scopes.pop()

    def _symbolic(self, variable: keras.Variable, layer: keras.Layer) -> keras.KerasTensor:
        """A symbolic tensor that stands for the variable, in the dtype in which the layer computes."""
        self.names.of_variable(variable, layer)
        tensor = keras.KerasTensor(variable.shape, variable.dtype, name=variable.name)
        self.variables[id(tensor)] = variable
        self.met[id(tensor)] = tensor
        is_float = keras.backend.is_float_dtype(variable.dtype)
        if is_float and variable.autocast and layer.autocast and layer.compute_dtype != variable.dtype:
            return keras.ops.cast(tensor, layer.compute_dtype)
        return tensor

    def _note(self, operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any], module: str) -> Any:
        if type(operation).__name__ in _CONVERSIONS and args[0].dtype == vars(operation)["dtype"]:
            return args[0]
        kwargs = {name: value for name, value in kwargs.items() if (name, value) != ("training", False)}
        with self._shapes():
            outputs = keras.tree.map_structure(self._new, operation.compute_output_spec(*args, **kwargs))
        loc = location(trace.__code__, self.scopes[-1] if self.scopes else "")
        self.calls.append(Call(operation, args, kwargs, outputs, module, loc))
        return outputs

    def _new(self, tensor: Any) -> Any:
        """The tensor, or another like it where it is the result of a call already."""
        if id(tensor) in self.met:
            tensor = keras.KerasTensor(tensor.shape, tensor.dtype, tensor.sparse)
        self.met[id(tensor)] = tensor
        return tensor

    @contextmanager
    def _shapes(self) -> Any:
        self.inferring = True
        try:
            yield
        finally:
            self.inferring = False
