"""The types of values: tensors with a dtype and a shape, and Python scalars."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from onnx import TensorProto, TypeProto, helper

Dim = int | str | None
"""A size, a symbol that stands for one size throughout the graph, or unknown."""

DTYPES: dict[str, int] = {
    "f32": TensorProto.FLOAT, "f64": TensorProto.DOUBLE, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16,
    "i8": TensorProto.INT8, "i16": TensorProto.INT16, "i32": TensorProto.INT32, "i64": TensorProto.INT64,
    "u8": TensorProto.UINT8, "u16": TensorProto.UINT16, "u32": TensorProto.UINT32, "u64": TensorProto.UINT64,
    "i4": TensorProto.INT4, "u4": TensorProto.UINT4, "i2": TensorProto.INT2, "u2": TensorProto.UINT2,
    "bool": TensorProto.BOOL, "str": TensorProto.STRING, "c64": TensorProto.COMPLEX64, "c128": TensorProto.COMPLEX128,
    "f8e4m3fn": TensorProto.FLOAT8E4M3FN, "f8e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ,
    "f8e5m2": TensorProto.FLOAT8E5M2, "f8e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ,
    "f8e8m0": TensorProto.FLOAT8E8M0, "f4e2m1": TensorProto.FLOAT4E2M1,
}  # fmt: skip
"""The short name of every ONNX element type, as printed, and its number in `onnx.TensorProto`."""

NAMES = {number: name for name, number in DTYPES.items()}
NUMPY = {
    name: np.dtype(object) if name == "str" else helper.tensor_dtype_to_np_dtype(number)
    for name, number in DTYPES.items()
}
SCALARS = ("int", "float", "bool")


@dataclass(frozen=True)
class TensorType:
    """A tensor. `dtype` is None when it is not known, `shape` when not even the rank is."""

    dtype: str | None = None
    shape: tuple[Dim, ...] | None = None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}[...]" if self.dtype else "?"
        return f"{self.dtype or '?'}[{','.join(map(_write_dim, self.shape))}]"

    @property
    def rank(self) -> int | None:
        """The number of axes, or None when it is not known."""
        return None if self.shape is None else len(self.shape)

    @property
    def static(self) -> tuple[int, ...] | None:
        """The shape when every size is a number, else None."""
        if self.shape is None or not all(isinstance(dim, int) for dim in self.shape):
            return None
        return tuple(dim for dim in self.shape if isinstance(dim, int))


@dataclass(frozen=True)
class ScalarType:
    """A Python number, as shape arithmetic makes them. `kind` is one of `int`, `float`, `bool`.

    It takes the dtype of the tensors that it meets, which is what torch, Keras and numpy do with Python numbers.
    """

    kind: str

    def __str__(self) -> str:
        return self.kind

    @property
    def dtype(self) -> str:
        """The dtype that a tensor of its own would have."""
        return {"int": "i64", "float": "f32", "bool": "bool"}[self.kind]

    shape: tuple[Dim, ...] = ()
    rank: int = 0
    static: tuple[int, ...] = ()


class _Container:
    """What the types of values that hold other values share: as tensors, nothing is known of them."""

    dtype: ClassVar[None] = None
    shape: ClassVar[None] = None
    rank: ClassVar[None] = None
    static: ClassVar[None] = None


@dataclass(frozen=True)
class SequenceType(_Container):
    """A list of values of one type."""

    element: Type

    def __str__(self) -> str:
        return f"seq({self.element})"


@dataclass(frozen=True)
class OptionalType(_Container):
    """A value that may be left out."""

    element: Type

    def __str__(self) -> str:
        return f"optional({self.element})"


@dataclass(frozen=True)
class MapType(_Container):
    """A dictionary; `key` is the dtype of its keys."""

    key: str
    element: Type

    def __str__(self) -> str:
        return f"map({self.key},{self.element})"


Type = TensorType | ScalarType | SequenceType | OptionalType | MapType
UNKNOWN = TensorType()


def is_known(type: Type) -> bool:
    """Whether ONNX can name the type: the dtype of a tensor is known, or of the tensors that a container holds."""
    return is_known(type.element) if isinstance(type, _Container) else type.dtype is not None


def refined(type: Type, other: Type) -> Type:
    """`type` with what `other`, which is known of the same value, tells besides: its dtype, rank and sizes."""
    if not isinstance(type, TensorType) or not isinstance(other, TensorType):
        return other if type == UNKNOWN else type
    shape = type.shape
    if shape is None:
        shape = other.shape
    elif other.shape is not None and len(other.shape) == len(shape):
        shape = tuple(size if mine is None else mine for mine, size in zip(shape, other.shape, strict=True))
    return TensorType(type.dtype or other.dtype, shape)


_CONTAINER = re.compile(r"(seq|optional|map)\((?:([a-z]\w*),\s*)?(.*)\)", re.DOTALL)
_TENSOR = re.compile(r"(\?|[a-z]\w*)\[(.*)\]", re.DOTALL)
_SYMBOL = re.compile(r"[^\W\d][\w.+*/:()-]*")
_DIM = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[^,"]*?)\s*(,|$)')


def _write_dim(dim: Dim) -> str:
    if isinstance(dim, str):
        return dim if _SYMBOL.fullmatch(dim) else json.dumps(dim)
    return "?" if dim is None else str(dim)


def type_of(array: np.ndarray) -> TensorType:
    """The type of a numpy array, those of `ml_dtypes` included."""
    if array.dtype.kind in "OUS":
        return TensorType("str", array.shape)
    return TensorType(NAMES[helper.np_dtype_to_tensor_dtype(array.dtype)], array.shape)


def parse_type(text: str) -> Type:
    """The type that prints as `text`. Raises ValueError when none does."""
    if text in SCALARS:
        return ScalarType(text)
    if text == "?":
        return UNKNOWN
    if match := _CONTAINER.fullmatch(text):
        return _parse_container(*match.groups())
    match = _TENSOR.fullmatch(text)
    if match is None or (match[1] != "?" and match[1] not in DTYPES):
        raise ValueError(f"{text!r} is not a type")
    dtype = None if match[1] == "?" else match[1]
    if match[2].strip() == "...":
        return TensorType(dtype, None)
    return TensorType(dtype, tuple(map(_parse_dim, _split(match[2]))))


def _parse_container(kind: str, key: str | None, element: str) -> Type:
    inner = parse_type(element)
    if kind == "map" and key in DTYPES:
        return MapType(key, inner)
    if kind == "map" or key is not None:
        raise ValueError(f"{key!r} is not a type")
    return SequenceType(inner) if kind == "seq" else OptionalType(inner)


def _split(dims: str) -> list[str]:
    """The texts between the commas that stand in no quotes."""
    found: list[str] = []
    at, more = 0, bool(dims.strip())
    while more:
        match = _DIM.match(dims, at)
        if match is None:
            raise ValueError(f"{dims!r} are not dimensions")
        found.append(match[1])
        at, more = match.end(), match[2] == ","
    return found


def _parse_dim(text: str) -> Dim:
    if text == "?":
        return None
    if re.fullmatch(r"[0-9]{1,18}", text):
        return int(text)
    if text.startswith('"'):
        return str(json.loads(text))
    if _SYMBOL.fullmatch(text):
        return text
    raise ValueError(f"{text!r} is not a dimension")


@lru_cache(maxsize=4096)
def to_proto(type: Type) -> TypeProto:
    """The ONNX type, not to be changed; a type that is not known becomes an empty TypeProto."""
    if isinstance(type, SequenceType):
        return helper.make_sequence_type_proto(to_proto(type.element))
    if isinstance(type, OptionalType):
        return helper.make_optional_type_proto(to_proto(type.element))
    if isinstance(type, MapType):
        return helper.make_map_type_proto(DTYPES[type.key], to_proto(type.element))
    if type.dtype is None:
        return TypeProto()
    shape = None if type.shape is None else list(type.shape)
    return helper.make_tensor_type_proto(DTYPES[type.dtype], shape)


def from_proto(proto: TypeProto) -> Type:
    """The type that an ONNX TypeProto states. Sparse tensors and types of other makers are unknown."""
    kind = proto.WhichOneof("value")
    if kind == "sequence_type":
        return SequenceType(from_proto(proto.sequence_type.elem_type))
    if kind == "optional_type":
        return OptionalType(from_proto(proto.optional_type.elem_type))
    if kind == "map_type" and proto.map_type.key_type in NAMES:
        return MapType(NAMES[proto.map_type.key_type], from_proto(proto.map_type.value_type))
    if kind != "tensor_type":
        return UNKNOWN
    tensor = proto.tensor_type
    dtype = NAMES.get(tensor.elem_type)
    if not tensor.HasField("shape"):
        return TensorType(dtype, None)
    return TensorType(dtype, tuple(_dim_of(dim) for dim in tensor.shape.dim))


def _dim_of(dim: object) -> Dim:
    which = dim.WhichOneof("value")  # type: ignore[attr-defined]
    if which == "dim_value" and dim.dim_value >= 0:  # type: ignore[attr-defined]
        return int(dim.dim_value)  # type: ignore[attr-defined]
    return (dim.dim_param or None) if which == "dim_param" else None  # type: ignore[attr-defined]


_INTEGER = re.compile(r"([iu])([2-9]|1[0-6]|32|64)")
_FLOAT_STORAGE = {"f16": "f16", "bf16": "bf16", "f8e4m3": "f8e4m3fn", "f8e5m2": "f8e5m2"}


def integer_range(dtype: str) -> tuple[int, int]:
    """The lowest and highest value of an integer of 2 to 16, 32 or 64 bits. Raises ValueError for other dtypes."""
    match = _INTEGER.fullmatch(dtype)
    if match is None:
        raise ValueError(f"{dtype!r} is not an integer dtype")
    bits = int(match[2])
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if match[1] == "i" else (0, 2**bits - 1)


def bit_width(dtype: str) -> int:
    """The bits of a number of this dtype: 3 for `i3`, 16 for `bf16`, 8 for `f8e4m3`."""
    match = re.match(r"[a-z]+([0-9]+)", dtype)
    if match is None:
        raise ValueError(f"{dtype!r} has no width")
    return int(match[1])


def storage(dtype: str) -> str:
    """The dtype, one of `DTYPES`, of tensors that hold the points of a grid of `dtype`.

    Integers are held in 4, 8, 16, 32 or 64 bits, the next that is wide enough: `i4` for `i3`, `u16` for `u10`. (ONNX
    has 2-bit integers, but only from opset 25 on.) Raises ValueError for a dtype that no grid has.
    """
    if dtype in _FLOAT_STORAGE:
        return _FLOAT_STORAGE[dtype]
    integer_range(dtype)
    return f"{dtype[0]}{next(width for width in (4, 8, 16, 32, 64) if width >= bit_width(dtype))}"
