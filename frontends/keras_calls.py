"""Calls of Keras that stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from qir.attributes import Port
from qir.frontends.keras_lowerings import KerasBuilder, public_function, type_of_tensor
from qir.frontends.keras_trace import Call
from qir.graph import Value
from qir.nests import map_nested
from qir.types import DTYPES, ScalarType, TensorType


def opaque(build: KerasBuilder, call: Call, args: Sequence[Any], kwargs: Mapping[str, Any], reason: str) -> Any:
    """The results of a call that stays as it is, arranged as the call's outputs; `host` is the layer or operation."""
    operands: list[Value] = []

    def template(argument: Any) -> Any:
        if isinstance(argument, keras.Variable | np.ndarray) or keras.ops.is_tensor(argument):
            argument = build.weight_of(argument)
        if not isinstance(argument, Value):
            return argument
        operands.append(argument)
        return Port(len(operands) - 1)

    attrs = {"args": map_nested(tuple(args), template), "kwargs": map_nested(dict(kwargs), template)}
    types = [type_of_tensor(tensor) for tensor in keras.tree.flatten(call.outputs)]
    kept = {key: value for key, value in attrs.items() if value}
    name = name_of(call.operation)
    hint = call.operation.name if isinstance(call.operation, keras.Layer) else name.rpartition(".")[2].lower()
    node = build.graph.add(name, operands, kept, types=types, hint=hint)
    node.host, node.why_opaque = call.operation, reason
    build.added.append(node)
    return keras.tree.pack_sequence_as(call.outputs, node.results)


def name_of(operation: keras.Operation) -> str:
    """The dotted public name of a layer's class, or of the function that makes such operations."""
    if isinstance(operation, keras.Layer):
        return f"keras.layers.{type(operation).__name__}"
    function = public_function(type(operation))
    name = getattr(function, "__name__", type(operation).__name__)
    homes = {"ops": keras.ops, "ops.image": keras.ops.image, "activations": keras.activations}
    home = next((home for home, module in homes.items() if getattr(module, name, None) is function), "ops")
    return f"keras.{home}.{name}"


def typed(build: KerasBuilder, value: Any, tensor: keras.KerasTensor) -> Any:
    """The value with the dtype of the tensor that it stands for, and with its shape where its own says less."""
    if not isinstance(value, Value) or isinstance(value.type, ScalarType):
        return value
    wanted = type_of_tensor(tensor)
    known = value.type if isinstance(value.type, TensorType) else TensorType()
    if None not in (known.dtype, wanted.dtype) and known.dtype != wanted.dtype:
        value = build("Cast", value, to=DTYPES[str(wanted.dtype)])
    if known.dtype is None or known.shape is None or None in known.shape:
        value.type = wanted
    return value
