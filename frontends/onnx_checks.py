"""What must be true of an ONNX model before it is imported. Everything that is wrong is said at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError

import onnx
from onnx import AttributeProto

from qir.errors import QirError
from qir.frontends.onnx_bodies import bodies_of, given_names, in_order
from qir.frontends.onnx_versions import schema_at
from qir.ops import VOCABULARY_OPSET

STANDARD = ("", "ai.onnx")
"""The two spellings of the domain of the standard operators."""

LEFT_OUT = {
    AttributeProto.GRAPHS: "a list of subgraphs",
    AttributeProto.TYPE_PROTOS: "a list of types",
    AttributeProto.SPARSE_TENSORS: "a list of sparse tensors",
}
"""The kinds of attributes that have no place in the graph."""

RESERVED = ("qir", "torch")
"""The domains of operators that are not ONNX's: composites, and calls of torch functions by their path."""

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_DOMAIN = re.compile(r"[A-Za-z_][\w.]*")


def standard_opset(model: onnx.ModelProto) -> int:
    """The opset of the standard operators; raises QirError when none is declared or the installed onnx is older."""
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    if not versions:
        if any(node.domain in STANDARD for node in model.graph.node):
            raise QirError("the model declares no opset for the standard operators", help="export it again")
        return VOCABULARY_OPSET
    if versions[0] < 1:
        raise QirError(f"the model has opset {versions[0]}, which there is not", help="export it again")
    if versions[0] > VOCABULARY_OPSET:
        raise QirError(
            f"the model has opset {versions[0]} and the installed onnx knows {VOCABULARY_OPSET}",
            help="install a newer onnx, or export the model at an older opset",
        )
    return int(versions[0])


def refuse(problems: Iterable[str], what: str) -> None:
    """Raise one QirError that lists `problems`, if there are any."""
    found = list(dict.fromkeys(problems))
    if found:
        more = [f"and {len(found) - 20} more"] if len(found) > 20 else []
        raise QirError(what.format(len(found)), stage="import", snippet="\n".join(found[:20] + more))


def check(model: onnx.ModelProto, opset: int) -> None:
    """Raise QirError, listing every problem, unless the model can be imported node by node."""
    refuse((f"{text!r} is no text" for text in _texts(model) if not isinstance(text, str)), "the model is damaged")
    refuse(_names(model.graph, set()), "the model is malformed in {0} ways")
    domains = {entry.domain for entry in model.opset_import}
    problems = [
        f"{_place(n)}: {text}" for g in _graphs(model.graph) for n in g.node for text in _left_out(n, opset, domains)
    ]
    problems += [
        f"{value.name}: it is no tensor, sequence, optional or map"
        for value in model.graph.input
        if _no_value(value.type)
    ]
    refuse(problems, "{0} parts of this model can not be imported")


def _texts(model: onnx.ModelProto) -> Iterator[object]:
    """Every name in the model. Damaged ones, which are not UTF-8, come as bytes."""
    yield from (entry.domain for entry in model.opset_import)
    for graph in _graphs(model.graph):
        yield from _texts_of(graph)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """`graph` and all bodies in it."""
    yield graph
    for node in graph.node:
        for body in bodies_of(node).values():
            yield from _graphs(body)


def _texts_of(graph: onnx.GraphProto) -> Iterator[object]:
    yield graph.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for tensor in [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]:
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for value in [*graph.input, *graph.output, *graph.value_info]:
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)


def _place(node: onnx.NodeProto) -> str:
    name = node.name or next((output for output in node.output if output), "")
    return f"{name} ({node.domain}{'.' * bool(node.domain)}{node.op_type})"


def _no_value(type: onnx.TypeProto) -> bool:
    return type.WhichOneof("value") in ("sparse_tensor_type", "opaque_type")


def _left_out(node: onnx.NodeProto, opset: int, domains: set[str]) -> Iterator[str]:
    """What the graph has no place for."""
    for attribute in node.attribute:
        if attribute.type in LEFT_OUT:
            yield LEFT_OUT[attribute.type]
        elif attribute.type == AttributeProto.UNDEFINED or attribute.ref_attr_name:
            yield f"the attribute {attribute.name!r} has no value"
        elif not _DOMAIN.fullmatch(attribute.name):
            yield f"the attribute {attribute.name!r} has no proper name"
    if not any(node.output):
        yield "it computes nothing"
    if node.domain in STANDARD:
        schema = schema_at(node.op_type, opset)
        if schema is None:
            yield f"there is no such operator at opset {opset}"
    elif node.domain.partition(".")[0] in RESERVED:
        yield f"the domain {node.domain!r} is not one of ONNX operators"
    elif node.domain not in domains:
        yield f"no opset is declared for the domain {node.domain!r}"
    elif not _IDENTIFIER.fullmatch(node.op_type) or not _DOMAIN.fullmatch(node.domain):
        yield "it has no proper name"


def _names(graph: onnx.GraphProto, around: set[str]) -> Iterator[str]:
    """Every tensor has one definition, everything read or returned has one, and nothing reads what it computes.

    The bodies of nodes may read what the graphs `around` them define.
    """
    yield from (f"the input {name!r} is there {n} times" for name, n in _repeated(value.name for value in graph.input))
    yield from (f"the output {name!r} is there {n} times" for name, n in _repeated(v.name for v in graph.output))
    yield from (
        f"the initializer {name!r} is there {n} times" for name, n in _repeated(t.name for t in graph.initializer)
    )
    given = set(given_names(graph))
    computed = Counter(name for node in graph.node for name in node.output if name)
    yield from (f"the tensor {name!r} is computed {n} times" for name, n in computed.items() if n > 1)
    yield from (f"the tensor {name!r} is computed and also given" for name in computed if name in given)
    known = around | given | set(computed)
    for node in graph.node:
        yield from (f"{_place(node)} reads {n!r}, which nothing computes" for n in node.input if n and n not in known)
        for body in bodies_of(node).values():
            yield from _names(body, known)
    yield from (f"the output {v.name!r} is computed by nothing" for v in graph.output if v.name not in known)
    try:
        in_order(graph.node)
    except CycleError as error:
        yield f"these nodes read what they compute: {', '.join(_place(graph.node[i]) for i in error.args[1][1:])}"


def _repeated(names: Iterable[str]) -> list[tuple[str, int]]:
    return [(name, count) for name, count in Counter(names).items() if count > 1]
