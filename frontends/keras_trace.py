"""Running a Keras model on symbolic tensors, and the flat list of calls that it makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from qir.errors import Loc
from qir.frontends.keras_errors import drawn, followed, foreign_variable, value_read
from qir.frontends.keras_inputs import Inputs
from qir.frontends.keras_lines import location
from qir.frontends.keras_loops import followed_loops
from qir.frontends.keras_names import KerasNames
from qir.frontends.keras_patches import Attributes, casts_itself, layers_in, recording, stored_dtype
from qir.frontends.keras_sizes import Size, holds_size, result_of

Whole = Callable[[keras.Layer], bool]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer that stays whole, or of an operation of `keras.ops`.

    Tensors in the nests of arguments and outputs are `KerasTensor`s. `module` is the path of the layer, empty for an
    operation; `loc` the user's line, and the path of the layer whose code it is.
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
    held: dict[int, Any]
    """The variable or array that a symbolic tensor stands for, by the tensor's identity."""


def is_keras_own(layer: keras.Layer) -> bool:
    """Whether `call` is Keras's own code, and neither a model nor a function of the user's runs in it."""
    home = type(layer).call.__module__ or ""
    return home.startswith("keras.") and not isinstance(layer, keras.Model | keras.layers.Lambda)


def trace(
    model: keras.Layer,
    inputs: Inputs,
    whole: Whole = is_keras_own,
    training: bool = False,
    names: KerasNames | None = None,
) -> Trace:
    """The calls that the model makes on the inputs; it is built first, if need be.

    A layer of which `whole` is true is one call, others are opened. `names` are those of another trace. Raises
    QirError, showing the user's line, where the model's code can not be followed.
    """
    recorder = _Recorder(names or KerasNames(model), whole)
    with followed(model):
        if any(not layer.built for layer in layers_in(model)):
            inputs.call(model, inputs.nest)
        layers = layers_in(model)
        recorder.owned = {id(variable) for variable in model.variables}
        with recording(recorder), recorder.attributes.replaced(layers):
            outputs = inputs.call(model, inputs.nest, training=training)
    return Trace(inputs.nest, outputs, recorder.calls, recorder.names, recorder.held)


def indices_among(traced: Trace) -> set[int]:
    """The identities of the inputs that nothing reads but embeddings and casts to integers."""
    found = {id(tensor) for tensor in keras.tree.flatten(traced.inputs)}
    for call in traced.calls:
        to = getattr(call.operation, "dtype", "") if type(call.operation).__name__ in _CONVERSIONS else ""
        if not isinstance(call.operation, keras.layers.Embedding) and "int" not in to:
            found -= {id(tensor) for tensor in keras.tree.flatten((call.args, call.kwargs))}
    return found


def opened(call: Call, names: KerasNames) -> Trace:
    """The calls that the code of a layer or operation makes for one call of it, all at the line of that call."""
    code = call.operation
    layers = layers_in(code) if isinstance(code, keras.Layer) else []
    recorder = _Recorder(names, is_keras_own, loc=call.loc)
    with recording(recorder), recorder.attributes.replaced(layers), followed_loops():
        run = recorder.inside if layers else _run
        outputs = run(code, call.args, call.kwargs)
    return Trace((call.args, call.kwargs), outputs, recorder.calls, names, recorder.held)


def _run(operation: keras.Operation, args: Any, kwargs: Any) -> Any:
    return operation.call(*args, **kwargs)


_CONVERSIONS = ("Cast", "ConvertToTensor")
"""Operations that do nothing to a tensor of their dtype."""


