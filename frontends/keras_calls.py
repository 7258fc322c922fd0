"""Calls of Keras that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from qir.attributes import Port
from qir.frontends.keras_lowerings import KerasBuilder, call_of, public_function, type_of_tensor
from qir.frontends.keras_trace import Call
from qir.graph import Value
from qir.types import ScalarType, TensorType


def opaque(build: KerasBuilder, call: Call, args: Sequence[Any], kwargs: Mapping[str, Any], reason: str) -> Any:
    """The results of a call that stays as it is, arranged as the call's outputs; `host` is the layer or operation."""
    operands: list[Value] = []

    def template(argument: Any) -> Any:
        match argument:
            case Value():
                operands.append(argument)
                return Port(len(operands) - 1)
            case tuple() | list():
                return type(argument)(map(template, argument))
            case dict():
                return {key: template(item) for key, item in argument.items()}
            case slice():
                return slice(*map(template, (argument.start, argument.stop, argument.step)))
            case keras.Variable():
                return template(build.weight_of(argument))
        return template(build.weight_of(argument)) if keras.ops.is_tensor(argument) else argument

    function = None
    if not isinstance(call.operation, keras.Layer):
        function = public_function(type(call.operation))
        args, kwargs = call_of(call.operation, args, kwargs)
    attrs = {"args": tuple(map(template, args)), "kwargs": {name: template(item) for name, item in kwargs.items()}}
    home = "keras.layers" if isinstance(call.operation, keras.Layer) else "keras.ops"
    name = type(call.operation).__name__ if function is None else function.__name__
    types = [type_of_tensor(tensor) for tensor in keras.tree.flatten(call.outputs)]
    kept = {key: value for key, value in attrs.items() if value}
    node = build.graph.add(f"{home}.{name}", operands, kept, types=types, hint=call.operation.name)
    node.host, node.why_opaque = call.operation, reason
    build.added.append(node)
    return keras.tree.pack_sequence_as(call.outputs, node.results)


def with_types(value: Any, tensor: keras.KerasTensor) -> Any:
    """The value, typed as the tensor that it stands for where its own type says less."""
    if isinstance(value, Value) and not isinstance(value.type, ScalarType):
        known = value.type if isinstance(value.type, TensorType) else TensorType()
        if known.dtype is None or known.shape is None or None in known.shape:
            value.type = type_of_tensor(tensor)
    return value
