"""Patterns for rewrite rules: the operators around a node, and what keeps a node from matching.

    x = Input()
    gate = Op("Sigmoid", x)
    SWISH = Op("Mul", x, gate)

An `Op` is a node, by the name of its operator or by a trait, with a pattern for each of its operands. A pattern that
stands in two places stands for the same thing in both, so a pattern is a graph, as a model is: `x` above is read twice.
The patterns are the names of what they match: `found[gate]` is the node, `found[x]` the value.

Operands of an operator that `Commutes` match in any order. `None` is an operand that is left out, `...` behind the
others any further ones, and `split[1]` the second result of the pattern `split`. Nothing but the match may read what
the operators inside of it compute, except of those that are `Shared`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from types import EllipsisType
from typing import Union, overload

from qir.graph import Node, Value
from qir.rewrite import Miss
from qir.traits import Commutes, Trait


class Input:
    """Any value."""

    def mismatch(self, value: Value) -> str:
        """What keeps the value from being this one, to be read behind the operand's name; empty when nothing does."""
        return ""


class Constant(Input):
    """A value that does not depend on the inputs of the graph: a weight or a literal."""

    def mismatch(self, value: Value) -> str:
        return "" if value.weight is not None else "is computed, not a constant"


class Op:
    """The result of an operator. `kind` is its name or a trait, `attributes` are those that it must have."""

    def __init__(self, kind: str | type[Trait], *operands: Operand, **attributes: object) -> None:
        self.kind = kind
        self.operands = tuple(operand for operand in operands if not isinstance(operand, EllipsisType))
        self.open = len(self.operands) < len(operands)
        self.attributes = attributes

    def __getitem__(self, port: int) -> Result:
        """Result number `port`."""
        return Result(self, port)

    def __str__(self) -> str:
        return self.kind if isinstance(self.kind, str) else f"an operator with the trait {self.kind.__name__}"

    def match(self, node: Node) -> Match | Miss | None:
        """How this pattern stands at the node, or why not; None when too little of it is there to be a candidate.

        A node is a candidate when two of the pattern's operators are there, or all.
        """
        search = _Search()
        for bound in search.node(self, node, {}) if self.is_kind(node) else ():
            reader = _read_outside(self, bound)
            if reader is None:
                return Match(bound)
            search.fail(bound, reader)
        return Miss(search.reason) if search.depth >= self.candidate_from() else None

    def ways(self, node: Node) -> Iterator[Match]:
        """Every way in which this pattern stands at the node, whatever else reads the inside of it."""
        return map(Match, _Search().node(self, node, {})) if self.is_kind(node) else iter(())

    def candidate_from(self) -> int:
        """How many operators have to be there for a node to be a candidate."""
        return 2 if any(isinstance(operand, Op | Result) for operand in self.operands) else 1

    def mismatch(self, node: Node) -> str:
        """What keeps the node, its operands aside, from being this one; empty when nothing does."""
        for name, wanted in self.attributes.items():
            if node.attr(name) != wanted:
                return f"{name} of {node.op} is {node.attr(name)!r}, not {wanted!r}"
        return ""

    def is_kind(self, node: Node) -> bool:
        """Whether the node has this operator or trait."""
        return node.op == self.kind if isinstance(self.kind, str) else node.definition.trait(self.kind) is not None

    def behind(self, value: Value, port: int) -> list[Node]:
        """The nodes of which the value counts as result number `port`."""
        return [value.node] if value.node is not None and value.port == port else []

    def places(self, node: Node) -> Iterator[Sequence[tuple[Operand, int]]]:
        """The ways to put the pattern's operands on those of the node, by number; none when the counts differ."""
        count = len(node.operands)
        if self.open or len(self.operands) >= count:
            ports = range(max(count, len(self.operands)))
            orders = permutations(ports, len(self.operands)) if node.definition.trait(Commutes) else [ports]
            yield from (list(zip(self.operands, order, strict=False)) for order in orders)


class Candidate(Op):
    """An operator that is a candidate by itself: what does not match around it is always reported."""

    def candidate_from(self) -> int:
        return 1


class Shared(Op):
    """An operator inside of a pattern whose results may be read outside of the match, and stay then."""


@dataclass(frozen=True)
class Result:
    """Result number `port` of an operator."""

    op: Op
    port: int


Operand = Union[Input, Op, Result, EllipsisType, None]  # noqa: UP007  (a name that is defined later stands in it)
Bound = Mapping[Op | Input, Node | Value]