@dataclass
class _Recorder:
    """Notes calls while a model runs."""

    names: KerasNames
    whole: Whole
    calls: list[Call] = field(default_factory=list)
    held: dict[int, Any] = field(default_factory=dict)
    of_variable: dict[int, keras.KerasTensor] = field(default_factory=dict)
    met: dict[int, keras.KerasTensor] = field(default_factory=dict)
    """The tensors so far, kept alive."""
    opened: list[keras.Layer] = field(default_factory=list)
    owned: set[int] | None = None
    """The identities of the model's variables, where all must be among them."""
    loc: Loc | None = None
    """Where the user wrote all calls, where that is known before."""
    inferring: bool = False
    """Whether Keras computes a shape, for which it may call layers and operations too."""

    def __post_init__(self) -> None:
        self.attributes = Attributes(self._symbolic)

    # -- what happens in place of calls --------------------------------------------------------------------------------

    def operation(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        """The result of a symbolic call of an operation."""
        if self.inferring:
            return operation.compute_output_spec(*args, **kwargs)
        if type(operation).__name__ in _CONVERSIONS and args[0].dtype == vars(operation)["dtype"]:
            return args[0]
        if type(operation).__name__ == "Cond":
            return self._both(*args, **kwargs)
        return self._note(operation, args, kwargs, "")

    def layer(self, layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        """The result of a symbolic call of a layer: as one call, or as the calls that it makes."""
        if self.inferring:
            return layer.compute_output_spec(*args, **kwargs)
        path = self.names.of_layer(layer, self.scope)
        if self.whole(layer):
            for variable in layer.variables:
                self.names.of_variable(variable, layer)
            return self._note(layer, args, kwargs, path)
        return self.inside(layer, args, kwargs)

    def inside(self, layer: keras.Layer, args: Any, kwargs: Any) -> Any:
        """The result of the layer's own code."""
        self.attributes.replace([layer])
        self.opened.append(layer)
        try:
            with self._in_its_dtype(layer):
                return layer.call(*args, **kwargs)
        finally:
            self.opened.pop()

    def symbolic(self, argument: Any) -> Any:
        """A symbolic tensor in the place of a concrete one."""
        if isinstance(argument, keras.Variable):
            if self.owned is not None and id(argument) not in self.owned:
                raise foreign_variable(argument, self.opened[-1])
            return self._symbolic(argument)
        if not (isinstance(argument, np.ndarray) or keras.ops.is_tensor(argument)):
            return argument
        return self._standing_for(np.asarray(keras.ops.convert_to_numpy(argument)), "constant")

    def value_read(self, variable: keras.Variable) -> None:
        """Refuse to compute with the value of a variable, which would then be no variable any more."""
        if self.inferring:
            return
        foreign = self.owned is not None and id(variable) not in self.owned
        raise foreign_variable(variable, self.opened[-1]) if foreign and self.opened else value_read(variable)

    def drawn(self) -> None:
        """Refuse random numbers that are drawn outside of a layer."""
        if not self.inferring:
            raise drawn(self.opened[-1])

    # -- how calls are noted -------------------------------------------------------------------------------------------

    @property
    def scope(self) -> str:
        """The path of the layer whose code runs."""
        return self.names.paths[id(self.opened[-1])] if self.opened else ""

    def _note(self, operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any], module: str) -> Any:
        if module == "":
            args, kwargs = keras.tree.map_structure(self.symbolic, (args, kwargs))
        loc = self.loc or location(trace.__code__, self.scope)
        with self._shapes(operation):
            inferred = self._inferred(operation, args, kwargs)
        outputs = keras.tree.map_structure(self._new, inferred)
        self.calls.append(Call(operation, args, kwargs, outputs, module, loc))
        return outputs

    def _inferred(self, operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Symbolic results of the call."""
        attributes = () if isinstance(operation, keras.Layer) else vars(operation).values()
        if any(map(holds_size, (*attributes, *args[1:]))):
            if (result := result_of(operation, args)) is not None:
                return result
        return operation.compute_output_spec(*args, **kwargs)

    def _new(self, tensor: Any) -> Any:
        """The tensor, or another like it where it is known already."""
        if id(tensor) in self.met or isinstance(tensor, Size):
            tensor = keras.KerasTensor(tensor.shape, tensor.dtype, tensor.sparse)
        self.met[id(tensor)] = tensor
        return tensor

    def _symbolic(self, variable: keras.Variable) -> keras.KerasTensor:
        if id(variable) not in self.of_variable:
            self.of_variable[id(variable)] = self._standing_for(variable, variable.name)
        return self.of_variable[id(variable)]

    def _standing_for(self, data: Any, name: str) -> keras.KerasTensor:
        dtype = stored_dtype(data) if isinstance(data, keras.Variable) else str(data.dtype)
        tensor = keras.KerasTensor(data.shape, dtype, name=name)
        self.held[id(tensor)] = data
        self.met[id(tensor)] = tensor
        return tensor

    def _both(self, pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
        """Both branches of `ops.cond`, and the choice between them."""
        return keras.tree.map_structure(lambda yes, no: keras.ops.where(pred, yes, no), true_fn(), false_fn())

    @contextmanager
    def _in_its_dtype(self, layer: keras.Layer) -> Iterator[None]:
        """Inside, the layer's own variables are cast to the dtype in which it computes."""
        cast = {name: vars(layer)[name] for name in self.attributes.real[id(layer)]}
        vars(layer).update({name: keras.tree.map_structure(lambda part: self._cast(part, layer), value)
                            for name, value in cast.items()})  # fmt: skip
        try:
            yield
        finally:
            vars(layer).update(cast)

    def _cast(self, part: Any, layer: keras.Layer) -> Any:
        variable = self.held.get(id(part))
        if not isinstance(variable, keras.Variable):
            return part
        self.names.of_variable(variable, layer)
        is_float = keras.backend.is_float_dtype(part.dtype)
        differs = is_float and casts_itself(variable) and layer.autocast and layer.compute_dtype != part.dtype
        return keras.ops.cast(part, layer.compute_dtype) if differs else part

    @contextmanager
    def _shapes(self, operation: keras.Operation) -> Iterator[None]:
        layers = layers_in(operation) if isinstance(operation, keras.Layer) else []
        self.inferring = True
        try:
            with self.attributes.as_before(layers):
                yield
        finally:
            self.inferring = False
