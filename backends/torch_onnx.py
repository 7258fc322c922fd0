"""How the operators of a graph that came from ONNX are called in torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from onnx import GraphProto
from torch import nn

from qir.backends import (  # noqa: F401  (they fill the table of functions)
    torch_onnx_arithmetic,
    torch_onnx_control,
    torch_onnx_norms,
    torch_onnx_picking,
    torch_onnx_recurrent,
    torch_onnx_resize,
    torch_onnx_shapes,
    torch_onnx_windows,
)
from qir.backends.onnx_opsets import CONVERSIONS
from qir.backends.torch_emissions import EMISSIONS, Emission, call, layer
from qir.backends.torch_onnx_control import If, Loop, Scan, SequenceMap
from qir.backends.torch_onnx_emissions import general_emission
from qir.backends.torch_onnx_runtime import OnnxOperator
from qir.errors import QirError
from qir.expansions import expansion_of
from qir.extensions import load_modules
from qir.graph import Graph, Node, Value
from qir.operators.python_numbers import of_numbers
from qir.types import is_known

load_modules("qir.torch")

Emit = Callable[[Graph], nn.Module]

COMPUTED = {"f32", "f64", "f16", "bf16", "i8", "i16", "i32", "i64", "u8", "bool", "c64", "c128"}
"""The dtypes that torch computes with. It has 16-bit unsigned integers too, and no more than conversions for them."""


def has_emission(node: Node) -> bool:
    """Whether `emission_of` says how the operator is called, unless it is refused."""
    return node.op in EMISSIONS or _is_onnx(node) or (node.definition.expand is not None and node.module is not None)


def _is_onnx(node: Node) -> bool:
    return node.definition.schema is not None or node.op.rpartition(".")[0] in node.graph.opsets


def emission_of(node: Node, emit: Emit) -> Emission | None:
    """How an operator is called; None for an opaque call.

    As a layer or function of torch, where the table of emissions takes the node; else as a function that covers the
    ONNX operator, as the modules of its bodies, or as the simpler operators that it is defined by; else, an ONNX
    operator, in onnxruntime. `emit` makes modules of graphs. Raises QirError when the table refuses what is no ONNX
    operator.
    """
    if (compute := of_numbers(node)) is not None:
        return call(compute, *node.operands)
    if not _is_onnx(node):
        return _by_table(node) or _by_expansion(node, emit)
    if computes_in_torch(node):
        for way in (_by_table, general_emission, partial(_by_bodies, emit=emit), partial(_by_expansion, emit=emit)):
            try:
                emission = way(node)
            except QirError:
                continue
            if emission is not None:
                return emission
    return call(OnnxOperator(node), *node.operands)


def computes_in_torch(node: Node) -> bool:
    """Whether torch has arithmetic for the dtypes of the node's operands and results, as far as they are known."""
    values = [value for value in [*node.operands, *node.results] if value is not None]
    dtypes = {_dtype(value.type) for value in values if is_known(value.type)}
    return dtypes <= (COMPUTED | {"u16"} if node.op in CONVERSIONS else COMPUTED)


def _dtype(type: Any) -> str | None:
    """The dtype of a tensor, or of the tensors in a container."""
    return _dtype(type.element) if hasattr(type, "element") else type.dtype


def _by_table(node: Node) -> Emission | None:
    return EMISSIONS[node.op](node) if node.op in EMISSIONS else None


def _by_bodies(node: Node, emit: Emit) -> Emission | None:
    return BODIES[node.op](node, emit) if node.op in BODIES else None


def _by_expansion(node: Node, emit: Emit) -> Emission | None:
    """The simpler operators that the operator is defined by, as a module; None when it has none or no layer."""
    expand = expansion_of(node)
    if expand is None or node.module is None:
        return None
    graph = Graph(node.op)
    operands = [None if value is None else _inside(graph, value) for value in node.operands]
    twin = graph.add(node.op, operands, node.attrs, types=[value.type for value in node.results])
    graph.outputs = list(expand(graph, twin))
    graph.erase_dead(twin)
    for number, part in enumerate(graph.nodes()):
        part.module = f"{part.op}_{number}"
        if any(isinstance(value, GraphProto) for value in part.attrs.values()):
            raise QirError(f"ONNX defines {node.op} by a {part.op} with a body of its own", node)
    pairs = zip(node.operands, operands, strict=True)
    return layer(emit(graph), *(value for value, inner in pairs if inner in graph.inputs))


def _inside(graph: Graph, value: Value) -> Value:
    """A literal in the other graph, or an input of it for anything else."""
    if value.weight is not None and not value.weight.paths:
        return graph.weight(value.weight, value.type)
    return graph.input(value.hint, value.type)


def _if(node: Node, emit: Emit) -> Emission:
    return layer(If(emit(node.attrs["then_branch"]), emit(node.attrs["else_branch"])), *node.operands)


def _loop(node: Node, emit: Emit) -> Emission:
    body = node.attrs["body"]
    limit, going, *others = node.operands
    return layer(Loop(emit(body), len(body.inputs) - body.captured - 2), limit, going, *others)


def _scan(node: Node, emit: Emit) -> Emission:
    body, scans = node.attrs["body"], node.attrs["num_scan_inputs"]
    states = len(body.inputs) - body.captured - scans
    outputs = len(node.results) - states
    options = [
        node.attr(name) or (0,) * count
        for name, count in (("scan_input_axes", scans), ("scan_input_directions", scans), ("scan_output_axes", outputs),
                            ("scan_output_directions", outputs))
    ]  # fmt: skip
    return layer(Scan(emit(body), states, *options), *node.operands)


def _sequence_map(node: Node, emit: Emit) -> Emission:
    body = node.attrs["body"]
    return layer(SequenceMap(emit(body), len(body.inputs) - body.captured), *node.operands)


BODIES: dict[str, Callable[[Node, Emit], Emission]] = {
    "If": _if, "Loop": _loop, "Scan": _scan, "SequenceMap": _sequence_map,
}  # fmt: skip
