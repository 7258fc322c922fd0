"""Weights beside graph text, in the safetensors format: the text names them by hash, the file holds them.

A weight is stored under its first path, a large constant without one under `#` and its digest. The format has no name
for some dtypes (4 bits, complex128, …); their bytes are stored as U8, and the text says what they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from qir.errors import QirError
from qir.files import write_with
from qir.graph import Graph, Value
from qir.text.printing import INLINE
from qir.types import NUMPY, TensorType, type_of

CODES = {
    "f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16", "f8e4m3fn": "F8_E4M3", "f8e5m2": "F8_E5M2",
    "i64": "I64", "i32": "I32", "i16": "I16", "i8": "I8", "u64": "U64", "u32": "U32", "u16": "U16", "u8": "U8",
    "bool": "BOOL",
}  # fmt: skip
"""What safetensors calls a dtype. All others are stored as bytes."""


def weights_path(text_path: Path) -> Path:
    """Where the weights of the graph text in this file lie: `net.safetensors` for `net.qir`."""
    return text_path.with_suffix(".safetensors")


def stored(graph: Graph) -> list[Value]:
    """The weights whose data graph text does not show, those of bodies among them."""
    return [value for value in _weights(graph) if value.weight and (value.weight.paths or _size(value) > INLINE)]


def _weights(graph: Graph) -> list[Value]:
    """The weights of the graph and of the bodies in it."""
    inner = [value for node in graph.nodes() for body in node.bodies for value in _weights(body)]
    return [*graph.weights(), *inner]


def _size(value: Value) -> float:
    return float("inf") if value.type.static is None else float(np.prod(value.type.static))


def _key(value: Value) -> str:
    weight = value.weight
    assert weight is not None
    return weight.paths[0] if weight.paths else f"#{weight.digest}"


def save_weights(graph: Graph, path: Path) -> None:
    """Write the weights of `graph` that have data, whole or not at all. Raises QirError for strings."""
    write_tensors(path, weight_arrays(graph))


def weight_arrays(graph: Graph) -> dict[str, np.ndarray]:
    """The weights of `graph` that have data, by the names that they have in a file. Raises QirError for strings."""
    held = [value for value in stored(graph) if value.weight and value.weight.data is not None]
    return {_key(value): _readable(value) for value in held}


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays of dtypes that types have names for, and `metadata` beside them, whole or not at all."""
    # Larger elements first, so that every tensor is aligned for mapping, as the format's own library does.
    order = sorted(arrays, key=lambda key: (-arrays[key].dtype.itemsize, key))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for key in order:
        code, shape = _form(type_of(arrays[key]).dtype or "", arrays[key].shape)
        header[key] = {"dtype": code, "shape": shape, "data_offsets": [end, end + arrays[key].nbytes]}
        end += arrays[key].nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    def write(beside: Path) -> None:
        with beside.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for key in order:
                _write(file, arrays[key])

    write_with(path, write)


def _write(file: BinaryIO, array: np.ndarray) -> None:
    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _readable(value: Value) -> np.ndarray:
    assert value.weight is not None
    if value.type.dtype in (None, "str"):
        raise QirError(f"the weight %{value.hint} holds {value.type}, which no weights file can")
    return value.weight.array


def _form(dtype: str, shape: tuple[int, ...]) -> tuple[str, list[int]]:
    """How a tensor is stored: the name of its dtype in the file, and its shape there."""
    if dtype in CODES:
        return CODES[dtype], list(shape)
    return "U8", [*shape, NUMPY[dtype].itemsize]


@dataclass(frozen=True)
class WeightsFile:
    """A safetensors file, its tensors mapped into memory when they are asked for."""

    path: Path
    header: Mapping[str, Mapping[str, Any]]
    start: int

    @classmethod
    def open(cls, path: Path) -> WeightsFile:
        """Read the table of contents. Raises QirError for a file that is no safetensors file, or is cut short."""
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length)) if length < size else None
        except OSError as error:
            raise QirError(f"can not read {path}: {error.strerror}") from None
        except (ValueError, RecursionError):
            header = None
        file_holds = cls(path, header if isinstance(header, dict) else {}, 8 + length)
        ends = [file_holds.end(key) for key in file_holds.header if key != "__metadata__"]
        if not isinstance(header, dict) or file_holds.start + max(ends, default=0) > size or min(ends, default=0) < 0:
            raise QirError(f"{path} is no safetensors file, or is cut short", help="write it again with qir opt -o")
        return file_holds

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The texts that stand beside the tensors."""
        found = self.header.get("__metadata__", {})
        return found if isinstance(found, dict) else {}

    def end(self, key: str) -> int:
        """Where the data of a tensor ends; below 0 when the header does not say it properly."""
        match self.header[key]:
            case {"dtype": str(), "shape": list(), "data_offsets": [int(first), int(last)]} if 0 <= first <= last:
                return last
        return -1

    def array(self, key: str, type: TensorType) -> np.ndarray:
        """The tensor under `key`. Raises QirError unless it is of this dtype and shape."""
        dtype, shape = type.dtype or "", type.static or ()
        entry = self.header[key]
        first, last = entry["data_offsets"]
        if (entry["dtype"], entry["shape"]) != _form(dtype, shape) or last - first != _bytes(dtype, shape):
            found = f"{entry['dtype']}{entry['shape']}"
            raise QirError(f"{self.path} holds {key} as {found} and the graph reads {type}")
        if first == last:
            return np.empty(shape, NUMPY[dtype])
        return np.asarray(np.memmap(self.path, NUMPY[dtype], "r", self.start + first, shape))


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=object)) * NUMPY[dtype].itemsize


def attach_weights(graph: Graph, path: Path) -> None:
    """Give every weight that has no data the data in the file, mapped into memory.

    Raises QirError, changing nothing, when one is not in the file or has another dtype, shape or digest there.
    """
    wanted = [value for value in _weights(graph) if value.weight and value.weight.data is None]
    file = WeightsFile.open(path)
    missing = [_key(value) for value in wanted if _key(value) not in file.header]
    if missing:
        raise QirError(f"{path} does not hold {len(missing)} weights of the graph", snippet="\n".join(missing[:20]))
    found = []
    for value in wanted:
        assert value.weight is not None
        assert isinstance(value.type, TensorType)
        weight = replace(value.weight, data=file.array(_key(value), value.type))
        if weight.digest != value.weight.known_digest:
            raise QirError(
                f"{_key(value)} in {path} is not the weight that the graph names: its hash is {weight.digest}",
                help="the file belongs to another state of this graph; write both again",
            )
        found.append((value, weight))
    for value, weight in found:
        value.weight = weight