@dataclass(frozen=True)
class Match:
    """What stands for each pattern."""

    bound: Bound

    @property
    def nodes(self) -> list[Node]:
        """The nodes, that of the whole pattern first."""
        return [found for found in self.bound.values() if isinstance(found, Node)]

    @overload
    def __getitem__(self, pattern: Op) -> Node: ...
    @overload
    def __getitem__(self, pattern: Input) -> Value: ...
    def __getitem__(self, pattern: Op | Input) -> Node | Value:
        """The node that an operator stands for, the value that an input or constant stands for."""
        return self.bound[pattern]


@dataclass
class _Search:
    """Tries the ways to match, and keeps the reason that the farthest of them failed for."""

    depth: int = 0
    reason: str = ""

    def fail(self, bound: Bound, reason: str) -> None:
        depth = sum(isinstance(pattern, Op) for pattern in bound)
        if depth > self.depth:
            self.depth, self.reason = depth, reason

    def node(self, op: Op, node: Node, bound: Bound) -> Iterator[Bound]:
        """The ways in which `op`, whose kind the node is, stands there."""
        bound = {**bound, op: node}
        if reason := op.mismatch(node):
            self.fail(bound, reason)
            return
        ways = list(op.places(node))
        if not ways:
            self.fail(bound, f"{node.op} reads {len(node.operands)} operands, not {len(op.operands)}")
        for places in ways:
            yield from self.operands(node, places, bound)

    def operands(self, node: Node, places: Sequence[tuple[Operand, int]], bound: Bound) -> Iterator[Bound]:
        if not places:
            yield bound
            return
        (pattern, port), *rest = places
        for more in self.operand(node, port, pattern, bound):
            yield from self.operands(node, rest, more)

    def operand(self, node: Node, port: int, pattern: Operand, bound: Bound) -> Iterator[Bound]:
        """The ways in which operand number `port` of the node is what the pattern says."""
        operands, name = node.operands, f"operand {_name(node, port)} of {node.op}"
        value = operands[port] if port < len(operands) else None
        if value is None or pattern is None:
            if value is pattern:
                yield bound
            else:
                self.fail(bound, f"{name} is {'left out' if value is None else 'given'}")
        elif isinstance(pattern, Input):
            reason = pattern.mismatch(value) if pattern not in bound else _other(bound[pattern], value)
            if reason:
                self.fail(bound, f"{name} {reason}")
            else:
                yield {**bound, pattern: value}
        elif isinstance(pattern, Op | Result):
            yield from self.result(name, value, pattern, bound)

    def result(self, name: str, value: Value, pattern: Op | Result, bound: Bound) -> Iterator[Bound]:
        op, port = (pattern.op, pattern.port) if isinstance(pattern, Result) else (pattern, 0)
        nodes = op.behind(value, port)
        if op in bound:
            if bound[op] in nodes:
                yield bound
            else:
                self.fail(bound, f"{name} {_other(bound[op], value)}")
            return
        fitting = [node for node in nodes if op.is_kind(node) and node not in bound.values()]
        if not fitting:
            self.no_result(name, value, op, port, bound)
        for node in fitting:
            yield from self.node(op, node, bound)

    def no_result(self, name: str, value: Value, op: Op, port: int, bound: Bound) -> None:
        node = value.node
        if node is None:
            self.fail(
                bound,
                f"{name} is {'an input of the graph' if value.weight is None else 'a constant'}, not computed by {op}",
            )
        elif not op.is_kind(node):
            self.fail(bound, f"{name} is computed by {node.op}, not by {op}")
        elif value.port != port:
            self.fail({**bound, op: node}, f"{name} is result {value.port} of {node.op}, not result {port}")
        else:
            self.fail({**bound, op: node}, f"{name} is %{value.hint} once more, where the pattern has another {op}")


def _name(node: Node, port: int) -> str:
    names = node.definition.operands
    return names[port] if port < len(names) else str(port)


def _other(expected: Node | Value, value: Value) -> str:
    """What is said of a value that should be another one; nothing when it is that one."""
    wanted = expected.result if isinstance(expected, Node) else expected
    return "" if value is wanted else f"is %{value.hint}, not %{wanted.hint}"


def _read_outside(root: Op, bound: Bound) -> str | None:
    """What else reads the inside of a match."""
    nodes = {found for found in bound.values() if isinstance(found, Node)}
    for pattern, node in bound.items():
        if not isinstance(node, Node) or pattern is root or isinstance(pattern, Shared):
            continue
        for value in node.results:
            if value.is_output:
                return f"%{value.hint} is an output of the graph"
            outside = next((use.node for use in value.uses if use.node not in nodes), None)
            if outside is not None:
                return f"{outside.op} reads %{value.hint} too"
    return None
