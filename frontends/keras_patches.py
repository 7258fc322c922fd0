"""What Keras does otherwise while a model is traced.

This is the one file that reaches into `keras.src`: recording a call keeps Keras from noting it in the layers, which
has no public switch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from keras.src.layers import layer as layer_module

_MISSING = object()


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
def recording(operation: Callable[..., Any], layer: Callable[..., Any]) -> Iterator[None]:
    """Inside, symbolic calls of operations and of layers go to these functions, and leave no trace in the model."""
    filtering = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    with ExitStack() as stack:
        stack.enter_context(replaced(keras.Operation, "symbolic_call", lambda *a, **k: operation(*a, **k)))
        stack.enter_context(replaced(keras.Layer, "symbolic_call", lambda *a, **k: layer(*a, **k)))
        stack.enter_context(replaced(layer_module, "Node", lambda **described: None))
        stack.enter_context(replaced(keras.KerasTensor, "__array_ufunc__", None))
        try:
            yield
        finally:
            if filtering:
                keras.config.enable_traceback_filtering()


@contextmanager
def own_variables(layer: keras.Layer, replacement: Callable[[keras.Variable], Any]) -> Iterator[None]:
    """Inside, the variables among the layer's attributes, also in lists and dicts, are what replaces them."""
    attributes = vars(layer)
    changed = {}
    for name, value in list(attributes.items()):
        if name not in ("_trainable_variables", "_non_trainable_variables") and _holds_variables(value):
            changed[name] = value
            attributes[name] = _mapped(value, replacement)
    try:
        yield
    finally:
        attributes.update(changed)


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
