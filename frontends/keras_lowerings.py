"""The table of Keras lowerings: one function for each meaning, registered for all of its spellings.

    @lowers(keras.ops.add)
    def add(build, x1, x2):
        return build("Add", x1, x2)

A lowering's parameters have the names of the public function's. For a layer, the arguments of `call` come first, and
every other parameter is read from the layer's attribute of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from inspect import isfunction, signature
from typing import Any

import keras
import numpy as np

from qir.arrangements import Step, Transposed, arranged
from qir.graph import Graph, Value
from qir.lowering import Builder, Lowering, Table
from qir.types import TensorType

DTYPES = {
    "float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16", "int8": "i8", "int16": "i16",
    "int32": "i32", "int64": "i64", "uint8": "u8", "uint16": "u16", "uint32": "u32", "uint64": "u64", "bool": "bool",
    "complex64": "c64", "complex128": "c128", "float8_e4m3fn": "f8e4m3fn", "float8_e5m2": "f8e5m2", "string": "str",
}  # fmt: skip
"""The short name of each of Keras's dtypes."""

_MAY_CHANGE = {"__init__", "get_config", "from_config", "build", "build_from_config", "__module__", "__doc__"}


class KerasBuilder(Builder):
    """What a lowering builds with; weights are Keras's variables."""

    def __init__(self, graph: Graph, weight_of: Callable[..., Value]) -> None:
        super().__init__(graph, weight_of)
        self.weight = weight_of

    def kernel(self, variable: Any, permutation: Sequence[int]) -> Value:
        """A variable as a weight of the graph, its axes in another order; a Transpose of a tensor that is computed."""
        if isinstance(variable, Value) and variable.weight is None:
            return self("Transpose", variable, perm=tuple(permutation))
        return self.arranged(variable, Transposed(tuple(permutation)))

    def arranged(self, variable: Any, *steps: Step) -> Value:
        """A variable as a weight of the graph after these steps: the same memory where they allow it."""
        if isinstance(variable, Value) and variable.weight is not None and not variable.weight.paths:
            return self.graph.weight(arranged(variable.weight, *steps))
        return self.weight(variable, *steps)


class KerasLowerings(Table):
    """Functions of `keras.ops` and classes of layers, each with the function that lowers it."""

    def of_function(self, function: Callable[..., Any]) -> Lowering | None:
        """The lowering of a public function."""
        return self.table.get(function)

    def of_layer(self, layer: keras.Layer) -> Lowering | None:
        """The lowering of a layer: of its class, or of a base of which it changed nothing that computes."""
        for kind in type(layer).__mro__:
            if kind in self.table:
                return self.table[kind]
            if any(isfunction(member) and name not in _MAY_CHANGE for name, member in vars(kind).items()):
                return None
        return None


lowers = KerasLowerings("Keras lowering")


@cache
def _functions(home: str) -> dict[str, Callable[..., Any]]:
    """The public functions of a module, by name without underscores."""
    module = {"activations": keras.activations, "image": keras.ops.image}.get(home, keras.ops)
    return {name.replace("_", "").lower(): getattr(module, name) for name in dir(module) if name[0] != "_"}


def public_function(kind: Any) -> Callable[..., Any] | None:
    """The public function that makes operations of this class; None for classes of others."""
    functions, name = _functions(kind.__module__.rpartition(".")[2]), kind.__name__.lower()
    return functions.get(name) or functions.get(f"{name}alization")


def call_of(
    operation: keras.Operation, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of the public function that makes this call: by name, but for `*operands` and what is before.

    Those that equal the function's defaults are left out.
    """
    given = signature(operation.call).bind(*args, **kwargs).arguments
    positional: list[Any] = []
    named: dict[str, Any] = {}
    function = public_function(type(operation))
    parameters = signature(operation.call if function is None else function).parameters.values()
    starred = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)
    for parameter in parameters:
        if parameter.name not in given and parameter.name not in vars(operation):
            continue
        value = given[parameter.name] if parameter.name in given else vars(operation)[parameter.name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += value
        elif starred and not positional and parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append(value)
        elif type(value) is not type(parameter.default) or value != parameter.default:
            named[parameter.name] = value
    return positional, named


def type_of_tensor(tensor: keras.KerasTensor | keras.Variable) -> TensorType:
    """The type of a symbolic tensor or a variable; a free first axis is `batch`."""
    dtype = DTYPES.get(keras.backend.standardize_dtype(tensor.dtype))
    shape = None if tensor.shape is None else tuple(tensor.shape)
    if shape is not None:
        shape = tuple("batch" if axis == 0 and size is None else size for axis, size in enumerate(shape))
    return TensorType(dtype, shape)


def read_variable(variable: keras.Variable) -> np.ndarray:
    """A numpy view of a variable's memory where its backend allows one."""
    return np.asarray(keras.ops.convert_to_numpy(variable.value))
