"""ONNX models as graphs, one node to one node.

Tensor names become hints and node names module paths, exactly; weights stay where they are. Three things change form:

* Nodes of opsets whose meaning changed since are rewritten by ONNX's version converter, alone (`onnx_versions`).
* Calls of functions that the model defines are replaced by the functions' nodes.
* `Constant` nodes, and initializers that act as an attribute, become literals: those of at most 16 elements that are
  numbers, vectors of i64 (shapes, axes, pads), or vectors read only where the operator takes no other element type
  (the scales of Resize). A weight or bias stays a weight of whatever size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import inliner

from qir.errors import Loc, QirError
from qir.frontends.onnx_checks import STANDARD, check, in_order, refuse, standard_opset
from qir.frontends.onnx_files import attributes, constant_array, read_model, tensor_array
from qir.frontends.onnx_types import refined
from qir.frontends.onnx_versions import modern, schema_at
from qir.graph import Graph, Value
from qir.infer import SMALL
from qir.ops import VOCABULARY_OPSET, definition
from qir.proto import tensor_of
from qir.text import INLINE, Names
from qir.traits import Weighted
from qir.types import TensorType, from_proto, to_proto
from qir.weights import Weight


def import_onnx(model: onnx.ModelProto | Path | str) -> Graph:
    """The graph of an ONNX model, or of the model in a file.

    Raises one QirError for a model that is damaged or malformed, or that holds what no graph can: subgraphs (If, Loop,
    Scan), sequences, maps, optionals and sparse tensors. It lists all of them.
    """
    folder = None
    if not isinstance(model, onnx.ModelProto):
        folder, model = Path(model).parent, read_model(Path(model))
    nodes = _inlined(model) if model.functions else model
    opset = standard_opset(nodes)
    check(nodes, opset)
    return _Importer(nodes, opset, folder).run()


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` without calls of its own functions. Its weights do not pass through the inliner."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    given = {value.name for value in model.graph.input}
    del bare.graph.initializer[:]
    bare.graph.input.extend(onnx.ValueInfoProto(name=t.name) for t in model.graph.initializer if t.name not in given)
    try:
        result = inliner.inline_local_functions(bare, convert_version=True)
    except (RuntimeError, ValueError) as error:
        raise QirError(f"the functions of the model can not be inlined: {error}", stage="import") from None
    del result.graph.input[:]
    result.graph.input.extend(model.graph.input)
    result.graph.initializer.extend(model.graph.initializer)
    return result


@dataclass
class _Importer:
    model: onnx.ModelProto
    opset: int
    folder: Path | None
    graph: Graph = field(default_factory=Graph)
    values: dict[str, Value] = field(default_factory=dict)
    modules: Names = field(default_factory=Names)
    tensors: Names = field(default_factory=Names)
    declared: dict[str, TensorType] = field(default_factory=dict)
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = field(default_factory=dict)

    def run(self) -> Graph:
        source = self.model.graph
        self.graph.name = source.name or "main"
        self.declared = {v.name: from_proto(v.type) for v in [*source.value_info, *source.output]}
        for name in [n for node in source.node for n in node.output] + [v.name for v in source.input]:
            self.tensors.name(name, name)
        self.given()
        self.nodes()
        self.graph.outputs = [self.values[value.name] for value in source.output]
        for value in self.graph.weights():
            if not value.uses and not value.is_output:
                self.graph.remove_weight(value)
        return self.graph

    def given(self) -> None:
        """Inputs, and initializers, which an input of the same name may declare."""
        source = self.model.graph
        for node in source.node:
            for port, name in enumerate(node.input):
                self.readers.setdefault(name, []).append((node, port))
        for tensor in source.initializer:
            array, name = tensor_array(tensor, self.folder), self.tensors.name(tensor.name, tensor.name)
            paths = () if self.acts_as_attribute(name, array) else (name,)
            self.values[name] = self.graph.weight(Weight(array, paths), hint=name)
        for value in source.input:
            if value.name not in self.values:
                self.values[value.name] = self.graph.input(value.name, from_proto(value.type))

    def acts_as_attribute(self, name: str, array: np.ndarray) -> bool:
        """Whether the initializer is a literal, by the rule that the module states."""
        readers = self.readers.get(name, [])
        if array.ndim > 1 or array.size > INLINE or array.dtype == object or any(_is_weight(*use) for use in readers):
            return False
        return array.ndim == 0 or array.dtype == np.int64 or all(self.takes_one_type(*use) for use in readers)

    def takes_one_type(self, node: onnx.NodeProto, port: int) -> bool:
        schema = schema_at(node.op_type, self.opset) if node.domain in STANDARD else None
        return schema is not None and port < len(schema.inputs) and "tensor(" in str(schema.inputs[port].type_str)

    def nodes(self) -> None:
        """Every node, as the vocabulary's opset writes it. Raises one QirError for all that have no place there."""
        problems: list[str] = []
        for node in in_order(self.model.graph.node):
            place = node.name or next(name for name in node.output if name)
            try:
                if node.domain in STANDARD:
                    self.standard(node, place)
                else:
                    self.add(node, place)
            except QirError as error:
                problems.append(f"{place} ({node.op_type}): {error.message}")
                for name in node.output:
                    self.values[name] = self.graph.input(name)
        refuse(problems, "{0} nodes of this model can not be imported")

    def standard(self, node: onnx.NodeProto, place: str) -> None:
        operands = {name: self.values[name] for name in node.input if name}
        types = {name: to_proto(value.type) for name, value in operands.items()}
        small = {n: v for n, v in operands.items() if v.weight is not None and v.weight.array.size <= SMALL}
        data = {name: tensor_of(value, name) for name, value in small.items()}
        known = {"", *node.input, *node.output}
        replaced = modern(node, self.opset, types, data)
        for value in replaced.value_info:
            self.declared.setdefault(value.name, from_proto(value.type))
        scoped: dict[str, str] = {}
        for newer in replaced.node:
            for names in (newer.input, newer.output):
                for port, name in enumerate(names):
                    if name not in known:
                        names[port] = scoped.setdefault(name, self.tensors.name((node.output[0], name), place))
            main = newer.op_type == node.op_type or newer is replaced.node[-1]
            self.add(newer, place, "" if main else f"/{newer.op_type}")

    def add(self, node: onnx.NodeProto, place: str, suffix: str = "") -> None:
        """One node of the vocabulary's opset, in a layer of its own: `place`, or with `suffix` a part of it."""
        if node.op_type == "Constant" and node.domain in STANDARD:
            self.values[node.output[0]] = self.graph.constant(constant_array(node, self.folder), node.output[0])
            return
        op = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
        used = max(port for port, name in enumerate(node.output) if name) + 1
        limit = definition(op).max_results
        if limit is not None and used > limit:
            raise QirError(f"{op} has {used} results, and at most {limit} are possible")
        module = self.modules.name((node.output[0], op, len(self.modules.of)), place + suffix)
        added = self.graph.add(
            op,
            [self.values[name] if name else None for name in _without_tail(node.input)],
            attributes(node, self.folder),
            results=max(used, definition(op).min_results),
            module=module,
            locs=(Loc(scope=place),),
        )
        for port, value in enumerate(added.results):
            name = node.output[port] if port < used else ""
            value.hint = name or self.tensors.name(value, f"{module}_{port}")
            value.type = refined(value.type, self.declared.get(name))
            self.values[name] = value


def _is_weight(node: onnx.NodeProto, port: int) -> bool:
    if node.domain not in STANDARD or schema_at(node.op_type, VOCABULARY_OPSET) is None:
        return False
    weighted = definition(node.op_type).trait(Weighted)
    return weighted is not None and port in (weighted.weight, weighted.bias)


def _without_tail(names: Sequence[str]) -> list[str]:
    """`names` without the empty ones at the end."""
    count = max((port + 1 for port, name in enumerate(names) if name), default=0)
    return list(names[:count])
