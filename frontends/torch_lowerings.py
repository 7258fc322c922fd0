"""The table of torch lowerings: one function for each meaning, registered for all of its spellings.

    @lowers(torch.relu, F.relu, nn.ReLU, "Tensor.relu")
    def relu(build, input, inplace=False):
        return build("Relu", input)

A lowering's parameters have torch's names, so Python itself binds the arguments of a call. For a layer, the call's
arguments come first and every other parameter is read from the layer's attribute of that name. A string names a method
of Tensor (`Tensor.relu`) or, by its full name, a function of a package that need not be installed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from qir.graph import Value
from qir.lowering import Builder, Lowering, Spelling, Table, Unlowered, is_plain, known, numbers, one_node, unless
from qir.types import DTYPES as ONNX_DTYPES
from qir.types import NAMES as ONNX_NAMES
from qir.types import NUMPY, ScalarType, TensorType
from qir.weights import Weight

__all__ = [
    "DTYPES", "TORCH_DTYPES", "Builder", "Lowering", "Lowerings", "Spelling", "Unlowered", "agreed", "composite",
    "is_plain", "known", "lowers", "make_weight", "numbers", "plain_name", "read_tensor", "type_of_tensor", "unless",
]  # fmt: skip

DTYPES = {
    torch.float32: "f32", torch.float64: "f64", torch.float16: "f16", torch.bfloat16: "bf16",
    torch.int8: "i8", torch.int16: "i16", torch.int32: "i32", torch.int64: "i64",
    torch.uint8: "u8", torch.uint16: "u16", torch.uint32: "u32", torch.uint64: "u64", torch.bool: "bool",
    torch.complex64: "c64", torch.complex128: "c128",
    torch.float8_e4m3fn: "f8e4m3fn", torch.float8_e5m2: "f8e5m2",
    torch.float8_e4m3fnuz: "f8e4m3fnuz", torch.float8_e5m2fnuz: "f8e5m2fnuz",
}  # fmt: skip
TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}
assert set(DTYPES.values()) <= set(ONNX_NAMES.values())


class Lowerings(Table):
    """Functions, methods and layer classes of torch, each with the function that lowers it."""

    def of_function(self, target: Any) -> Lowering | None:
        """The lowering of a function, by itself or by its full name; that of the plain function for an in-place one."""
        try:
            found = self.table.get(target)
        except TypeError:
            return None
        name = getattr(target, "__name__", "")
        operator = isinstance(target, torch._ops.OpOverloadPacket)
        home = f"torch.ops.{target}" if operator else f"{getattr(target, '__module__', '')}.{name}"
        found = found or self.table.get(home)
        if found is None and (plain := plain_name(name)) is not None:
            homes = [home for home in (torch, F) if getattr(home, name, None) is target]
            plains = (self.table.get(getattr(home, plain, "")) for home in homes)
            found = next((each for each in plains if each is not None), None)
        return found if found is None or getattr(target, "__module__", "") != "_operator" else _folded(target, found)

    def of_method(self, name: str) -> Lowering | None:
        """The lowering of a method of Tensor; that of the plain method for an in-place one."""
        plain = plain_name(name)
        return self.table.get(f"Tensor.{name}") or (None if plain is None else self.table.get(f"Tensor.{plain}"))

    def of_layer(self, layer: torch.nn.Module) -> Lowering | None:
        """The lowering of a layer: of its class, or of a base whose forward it did not change."""
        for kind in type(layer).__mro__:
            if kind in self.table:
                return self.table[kind] if type(layer).forward is getattr(kind, "forward", None) else None
        return self.table.get(class_name(layer))


def class_name(layer: torch.nn.Module) -> str:
    """The full name of a layer's class."""
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def _folded(operation: Callable[..., Any], lowering: Lowering) -> Lowering:
    """The lowering of one of Python's operators, which computes with numbers that are known."""

    def lowered(build: Builder, *args: Any) -> Any:
        known_numbers = all(isinstance(argument, int | float) for argument in args)
        return operation(*args) if known_numbers else lowering(build, *args)

    return lowered


def plain_name(name: str) -> str | None:
    """What the function is called that returns what this one writes into its argument; None for other functions."""
    if name.endswith("_") and not name.startswith("_"):
        return name[:-1]
    reflected = f"__{name.removeprefix('__i')}"
    return reflected if name.startswith("__i") and hasattr(torch.Tensor, reflected) else None


lowers = Lowerings("torch lowering")


def read_tensor(tensor: torch.Tensor) -> np.ndarray:
    """A numpy view of a tensor's memory (a copy only when it is on another device), bf16 and fp8 included."""
    tensor = tensor.detach().cpu()
    array_type = NUMPY[DTYPES[tensor.dtype]]
    if tensor.dtype in (torch.bfloat16, *(d for d in DTYPES if "float8" in str(d))):
        carrier = torch.int16 if tensor.dtype == torch.bfloat16 else torch.uint8
        return np.asarray(tensor.contiguous().view(carrier).numpy()).view(array_type)
    return np.asarray(tensor.numpy())


def type_of_tensor(tensor: torch.Tensor) -> TensorType:
    """The type of a torch tensor."""
    return TensorType(DTYPES.get(tensor.dtype), tuple(tensor.shape))


def composite(op: str, spellings: Sequence[Spelling], bind: Callable[..., tuple[Sequence[Any], dict[str, Any]]],
              results: Callable[[Sequence[Value]], Any] | None = None) -> Lowering:  # fmt: skip
    """Register the lowering of a call to one node, as `one_node` makes it."""
    return lowers(*spellings)(one_node(op, bind, results))


def agreed(build: Builder, *operands: Any) -> list[Any]:
    """The operands, cast to the dtype in which torch computes where tensors of known dtypes differ."""
    types = [value.type if isinstance(value, Value) else ScalarType(type(value).__name__) for value in operands]
    tensors = [type for type in types if isinstance(type, TensorType)]
    dtypes = {type.dtype for type in tensors}
    kinds = {type.kind for type in types if isinstance(type, ScalarType)}
    whole = all(dtype == "bool" or (dtype or "f")[0] in "iu" for dtype in dtypes)
    promotes = len(dtypes) > 1 or (whole and "float" in kinds) or "bool" in dtypes
    if not tensors or None in dtypes or not promotes:
        return list(operands)
    known(len(tensors) == 1 or all(type.rank for type in tensors), "tensors of different dtypes without axes")
    found = reduce(torch.promote_types, (TORCH_DTYPES[dtype] for dtype in dtypes if dtype is not None))
    if whole and "float" in kinds:
        found = torch.get_default_dtype()
    elif "int" in kinds:
        found = torch.promote_types(found, torch.int64)
    known(found != torch.bool, "arithmetic on booleans")
    to = DTYPES[found]
    return [
        build("Cast", value, to=ONNX_DTYPES[to]) if isinstance(type, TensorType) and type.dtype != to else value
        for value, type in zip(operands, types, strict=True)
    ]


def make_weight(tensor: torch.Tensor, paths: tuple[str, ...], persistent: bool) -> Weight:
    """A weight that refers to the tensor."""
    return Weight(tensor, paths, read_tensor, isinstance(tensor, torch.nn.Parameter), persistent)
