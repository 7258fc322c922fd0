"""What must be true of an ONNX model before it is imported. Everything that is wrong is said at once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

import onnx
from onnx import AttributeProto

from qir.errors import QirError
from qir.frontends.onnx_versions import schema_at
from qir.ops import VOCABULARY_OPSET

STANDARD = ("", "ai.onnx")
"""The two spellings of the domain of the standard operators."""

LEFT_OUT = {
    AttributeProto.GRAPH: "a subgraph",
    AttributeProto.GRAPHS: "subgraphs",
    AttributeProto.TYPE_PROTO: "a type as attribute",
    AttributeProto.TYPE_PROTOS: "types as attributes",
    AttributeProto.SPARSE_TENSOR: "a sparse tensor",
    AttributeProto.SPARSE_TENSORS: "sparse tensors",
}
"""The kinds of attributes that have no place in the graph."""

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
    refuse(_names(model.graph), "the model is malformed in {0} ways")
    domains = {entry.domain for entry in model.opset_import}
    problems = [f"{_place(node)}: {text}" for node in model.graph.node for text in _left_out(node, opset, domains)]
    problems += [f"{value.name}: it is no tensor" for value in model.graph.input if _no_tensor(value.type)]
    problems += [f"{sparse.values.name}: a sparse initializer" for sparse in model.graph.sparse_initializer]
    refuse(problems, "{0} parts of this model can not be imported")


def _texts(model: onnx.ModelProto) -> Iterator[object]:
    """Every name in the model. Damaged ones, which are not UTF-8, come as bytes."""
    graph = model.graph
    yield graph.name
    yield from (entry.domain for entry in model.opset_import)
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


def _no_tensor(type: onnx.TypeProto) -> bool:
    return type.WhichOneof("value") not in (None, "tensor_type")


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
        elif any(int(attribute.type) in LEFT_OUT for attribute in schema.attributes.values() if attribute.required):
            yield "a subgraph"
        elif any(not any(type[:7] == "tensor(" for type in formal.types) for formal in _ports(schema)):
            yield "sequences, maps and optionals"
    elif node.domain not in domains:
        yield f"no opset is declared for the domain {node.domain!r}"
    elif not _IDENTIFIER.fullmatch(node.op_type) or not _DOMAIN.fullmatch(node.domain):
        yield "it has no proper name"


def _ports(schema: onnx.defs.OpSchema) -> list[onnx.defs.OpSchema.FormalParameter]:
    return [*schema.inputs, *schema.outputs]


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    """Every tensor has one definition, everything read or returned has one, and nothing reads what it computes."""
    yield from (f"the input {name!r} is there {n} times" for name, n in _repeated(value.name for value in graph.input))
    yield from (f"the output {name!r} is there {n} times" for name, n in _repeated(v.name for v in graph.output))
    yield from (
        f"the initializer {name!r} is there {n} times" for name, n in _repeated(t.name for t in graph.initializer)
    )
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    computed = Counter(name for node in graph.node for name in node.output if name)
    yield from (f"the tensor {name!r} is computed {n} times" for name, n in computed.items() if n > 1)
    yield from (f"the tensor {name!r} is computed and also given" for name in computed if name in given)
    known = given | set(computed)
    for node in graph.node:
        yield from (f"{_place(node)} reads {n!r}, which nothing computes" for n in node.input if n and n not in known)
    yield from (f"the output {v.name!r} is computed by nothing" for v in graph.output if v.name not in known)
    try:
        in_order(graph.node)
    except CycleError as error:
        yield f"these nodes read what they compute: {', '.join(_place(graph.node[i]) for i in error.args[1][1:])}"


def _repeated(names: Iterable[str]) -> list[tuple[str, int]]:
    return [(name, count) for name, count in Counter(names).items() if count > 1]


def in_order(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """`nodes`, those computed first that others read. Raises graphlib.CycleError when there is no such order."""
    listed = list(nodes)
    makers = {name: position for position, node in enumerate(listed) for name in node.output if name}
    sorter = TopologicalSorter({i: [makers[n] for n in node.input if n in makers] for i, node in enumerate(listed)})
    return [listed[position] for position in sorter.static_order()]
