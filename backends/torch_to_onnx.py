"""Opaque torch calls as ONNX nodes, one call at a time, by torch's exporter and onnxscript's torchlib.

Calls between which complex numbers pass are written together: ONNX's arithmetic has none.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

import onnx
import torch
from onnx import helper, inliner, numpy_helper
from torch import nn
from torch.utils import _pytree as pytree

from qir.api.preparation import PREPARE
from qir.backends.torch_calls import opaque_call, resolved
from qir.backends.torch_module import emit_flat
from qir.errors import QirError
from qir.extract import part
from qir.graph import Graph, Node, Value
from qir.pipeline import Pipeline
from qir.proto import attributes_of
from qir.types import ScalarType, TensorType

OPSET = 21
EXAMPLE = 3
"""The size that a symbolic axis has in the example on which a call is exported."""

DTYPES = {
    "f32": torch.float32, "f64": torch.float64, "f16": torch.float16, "bf16": torch.bfloat16, "bool": torch.bool,
    "i8": torch.int8, "i16": torch.int16, "i32": torch.int32, "i64": torch.int64, "u8": torch.uint8,
}  # fmt: skip

_exported: dict[str, tuple[onnx.ModelProto, Any]] = {}


class OneCall(nn.Module):
    """A module that makes one opaque call, in evaluation mode."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.call = opaque_call(node)
        self.operands = node.operands
        if isinstance(self.call.target, nn.Module):
            self.layer = self.call.target

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What the call returns for these operands."""
        known = dict(zip(self.operands, _arguments(self.operands, tensors), strict=True))
        args, kwargs = (resolved(part, known) for part in (self.call.args, self.call.kwargs))
        return self.call.target(*args, **kwargs)


class SeveralCalls(nn.Module):
    """A module that computes a graph, in evaluation mode."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.operands = graph.inputs
        self.calls = emit_flat(Pipeline.parse(PREPARE).run(graph))

    def forward(self, *tensors: torch.Tensor) -> Any:
        """What the graph returns for these inputs."""
        return self.calls(*_arguments(self.operands, tensors))


def expand_opaque(graph: Graph, node: Node) -> Any:
    """The values that an opaque call returns, as nodes added to the graph: one value, or a nest of tuples of them.

    Raises QirError when the types of the operands are not known, or the exporter can not take the call.
    """
    key = f"{node.op} {node.attrs} {[str(value.type) for value in node.operands]} {id(node.host)}"
    if key not in _exported:
        _exported[key] = _export(node, OneCall(node), node.operands)
    model, returned = _exported[key]
    values = iter(_add(graph, node, node.operands, model.graph))
    return pytree.tree_map(lambda leaf: next(values) if isinstance(leaf, torch.Tensor) else leaf, returned)


def expand_together(graph: Graph, nodes: Sequence[Node], results: Sequence[Value]) -> Sequence[Value]:
    """The values that stand for `results`, which `nodes` compute, as nodes added to the graph.

    Raises QirError when the types of the operands are not known, or the exporter can not take the calls.
    """
    inner = {result for node in nodes for result in node.results}
    frontier = {value for node in nodes for value in node.operands if value is not None and value not in inner}
    body, reads = part(graph, list(results), frontier)
    model, _ = _export(nodes[0], SeveralCalls(body), reads)
    return [value for value in _add(graph, nodes[0], reads, model.graph) if value is not None]


def _arguments(values: Sequence[Value], tensors: Sequence[torch.Tensor]) -> list[Any]:
    """The tensors, as Python integers where the calls take those."""
    return [_size(tensor) if _is_number(value) else tensor for value, tensor in zip(values, tensors, strict=True)]


def _is_number(value: Value) -> bool:
    """Whether torch takes the operand as a Python integer: a size, before or after it was made a tensor."""
    return value.type == ScalarType("int") or (value.type == TensorType("i64", ()) and value.weight is None)


def _size(tensor: torch.Tensor) -> Any:
    size = tensor.item()
    torch._check(size >= 0)  # type: ignore[no-untyped-call]
    return size


def _example(node: Node, value: Value) -> torch.Tensor:
    type = value.type
    if _is_number(value):
        return torch.tensor(EXAMPLE)
    if isinstance(type, ScalarType) or type.shape is None or type.dtype not in DTYPES:
        raise QirError(f"{node.op} reads %{value.hint}, which is no tensor of a known rank and dtype", node,
                       help="import the model with example inputs")  # fmt: skip
    sizes = [size if isinstance(size, int) else EXAMPLE for size in type.shape]
    return torch.zeros(sizes, dtype=DTYPES[type.dtype])


def _export(node: Node, module: nn.Module, operands: Sequence[Value]) -> tuple[onnx.ModelProto, Any]:
    module, examples = module.eval(), [_example(node, value) for value in operands]
    axes = [_symbolic_axes(value) for value in operands]
    level = logging.root.manager.disable
    try:
        logging.disable(logging.WARNING)
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            returned = module(*examples)
            program = torch.onnx.export(
                module, tuple(examples), dynamo=True, opset_version=OPSET, optimize=True,
                dynamic_shapes=(tuple(axes),) if any(axes) else None,
            )  # fmt: skip
    except Exception as error:  # the exporter raises errors of many kinds, and what the call itself raises
        raise QirError(f"torchlib can not write {node.op} in ONNX: {_cause(error)}", node) from None
    finally:
        logging.disable(level)
    assert program is not None
    return inliner.inline_local_functions(program.model_proto), returned


def _cause(error: BaseException) -> str:
    """The first line of what began the error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _symbolic_axes(value: Value) -> dict[int, Any]:
    sizes = enumerate(value.type.shape or ())
    return {axis: torch.export.Dim.AUTO for axis, size in sizes if not isinstance(size, int)}


def _add(graph: Graph, node: Node, operands: Sequence[Value], body: onnx.GraphProto) -> list[Value | None]:
    """The outputs of `body`, its nodes added to the graph."""
    known: dict[str, Value] = {entry.name: value for entry, value in zip(body.input, operands, strict=True)}
    for tensor in body.initializer:
        known[tensor.name] = graph.constant(numpy_helper.to_array(tensor), hint=tensor.name)
    for inner in body.node:
        if inner.domain not in ("", "ai.onnx"):
            raise QirError(f"torchlib writes {node.op} with {inner.domain}.{inner.op_type}, which ONNX has not", node)
        if inner.op_type == "Constant":
            known[inner.output[0]] = graph.constant(_constant(inner), hint=inner.output[0])
            continue
        reads = [known[name] if name else None for name in inner.input]
        made = graph.add(inner.op_type, reads, attributes_of(inner), results=len(inner.output), like=node,
                         hint=inner.output[0])  # fmt: skip
        known.update(zip(inner.output, made.results, strict=True))
    return [known.get(entry.name) for entry in body.output]


def _constant(inner: onnx.NodeProto) -> Any:
    attribute: Mapping[str, Any] = {entry.name: helper.get_attribute_value(entry) for entry in inner.attribute}
    value = next(iter(attribute.values()))
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
