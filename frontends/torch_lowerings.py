"""The table of torch lowerings: one function for each meaning, registered for all of its spellings.

    @lowers(torch.relu, F.relu, nn.ReLU, "Tensor.relu")
    def relu(build, input, inplace=False):
        return build("Relu", input)

A lowering's parameters have torch's names, so Python itself binds the arguments of a call. For a layer, the call's
arguments come first and every other parameter is read from the layer's attribute of that name. A string names a method
of Tensor (`Tensor.relu`) or, by its full name, a function of a package that need not be installed.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from qir.errors import QirError
from qir.graph import Graph, Node, Value
from qir.types import DTYPES as ONNX_DTYPES
from qir.types import NAMES as ONNX_NAMES
from qir.types import NUMPY, ScalarType, TensorType
from qir.weights import Weight

Spelling = Callable[..., Any] | type | str
Lowering = Callable[..., Any]

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


class Unlowered(Exception):
    """Raised by a lowering for arguments that it does not cover; the call then stays opaque, for this reason."""


class Lowerings:
    """Functions, methods and layer classes, each with the function that lowers it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table: dict[Spelling, Lowering] = {}

    def __call__(self, *spellings: Spelling) -> Callable[[Lowering], Lowering]:
        """Register a lowering. Raises QirError when a spelling already has one."""

        def register(lowering: Lowering) -> Lowering:
            for spelling in dict.fromkeys(spellings):
                if spelling in self.table:
                    first = self.table[spelling].__name__
                    raise QirError(
                        f"{spelling} is already lowered by {first}", help=f"remove one of the two {self.name}s"
                    )
                self.table[spelling] = lowering
            return lowering

        return register

    def of_function(self, target: Any) -> Lowering | None:
        """The lowering of a function, by itself or by its full name; that of the plain function for an in-place one."""
        try:
            found = self.table.get(target)
        except TypeError:
            return None
        name = getattr(target, "__name__", "")
        found = found or self.table.get(f"{getattr(target, '__module__', '')}.{name}")
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
        return None


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


class Builder:
    """What a lowering builds with: adds nodes to a graph and keeps a list of them."""

    def __init__(self, graph: Graph, weight_of: Callable[[torch.Tensor], Value]) -> None:
        self.graph = graph
        self.weight_of = weight_of
        self.added: list[Node] = []
        self.constants: list[Value] = []

    def __call__(self, op: str, *operands: Any, **attrs: Any) -> Value:
        """The first result of a new node. Tensors and numbers become constants.

        Attributes that are None are left out, and so are operands that are None at the end.
        """
        return self.several(op, None, *operands, **attrs)[0]

    def several(self, op: str, results: int | None, *operands: Any, **attrs: Any) -> list[Value]:
        """The results of a new node, as many as `results` says."""
        known(not any(map(_holds_value, attrs.values())), "an argument that is computed")
        values = [self.value(operand) for operand in operands]
        while values and values[-1] is None:
            values.pop()
        kept = {name: value for name, value in attrs.items() if value is not None}
        node = self.graph.add(op, values, kept, results=results)
        self.added.append(node)
        return list(node.results)

    def value(self, operand: Any) -> Value | None:
        """`operand` as a value of the graph. Raises Unlowered for what no operand can be."""
        match operand:
            case None | Value():
                return operand
            case torch.Tensor():
                return self.weight_of(operand)
            case bool() | int() | float() | np.ndarray():
                return self._constant(operand)
        raise Unlowered(f"a {type(operand).__name__} is no operand")

    def indices(self, numbers: Sequence[int]) -> Value:
        """A constant vector of i64."""
        return self._constant(np.array(numbers, np.int64))

    def _constant(self, data: Any) -> Value:
        self.constants.append(self.graph.constant(data))
        return self.constants[-1]

    def undo(self) -> None:
        """Take back what was built."""
        for node in reversed(self.added):
            self.graph.erase(node)
        for value in self.constants:
            if value in self.graph.nx:
                self.graph.remove_weight(value)
        self.added.clear()
        self.constants.clear()


def numbers(value: Any, count: int) -> tuple[int, ...]:
    """A number repeated `count` times, or the numbers of a sequence of that length. Raises Unlowered for others."""
    items = tuple(value) if isinstance(value, list | tuple | torch.Size) else (value,) * count
    if len(items) == 1:
        items *= count
    if len(items) != count or not all(isinstance(item, int) for item in items):
        raise Unlowered(f"{value!r} is not {count} known numbers")
    return items


def unless(trivial: int, items: tuple[int, ...]) -> tuple[int, ...] | None:
    """`items`, or None when all of them are `trivial`, which is what the operator does without the attribute."""
    return None if all(item == trivial for item in items) else items


def known(condition: bool, reason: str) -> None:
    """Raise Unlowered with `reason` unless `condition`."""
    if not condition:
        raise Unlowered(reason)


def _holds_value(attribute: Any) -> bool:
    return isinstance(attribute, Value) or (isinstance(attribute, list | tuple) and any(map(_holds_value, attribute)))


def is_plain(value: Any) -> bool:
    """Whether a nest of tuples and lists holds numbers, strings and None alone: nothing that is computed."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def composite(op: str, spellings: Sequence[Spelling], bind: Callable[..., tuple[Sequence[Any], dict[str, Any]]],
              results: Callable[[Sequence[Value]], Any] | None = None) -> Lowering:  # fmt: skip
    """Register the lowering of a call to one node.

    `bind` has the call's parameters, and returns operands and attributes; `results` arranges two results.
    """

    def lowering(build: Builder, *args: Any, **kwargs: Any) -> Any:
        operands, attrs = bind(*args, **kwargs)
        known(is_plain(tuple(attrs.values())), "an argument that is computed")
        return build(op, *operands, **attrs) if results is None else results(build.several(op, 2, *operands, **attrs))

    given = inspect.signature(bind)
    first = inspect.Parameter("build", inspect.Parameter.POSITIONAL_ONLY)
    lowering.__signature__ = given.replace(parameters=[first, *given.parameters.values()])  # type: ignore[attr-defined]
    lowering.__name__ = op.rpartition(".")[2].lower()
    return lowers(*spellings)(lowering)


def agreed(build: Builder, *operands: Any) -> list[Any]:
    """The operands, cast to the dtype in which torch computes where tensors of known dtypes differ."""
    types = [value.type if isinstance(value, Value) else ScalarType(type(value).__name__) for value in operands]
    tensors = [type for type in types if isinstance(type, TensorType)]
    dtypes = {type.dtype for type in tensors}
    kinds = {type.kind for type in types if isinstance(type, ScalarType)}
    whole = all(dtype == "bool" or (dtype or "f")[0] in "iu" for dtype in dtypes)
    promotes = len(dtypes) > 1 or (whole and "float" in kinds) or "bool" in dtypes
    if None in dtypes or not promotes:
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
