"""Which kernels make and read a tensor, past the operators that only move it and inside of what a kernel absorbs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from qir.graph import Graph, Node, Use, Value
from qir.placement.groups import Match
from qir.placement.placement import Settings, parameter_names
from qir.traits import KeepsGrid, Shapes, Unary
from qir.types import ScalarType


def is_float(value: Value | None) -> bool:
    """Whether the value is a tensor of float32, as far as its dtype is known."""
    return value is not None and not isinstance(value.type, ScalarType) and value.type.dtype in ("f32", None)


def activation_ports(node: Node) -> list[int]:
    """The operands that hold what flows through the model: no parameters, no sizes, no limits."""
    definition = node.definition
    first = definition.trait(Unary) is not None or definition.trait(KeepsGrid) is not None
    operands, parameters = node.operands[:1] if first else node.operands, parameter_names(node)
    return [port for port, value in enumerate(operands) if port not in parameters and is_float(value)]


class Flow:
    """The tensors of a graph between its kernels. `settings` has those of every node that a rule quantizes."""

    def __init__(self, graph: Graph, settings: Mapping[Node, Settings], found: Sequence[Match]) -> None:
        self.graph = graph
        self.settings = settings
        self.group_of = {node: match for match in found for node in match.nodes}
        self.match_of_inner = {value: match for match in found for value in match.inner()}
        self.match_of_end = {match.end: match for match in found}
        self._ports: dict[Node, list[int]] = {}

    def ports(self, node: Node) -> list[int]:
        """`activation_ports`, which the graph does not change while it is decided about."""
        if node not in self._ports:
            self._ports[node] = activation_ports(node)
        return self._ports[node]

    def writer(self, value: Value) -> Node | None:
        """The node whose settings hold for the value, None for an input or a weight."""
        match = self.match_of_end.get(value)
        return value.node if match is None else match.kernel

    def moves(self, node: Node) -> bool:
        """Whether the node only passes on what it reads, quantized or not."""
        settings = self.settings.get(node)
        return settings is not None and settings.writes is not None and settings.writes.value == "as-read"

    def origin(self, value: Value) -> Value:
        """What the value was before it was moved."""
        node = self.writer(value)
        while node is not None and self.moves(node):
            value = node.operands[0]
            node = self.writer(value)
        return value

    def source(self, value: Value) -> Node | None:
        """The kernel that the value comes from, past data movement."""
        return self.writer(self.origin(value))

    def ends(self, node: Node) -> list[Value]:
        """The results of a kernel, as they leave the group that it is in."""
        match = self.group_of.get(node)
        return node.results if match is None else [match.end]

    def kernel(self, node: Node) -> Node:
        """The node itself, or the kernel of its group."""
        match = self.group_of.get(node)
        return node if match is None else match.kernel

    def readers(self, value: Value) -> Iterator[Use]:
        """Every use of the value by a kernel, past data movement; uses as a shape are none."""
        for use in value.uses:
            if self.moves(use.node) and use.port == 0:
                for result in use.node.results:
                    yield from self.readers(result)
            elif use.node.definition.trait(Shapes) is None:
                yield use

    def leaves(self, value: Value) -> bool:
        """Whether the value is an output of the graph, as it is or moved."""
        return value.is_output or any(
            self.leaves(result) for use in value.uses if self.moves(use.node) for result in use.node.results
        )
