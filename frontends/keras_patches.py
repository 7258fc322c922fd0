"""What Keras does otherwise while a model is traced.

This is the one file that reaches into what Keras keeps to itself: recording a call instead of noting it in the layers
has no public switch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import keras
from keras.src.layers import layer as layer_module

from qir.frontends.keras_lines import is_a_layers, is_users
from qir.frontends.keras_sizes import with_sizes

_MISSING = object()
_LISTS = ("_trainable_variables", "_non_trainable_variables", "_metrics", "_tracker", "_layers")
"""Where a layer notes what it holds beside the attributes."""

_VARIABLES = ("variables", "weights", "trainable_variables", "trainable_weights", "non_trainable_variables",
              "non_trainable_weights")  # fmt: skip
"""The properties that list variables."""


class Recorder(Protocol):
    """What hears of calls while a model is traced."""

    inferring: bool

    def operation(self, operation: keras.Operation, *args: Any, **kwargs: Any) -> Any:
        """In place of a symbolic call of an operation."""

    def layer(self, layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        """In place of a symbolic call of a layer."""

    def symbolic(self, argument: Any) -> Any:
        """What a layer is given in place of an argument."""

    def value_read(self, variable: keras.Variable) -> None:
        """Before the value of a variable is read."""

    def drawn(self) -> None:
        """Before a random number is drawn."""


@contextmanager
def replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Inside, the attribute of `holder` is `value`."""
    before = vars(holder).get(name, _MISSING)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if before is _MISSING:
            delattr(holder, name)
        else:
            setattr(holder, name, before)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Inside, symbolic calls of operations and layers go to the recorder, and leave no trace in the model.

    A layer is given symbolic tensors in the place of concrete ones, and the user's code sees a `Size` where a size is
    not known, and symbolic tensors where it asks a layer for its weights.
    """
    filtering = keras.config.is_traceback_filtering_enabled()
    call, shape = keras.Layer.__call__, keras.KerasTensor.shape
    value, draw = keras.Variable.value, keras.random.SeedGenerator.next

    def called(layer: keras.Layer, *args: Any, **kwargs: Any) -> Any:
        if not recorder.inferring:
            args, kwargs = keras.tree.map_structure(recorder.symbolic, (args, kwargs))
        return call(layer, *args, **kwargs)

    def seen(tensor: keras.KerasTensor) -> Any:
        known = shape.fget(tensor)
        code = sys._getframe(1).f_code
        asks = code is keras.ops.shape.__code__ or is_users(code.co_filename)
        return with_sizes(tensor, known) if asks and not recorder.inferring and None in known else known

    def read(variable: keras.Variable) -> Any:
        recorder.value_read(variable)
        return value.fget(variable)

    def next_seed(seed: keras.random.SeedGenerator, *args: Any, **kwargs: Any) -> Any:
        recorder.drawn()
        return draw(seed, *args, **kwargs)

    def held(name: str) -> property:
        listed = vars(keras.Layer)[name]

        def variables(layer: keras.Layer) -> Any:
            found = listed.fget(layer)
            asks = not recorder.inferring and is_a_layers(sys._getframe(1).f_code.co_filename)
            return [recorder.symbolic(variable) for variable in found] if asks else found

        return property(variables)

    with ExitStack() as stack:
        for name in _VARIABLES:
            stack.enter_context(replaced(keras.Layer, name, held(name)))
        for holder, name, new in (
            (keras.Operation, "symbolic_call", lambda operation, *a, **k: recorder.operation(operation, *a, **k)),
            (keras.Layer, "symbolic_call", lambda layer, *a, **k: recorder.layer(layer, *a, **k)),
            (keras.Layer, "__call__", called),
            (keras.KerasTensor, "shape", property(seen)),
            (keras.KerasTensor, "__array_ufunc__", None),
            (_variable_class(), "value", property(read)),
            (keras.random.SeedGenerator, "next", next_seed),
            (layer_module, "Node", lambda **described: None),
        ):
            stack.enter_context(replaced(holder, name, new))
        keras.config.disable_traceback_filtering()
        try:
            yield
        finally:
            if filtering:
                keras.config.enable_traceback_filtering()


def _variable_class() -> Any:
    """The class that has the property `value`: that of all backends, or the backend's own."""
    return next(kind for kind in keras.Variable.__mro__ if "value" in vars(kind))


def layers_in(layer: keras.Layer) -> list[keras.Layer]:
    """The layer and all that it holds, in attributes, lists and dicts, however deep."""
    return list(layer._flatten_layers())


def stored_dtype(variable: keras.Variable) -> str:
    """The dtype of a variable, also where a layer's code sees it in another."""
    dtype: str = keras.backend.standardize_dtype(variable._dtype)
    return dtype


def casts_itself(variable: keras.Variable) -> bool:
    """Whether the code of a layer sees the variable in the dtype in which the layer computes."""
    return bool(variable._autocast)


class Attributes:
    """The attributes of layers that hold variables, also in lists and dicts, and what is there in their place."""

    def __init__(self, replacement: Callable[[keras.Variable], Any]) -> None:
        self.replacement = replacement
        self.real: dict[int, dict[str, Any]] = {}

    def replace(self, layers: Iterable[keras.Layer]) -> None:
        """Put the replacements in the place of the variables."""
        for layer in layers:
            if id(layer) in self.real:
                continue
            held = {name: value for name, value in vars(layer).items()
                    if name not in _LISTS and _holds_variables(value)}  # fmt: skip
            self.real[id(layer)] = held
            vars(layer).update({name: _mapped(value, self.replacement) for name, value in held.items()})

    def restore(self, layers: Iterable[keras.Layer]) -> None:
        """Put the variables back."""
        for layer in layers:
            vars(layer).update(self.real.pop(id(layer), {}))

    @contextmanager
    def replaced(self, layers: list[keras.Layer]) -> Iterator[None]:
        """Inside, the layers have the replacements."""
        self.replace(layers)
        try:
            yield
        finally:
            self.restore(layers)

    @contextmanager
    def as_before(self, layers: list[keras.Layer]) -> Iterator[None]:
        """Inside, the layers have their variables."""
        seen: Mapping[int, dict[str, Any]] = {
            id(layer): {name: vars(layer)[name] for name in self.real.get(id(layer), ())} for layer in layers
        }
        for layer in layers:
            vars(layer).update(self.real.get(id(layer), {}))
        try:
            yield
        finally:
            for layer in layers:
                vars(layer).update(seen[id(layer)])


def _holds_variables(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_variables, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_holds_variables, value))
    return isinstance(value, keras.Variable)


def _mapped(value: Any, replacement: Callable[[keras.Variable], Any]) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(item, replacement) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_mapped(item, replacement) for item in value))
    if isinstance(value, list | tuple):
        kind = tuple if isinstance(value, tuple) else list
        return kind(_mapped(item, replacement) for item in value)
    return replacement(value) if isinstance(value, keras.Variable) else value
