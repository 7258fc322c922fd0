"""Graphs as checked ONNX models and files, of any size."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qir.backends.onnx_opsets import fitting_opsets, lowest_ir_version
from qir.errors import QirError
from qir.files import write_bytes, write_with
from qir.graph import Graph, Value
from qir.operators.integer import DOMAIN
from qir.proto import model_proto, tensor_of, within
from qir.types import DTYPES, ScalarType, TensorType, is_known

LARGE = 1024
"""The bytes from which on a weight is kept out of the check, and out of the model's file if that grows too large."""

LIMIT = 2**31 - 2**26
"""The bytes of weights that fit into one protobuf message, which ends at 2 GiB, with room for the rest of the model."""

ALIGNMENT = 4096
"""Where tensors begin in a data file: at multiples of a page, so that they can be mapped."""


def emit_onnx(
    graph: Graph, *, opset: int | None = None, ir_version: int = 10, metadata: Mapping[str, str] | None = None
) -> onnx.ModelProto:
    """The model of a graph that was imported from ONNX or prepared by `legalize-onnx`; it passes ONNX's full check.

    It has the lowest opset from 21 on that takes the graph's operators, unless one is given. Raises QirError for
    operators that ONNX does not have, naming all of them, for what the check finds, and for weights of 2 GiB and more.
    """
    if weight_bytes(graph) > LIMIT:
        raise QirError("the weights are larger than the 2 GiB that one ONNX message holds", stage="emit onnx",
                       help="write a file: qir.backends.onnx_emit.write_onnx(graph, path)")  # fmt: skip
    stubs = _Stubs(graph)
    model = _checked(graph, stubs, opset, ir_version, metadata)
    for tensor in model.graph.initializer:
        if tensor.name in stubs.values:
            value = stubs.values[tensor.name]
            tensor.CopyFrom(tensor_of(value, tensor.name))
            if value.weight is not None:
                value.weight.release()
    return model


def write_onnx(
    graph: Graph,
    path: Path,
    *,
    opset: int | None = None,
    ir_version: int = 10,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write the model to `path`, whole or not at all; weights that do not fit into it go beside it, as `path`.data."""
    path = Path(path)
    if weight_bytes(graph) <= LIMIT:
        model = emit_onnx(graph, opset=opset, ir_version=ir_version, metadata=metadata)
        write_bytes(path, model.SerializeToString(deterministic=True))
        return
    stubs = _Stubs(graph)
    model = _checked(graph, stubs, opset, ir_version, metadata)
    data = path.with_name(f"{path.name}.data")
    for tensor in model.graph.initializer:
        if tensor.name in stubs.places:
            offset, length = stubs.places[tensor.name]
            entries = {"location": data.name, "offset": str(offset), "length": str(length)}
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in entries.items())
    write_with(data, stubs.write)
    write_bytes(path, model.SerializeToString(deterministic=True))


def weight_bytes(graph: Graph) -> int:
    """The bytes of the weights that the model holds."""
    read = (value for value in graph.weights() if value.uses or value.is_output)
    return sum(value.weight.array.nbytes for value in read if value.weight is not None)


@dataclass
class _Stubs:
    """Initializers without their data for large weights, and where in a data file each of them lies."""

    graph: Graph
    values: dict[str, Value] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    end: int = 0

    def __call__(self, value: Value, name: str) -> TensorProto:
        """The initializer of a weight."""
        array = None if value.weight is None or isinstance(value.type, ScalarType) else value.weight.array
        if array is None or array.nbytes < LARGE or array.dtype == object:
            return tensor_of(value, name)
        if name not in self.places:
            start = -(-self.end // ALIGNMENT) * ALIGNMENT
            length = array.nbytes if _is_plain(array) else len(_packed(array))
            self.values[name], self.places[name], self.end = value, (start, length), start + length
        number = helper.np_dtype_to_tensor_dtype(array.dtype)
        return TensorProto(name=name, data_type=number, dims=array.shape)

    def write(self, path: Path) -> None:
        """Write the data of all of them."""
        with path.open("wb") as file:
            for name, value in self.values.items():
                file.seek(self.places[name][0])
                _write(file, value)


def _write(file: BinaryIO, value: Value) -> None:
    assert value.weight is not None
    array = value.weight.array
    if _is_plain(array):
        file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    else:
        file.write(_packed(array))
    value.weight.release()


def _is_plain(array: np.ndarray) -> bool:
    """Whether each element takes whole bytes in ONNX as it does in numpy."""
    return helper.np_dtype_to_tensor_dtype(array.dtype) not in PACKED


PACKED = tuple(DTYPES[name] for name in ("i4", "u4", "i2", "u2", "f4e2m1"))
"""The element types of which ONNX stores several a byte."""


def _packed(array: np.ndarray) -> bytes:
    return bytes(numpy_helper.from_array(array).raw_data)


def _checked(
    graph: Graph, stubs: _Stubs, opset: int | None, ir_version: int, metadata: Mapping[str, str] | None
) -> onnx.ModelProto:
    """The model with `stubs` for its large weights, which the check sees as inputs."""
    nodes = list(within(graph.nodes()))
    domains = {DOMAIN: 1} if any(node.op.startswith(f"{DOMAIN}.") for node in nodes) else {}
    refused = ""
    for chosen in fitting_opsets(nodes) if opset is None else [opset]:
        version = max(ir_version, lowest_ir_version(chosen))
        versions = {**domains, **graph.opsets}
        model = model_proto(graph, opset=chosen, ir_version=version, domains=versions, tensors=stubs)
        helper.set_model_props(model, dict(metadata or {}))
        _check_ends(graph)
        try:
            onnx.checker.check_model(_without_large(model, stubs.values), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
            refused = refused or str(error).strip().splitlines()[0]
        else:
            return model
    raise QirError(f"ONNX refuses the model: {refused}", stage="emit onnx", help="run legalize-onnx, or write .qir")


def _check_ends(graph: Graph) -> None:
    """Raise QirError unless dtype and rank of the inputs and outputs are known, as ONNX wants."""
    for value in [*graph.inputs, *graph.outputs]:
        if not is_known(value.type) or (isinstance(value.type, TensorType) and value.type.rank is None):
            raise QirError(f"ONNX needs the dtype and rank of %{value.hint}, which is {value.type}", value.node,
                           stage="emit onnx", help="import the model with example inputs")  # fmt: skip


def _without_large(model: onnx.ModelProto, large: Container[str]) -> onnx.ModelProto:
    """The model with inputs in the place of its large weights."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.initializer[:]
    for tensor in model.graph.initializer:
        if tensor.name in large:
            result.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            result.graph.initializer.append(tensor)
    return result
