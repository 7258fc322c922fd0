"""One ONNX graph, that of a model or the body of a node, as a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from qir.errors import Loc, QirError
from qir.frontends.onnx_bodies import bodies_of, captured_names, in_order, reads
from qir.frontends.onnx_checks import STANDARD, refuse
from qir.frontends.onnx_files import attributes, constant_array, dense_array, tensor_array
from qir.frontends.onnx_parameters import is_parameter, is_weight
from qir.frontends.onnx_scan import scan_of_batches, scans_batches
from qir.frontends.onnx_types import refined
from qir.frontends.onnx_versions import modern, schema_at
from qir.graph import Graph, Node, Value
from qir.infer import SMALL
from qir.ops import definition
from qir.proto import tensor_of
from qir.text.printing import INLINE, Names
from qir.types import Type, from_proto, to_proto
from qir.weights import Weight


@dataclass(frozen=True)
class Setting:
    """What holds in all graphs of a model: the standard opset, the versions of foreign domains, where data lies."""

    opset: int
    domains: Mapping[str, int]
    folder: Path | None


@dataclass
class GraphImporter:
    """Imports `source`. In a body, `captured` has the values of the graph around it that it reads."""

    source: onnx.GraphProto
    setting: Setting
    captured: Mapping[str, Value] | None = None
    graph: Graph = field(default_factory=Graph)
    values: dict[str, Value] = field(default_factory=dict)
    modules: Names = field(default_factory=Names)
    tensors: Names = field(default_factory=Names)
    declared: dict[str, Type] = field(default_factory=dict)
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = field(default_factory=dict)

    def run(self) -> Graph:
        """The graph. Raises one QirError for all nodes that have no place in it."""
        source = self.source
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
        """Inputs, initializers, which an input of the same name may declare, and what a body captures."""
        for node in self.source.node:
            for port, name in enumerate(reads(node)):
                self.readers.setdefault(name, []).append((node, port))
        for tensor in self.source.initializer:
            self.initializer(tensor.name, tensor_array(tensor, self.setting.folder))
        for sparse in self.source.sparse_initializer:
            self.initializer(sparse.values.name, dense_array(sparse, self.setting.folder))
        for value in self.source.input:
            if value.name not in self.values:
                self.values[value.name] = self.graph.input(value.name, from_proto(value.type))
        for name, outer in (self.captured or {}).items():
            self.values[name] = self.graph.input(name, outer.type)
        self.graph.captured = len(self.captured or {})

    def initializer(self, name: str, array: np.ndarray) -> None:
        """A weight. Those of a body have no path: they are no part of the model's state."""
        name = self.tensors.name(name, name)
        plain = self.captured is not None or self.acts_as_attribute(name, array)
        trains = not plain and any(is_parameter(*use, array) for use in self.readers.get(name, ()))
        weight = Weight(array, () if plain else (name,), trainable=trains)
        self.values[name] = self.graph.weight(weight, hint=name)

    def acts_as_attribute(self, name: str, array: np.ndarray) -> bool:
        """Whether the initializer is a literal, by the rule that `onnx_model` states."""
        readers = self.readers.get(name, [])
        if array.ndim > 1 or array.size > INLINE or array.dtype == object or any(is_weight(*use) for use in readers):
            return False
        return array.ndim == 0 or array.dtype == np.int64 or all(self.takes_one_type(*use) for use in readers)

    def takes_one_type(self, node: onnx.NodeProto, port: int) -> bool:
        """Whether the operator takes one element type there and no other."""
        schema = schema_at(node.op_type, self.setting.opset) if node.domain in STANDARD else None
        return schema is not None and port < len(schema.inputs) and "tensor(" in str(schema.inputs[port].type_str)

    def nodes(self) -> None:
        """Every node, as the vocabulary's opset writes it."""
        problems: list[str] = []
        for node in in_order(self.source.node):
            place = node.name or next(name for name in node.output if name)
            try:
                if node.domain in STANDARD:
                    self.standard(node, place)
                else:
                    self.graph.opsets[node.domain] = self.setting.domains[node.domain]
                    self.add(node, place)
            except QirError as error:
                inside = error.snippet.splitlines() if error.stage == "import" and error.snippet else [error.message]
                problems += [f"{place} ({node.op_type}): {line}" for line in inside]
                for name in node.output:
                    self.values[name] = self.graph.input(name)
        refuse(problems, "{0} nodes of this model can not be imported")

    def standard(self, node: onnx.NodeProto, place: str) -> None:
        """A node of the standard domain, or the nodes that took its place since."""
        if scans_batches(node, self.setting.opset):
            batched = onnx.NodeProto()
            batched.CopyFrom(node)
            del batched.input[0]
            self.add(batched, place, make=scan_of_batches)
            return
        operands = {name: self.values[name] for name in node.input if name}
        types = {name: to_proto(value.type) for name, value in operands.items()}
        small = {n: v for n, v in operands.items() if v.weight is not None and v.weight.array.size <= SMALL}
        data = {name: tensor_of(value, name) for name, value in small.items()}
        known = {"", *node.input, *node.output}
        replaced = modern(node, self.setting.opset, types, data)
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

    def add(self, node: onnx.NodeProto, place: str, suffix: str = "", make: Callable[..., Node] = Graph.add) -> None:
        """One node of the vocabulary's opset, in a layer of its own: `place`, or with `suffix` a part of it."""
        if node.op_type == "Constant" and node.domain in STANDARD:
            array = constant_array(node, self.setting.folder)
            self.values[node.output[0]] = self.graph.constant(array, node.output[0])
            return
        op = node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}"
        used = max(port for port, name in enumerate(node.output) if name) + 1
        limit = definition(op).max_results
        if limit is not None and used > limit:
            raise QirError(f"{op} has {used} results, and at most {limit} are possible")
        module = self.modules.name((node.output[0], op, len(self.modules.of)), place + suffix)
        captured = captured_names(node)
        added = make(
            self.graph,
            op,
            [self.values[name] if name else None for name in [*_without_tail(node.input), *captured]],
            attributes(node, self.setting.folder) | self.bodies(node, captured),
            results=max(used, definition(op).min_results),
            module=module,
            locs=(Loc(scope=place),),
        )
        for port, value in enumerate(added.results):
            name = node.output[port] if port < used else ""
            value.hint = name or self.tensors.name(value, f"{module}_{port}")
            value.type = refined(value.type, self.declared.get(name))
            self.values[name] = value

    def bodies(self, node: onnx.NodeProto, captured: Sequence[str]) -> dict[str, Graph]:
        """The bodies of `node`, each of which takes all that any of them captures."""
        outer = {name: self.values[name] for name in captured}
        found = {name: GraphImporter(body, self.setting, outer).run() for name, body in bodies_of(node).items()}
        for body in found.values():
            self.graph.opsets.update(body.opsets)
            body.opsets.clear()
        return found


def _without_tail(names: Sequence[str]) -> list[str]:
    """`names` without the empty ones at the end."""
    count = max((port + 1 for port, name in enumerate(names) if name), default=0)
    return list(names[:count])
