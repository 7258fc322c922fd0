"""The two kinds of vertex of a graph: operations, `Node`, and what they read and compute, `Value`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qir.attributes import Body
from qir.errors import Loc, QirError
from qir.ops import OpDef, definition
from qir.types import UNKNOWN, Type
from qir.weights import Weight

if TYPE_CHECKING:
    from qir.graph import Graph


class Use(NamedTuple):
    """Operand number `port` of `node`."""

    node: Node
    port: int


@dataclass(eq=False, slots=True, weakref_slot=True)
class Value:
    """One tensor or Python number. `hint` is a wish for a name, never an identity."""

    graph: Graph = field(repr=False)
    hint: str
    type: Type = UNKNOWN
    weight: Weight | None = None

    @property
    def node(self) -> Node | None:
        """The node that computes this value; None for an input or a weight."""
        return next(iter(self.graph.nx._pred[self]), None)

    @property
    def port(self) -> int:
        """Which result of its node this is."""
        for ports in self.graph.nx._pred[self].values():
            return int(next(iter(ports)))
        raise QirError(f"%{self.hint} is computed by no node")

    @property
    def uses(self) -> list[Use]:
        """Every operand that this value is. Being an output of the graph is no use."""
        return [Use(node, port) for node, ports in self.graph.nx._adj[self].items() for port in ports]

    @property
    def is_output(self) -> bool:
        """Whether the graph returns this value."""
        return any(value is self for value in self.graph.outputs)

    @property
    def array(self) -> np.ndarray:
        """The data of a weight. Raises QirError when the value is computed, or the data is not here."""
        if self.weight is None:
            raise QirError(f"%{self.hint} is not a weight", self.node)
        return self.weight.array

    @property
    def literal(self) -> Any:
        """The Python value of a constant that no state dictionary names (a number or nested list), else None."""
        if self.weight is None or self.weight.paths or self.weight.data is None:
            return None
        return self.weight.array.tolist()


@dataclass(eq=False, slots=True, weakref_slot=True)
class Node:
    """One operation: `op` applied to `operands` with `attrs`.

    `module` is the path of the layer that this call belongs to, None for a functional call. `order` ranks the nodes
    that draw random numbers or update state, whose order is part of their meaning. `host` is the framework's own
    object behind an opaque call, and `why_opaque` the frontend's reason for it.
    """

    __match_args__ = ("op", "operands")
    graph: Graph = field(repr=False)
    op: str
    attrs: dict[str, Any]
    module: str | None = None
    locs: tuple[Loc, ...] = ()
    order: int | None = None
    host: Any = field(default=None, repr=False)
    why_opaque: str = ""

    @property
    def definition(self) -> OpDef:
        """What is known about the operator: operands, attributes, traits, expansion."""
        return definition(self.op)

    @property
    def operands(self) -> list[Any]:
        """The values read, by port; None where an optional operand is left out before a later one.

        Typed loosely, so that a `match` statement or an unpacking may state which operands it expects.
        """
        return _by_port(self.graph.nx._pred[self])

    @property
    def results(self) -> list[Value]:
        """The values computed, by port."""
        return _by_port(self.graph.nx._adj[self])

    @property
    def bodies(self) -> list[Graph]:
        """The graphs among the attributes: the branches of an If, the body of a Loop."""
        return [value for value in self.attrs.values() if isinstance(value, Body)]  # type: ignore[misc]

    @property
    def captured(self) -> int:
        """How many of the last operands are values that the bodies read from around them, each as its last inputs."""
        return max((body.captured for body in self.bodies), default=0)

    @property
    def definitions(self) -> list[Node]:
        """The nodes that compute the operands, by port; as often as they are read."""
        computed = self.graph.nx._pred
        return [node for value in self.operands if value is not None for node in computed[value]]

    @property
    def result(self) -> Value:
        """The first result."""
        return self.results[0]

    @property
    def loc(self) -> Loc | None:
        """The first location, None when the frontend knew none."""
        return self.locs[0] if self.locs else None

    @property
    def scope(self) -> str:
        """The path of the module whose forward made this call; empty for the outermost."""
        return self.locs[0].scope if self.locs else ""

    @property
    def erased(self) -> bool:
        """Whether this node has left the graph."""
        return self not in self.graph.nx

    def attr(self, name: str) -> Any:
        """Attribute `name`, or its default. Raises QirError when it is neither given nor has a default."""
        if name in self.attrs:
            return self.attrs[name]
        return self.definition.default(name)

    def operand(self, at: int | str) -> Value | None:
        """The operand of this number, or the one that the operator's definition calls so; None when it is left out."""
        port, operands = at if isinstance(at, int) else self.definition.operands.index(at), self.operands
        return operands[port] if port < len(operands) else None

    def __str__(self) -> str:
        from qir.text.printing import statement

        return "an erased node" if self.erased else statement(self)


def _by_port(neighbours: Mapping[Any, Iterable[int]]) -> list[Any]:
    found: list[Any] = []
    for neighbour, ports in neighbours.items():
        for port in ports:
            if port != len(found):
                return _sorted_by_port(neighbours)
            found.append(neighbour)
    return found


def _sorted_by_port(neighbours: Mapping[Any, Iterable[int]]) -> list[Any]:
    by_port = {port: neighbour for neighbour, ports in neighbours.items() for port in ports}
    return [by_port.get(port) for port in range(max(by_port) + 1)]
