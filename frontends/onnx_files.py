"""ONNX files: the model, and the data of its tensors wherever it lies."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto, numpy_helper

from qir.errors import QirError
from qir.frontends.onnx_bodies import bodies_of
from qir.ops import definition
from qir.proto import attributes_of
from qir.types import NAMES, NUMPY

PACKED = ("i4", "u4", "i2", "u2", "f4e2m1")
"""The dtypes that ONNX stores several elements a byte."""


def read_model(path: Path) -> onnx.ModelProto:
    """The model in a file, its external data not read yet. Raises QirError for anything that is no ONNX model."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise QirError(f"can not read {path}: {error.strerror}", help="give the path of an ONNX model") from None
    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError:
        raise _no_model(path) from None
    if not model.HasField("graph"):
        raise _no_model(path)
    return model


def _no_model(path: Path) -> QirError:
    return QirError(
        f"{path} is no ONNX model, or a damaged one", help="give a complete .onnx file, or graph text in a .qir file"
    )


def tensor_array(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    """The data of `tensor`. External data, in a file below `folder`, is mapped into memory and not read.

    Raises QirError when the data is missing, too short, of unknown type, or outside of `folder`.
    """
    if tensor.data_type not in NAMES:
        raise QirError(f"the tensor {tensor.name!r} has no element type that qir knows (number {tensor.data_type})")
    try:
        if tensor.data_location == TensorProto.EXTERNAL:
            return _mapped(tensor, folder)
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError, MemoryError, UnicodeDecodeError) as error:
        raise QirError(
            f"the data of the tensor {tensor.name!r} is damaged: {error}", help="export or download the model again"
        ) from None


def _mapped(tensor: TensorProto, folder: Path | None) -> np.ndarray:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _inside(folder, entries.get("location", ""), tensor.name)
    dtype, shape = NAMES[tensor.data_type], tuple(tensor.dims)
    count = prod(shape)
    length = -(-count * _bits(dtype) // 8)
    offset = int(entries.get("offset", 0))
    stated = int(entries.get("length", length))
    if dtype == "str" or min(shape, default=0) < 0 or offset < 0 or stated != length:
        raise ValueError(f"{stated} bytes at {offset} do not hold {dtype}{list(shape)}")
    if offset + length > file.stat().st_size:
        raise ValueError(f"{entries['location']} ends before byte {offset + length}")
    if count == 0:
        return np.empty(shape, NUMPY[dtype])
    if dtype in PACKED:
        raw = np.asarray(np.memmap(file, np.uint8, "r", offset, (length,))).tobytes()
        return np.asarray(
            numpy_helper.to_array(TensorProto(data_type=tensor.data_type, dims=tensor.dims, raw_data=raw))
        )
    return np.asarray(np.memmap(file, NUMPY[dtype], "c", offset, shape))


def _bits(dtype: str) -> int:
    if dtype in PACKED:
        return 2 if dtype in ("i2", "u2") else 4
    return NUMPY[dtype].itemsize * 8


def _inside(folder: Path | None, location: str, name: str) -> Path:
    """The file at `location`, which must lie below `folder`, links followed."""
    if folder is None:
        raise QirError(
            f"the data of {name!r} is in the file {location!r}, and a model in memory has no folder",
            help="give import_onnx the path of the model's file",
        )
    home = folder.resolve()
    file = (home / location).resolve()
    if not location or Path(location).is_absolute() or not file.is_relative_to(home):
        raise QirError(
            f"the data of {name!r} is said to be in {location!r}, outside of the model's folder",
            help="put the data file beside the model, without links",
        )
    if not file.is_file():
        raise QirError(
            f"the data of {name!r} is missing: there is no file {location!r} beside the model",
            help="copy the data file to where the model is",
        )
    return file


def dense_array(sparse: onnx.SparseTensorProto, folder: Path | None) -> np.ndarray:
    """A sparse tensor, with its zeros. Raises QirError when it is damaged, or too large to be written out."""
    values, indices = (tensor_array(tensor, folder) for tensor in (sparse.values, sparse.indices))
    shape, name = tuple(sparse.dims), sparse.values.name
    if min(shape, default=0) < 0 or prod(shape) * values.itemsize > LARGEST_DENSE:
        raise QirError(f"the sparse tensor {name!r} has the shape {list(shape)}, which can not be written out")
    dense = np.zeros(shape, values.dtype)
    try:
        places = tuple(indices.T) if indices.ndim == 2 else np.unravel_index(indices, shape)
        if indices.size and (indices.min() < 0 or len(places) != len(shape)):
            raise IndexError("its indices are not places of the tensor")
        dense[places] = values
    except (IndexError, ValueError, TypeError) as error:
        raise QirError(f"the sparse tensor {name!r} is damaged: {error}", help="export the model again") from None
    return dense


LARGEST_DENSE = 2**30
"""The bytes that a sparse tensor may have with its zeros."""


def constant_array(node: onnx.NodeProto, folder: Path | None) -> np.ndarray:
    """What a `Constant` node holds."""
    for attribute in node.attribute:
        if attribute.name == "sparse_value" and attribute.type == AttributeProto.SPARSE_TENSOR:
            return dense_array(attribute.sparse_tensor, folder)
    dtypes = {"float": np.float32, "int": np.int64, "string": object}
    for name, value in definition("Constant").normalize(attributes(node, folder)).items():
        kind = name.removeprefix("value").strip("_").rstrip("s")
        if name.startswith("value") and (not kind or kind in dtypes):
            return value if isinstance(value, np.ndarray) else np.array(value, dtypes.get(kind))
    raise QirError("this Constant holds nothing")


def attributes(node: onnx.NodeProto, folder: Path | None) -> dict[str, Any]:
    """The attributes of `node` as the graph keeps them, tensors wherever their data lies; without its bodies."""
    tensors = {a.name: a for a in node.attribute if a.type in (AttributeProto.TENSOR, AttributeProto.TENSORS)}
    elsewhere = (*tensors, *bodies_of(node))
    rest = onnx.NodeProto(attribute=[a for a in node.attribute if a.name not in elsewhere])
    try:
        found = attributes_of(rest)
    except (ValueError, TypeError) as error:
        raise QirError(f"an attribute is damaged: {error}") from None
    for name, attribute in tensors.items():
        arrays = tuple(tensor_array(tensor, folder) for tensor in [attribute.t, *attribute.tensors])
        found[name] = arrays[0] if attribute.type == AttributeProto.TENSOR else arrays[1:]
    return found
