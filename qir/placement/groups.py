"""Finds the groups of operators that a kernel computes together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from qir.graph import Graph, Node, Value
from qir.patterns import Op, Operand
from qir.placement.placement import Group
from qir.rewrite import Note
from qir.traits import Weighted


@dataclass(frozen=True)
class Match:
    """A group in a graph: the node at each step."""

    group: Group
    nodes: tuple[Node, ...]

    @property
    def kernel(self) -> Node:
        """The node whose settings hold for the result; a batch norm that folds has none."""
        node = self.nodes[self.group.kernel]
        return next((step for step in self.nodes if node is self._norm_after(step)), node)

    @property
    def end(self) -> Value:
        """The result of the group."""
        return _line(self.group, self.nodes, self.nodes[-1])[-1]

    def inner(self) -> Iterator[Value]:
        """What is computed inside of the group and read nowhere else."""
        end = self.end
        for node in self.nodes:
            yield from (value for value in _line(self.group, self.nodes, node) if value is not end)

    def norms(self) -> Iterator[Node]:
        """The batch norms that fold into the nodes."""
        found = (self._norm_after(node) for node in self.nodes)
        return (node for node in found if node is not None)

    def _norm_after(self, node: Node) -> Node | None:
        return node.result.uses[0].node if self.group.folds_norms and precedes_norm(node) else None

    def __str__(self) -> str:
        return "+".join(node.op.rpartition(".")[2] for node in self.nodes)


def precedes_norm(node: Node) -> bool:
    """Whether the one thing that reads the node's result is a batch norm that can be folded into it."""
    value = node.result
    if len(value.uses) != 1 or value.is_output:
        return False
    reader, port = value.uses[0]
    weighted = node.definition.trait(Weighted)
    foldable = weighted is not None and weighted.bias is not None and weighted.output_axis(node) is not None
    return foldable and reader.op == "BatchNormalization" and port == 0


def _line(group: Group, nodes: Sequence[Node], node: Node) -> list[Value]:
    """The result of a step, and that of the batch norm which folds into it, if the group has no step for that."""
    value = node.result
    if group.folds_norms and precedes_norm(node) and (norm := value.uses[0].node) not in nodes:
        return [value, norm.result]
    return [value]


class _Step(Op):
    """A step of a group: it reads others as any of its operands, and past the batch norms that fold into them."""

    def __init__(self, group: Group, fits: Callable[[Node], bool], sources: Sequence[Op], taken: set[Node]) -> None:
        super().__init__("", *sources)
        self.group, self.fits, self.taken = group, fits, taken

    def is_kind(self, node: Node) -> bool:
        return node not in self.taken and self.fits(node)

    def places(self, node: Node) -> Iterator[Sequence[tuple[Operand, int]]]:
        for ports in permutations(range(len(node.operands)), len(self.operands)):
            yield list(zip(self.operands, ports, strict=True))

    def behind(self, value: Value, port: int) -> list[Node]:
        node = value.node
        norm = node is not None and self.group.folds_norms and node.op == "BatchNormalization"
        folding = node.operands[0].node if node is not None and norm else None
        return [found for found in (node, folding if folding and precedes_norm(folding) else None) if found is not None]


def _pattern(group: Group, taken: set[Node]) -> list[Op]:
    """A pattern for each step, that of the last one for the group; no node that is `taken` stands for one."""
    steps: list[Op] = []
    for number, fits in enumerate(group.steps):
        sources = [steps[source] for source, reader in group.edges if reader == number]
        steps.append(_Step(group, fits, sources, taken))
    return steps


def matches(graph: Graph, groups: Sequence[Group]) -> tuple[list[Match], list[Note], set[Group]]:
    """The matches that share no node, larger groups first; why near ones are none; the groups that matched."""
    taken: set[Node] = set()
    found: list[Match] = []
    missed: dict[tuple[Node, str], Note] = {}
    nodes = graph.nodes()
    for group in sorted(groups, key=lambda group: -len(group.steps)):
        steps = _pattern(group, taken)
        for last in nodes:
            ways = [tuple(way[step] for step in steps) for way in steps[-1].ways(last)]
            obstacles = [_obstacle(group, way) for way in ways]
            if None in obstacles:
                whole = ways[obstacles.index(None)]
                found.append(Match(group, whole))
                taken.update(whole)
            elif ways:
                name = str(Match(group, ways[0]))
                note = Note.of(ways[0][0], f"is not one kernel {name}: {obstacles[0]}")
                missed.setdefault((ways[0][0], name), note)
    left = [note for (node, _), note in missed.items() if node not in taken]
    return found, left, {match.group for match in found}


def _obstacle(group: Group, nodes: tuple[Node, ...]) -> str | None:
    """What else reads the middle of the group."""
    for step, node in enumerate(nodes[:-1]):
        value = _line(group, nodes, node)[-1]
        expected = [nodes[reader] for source, reader in group.edges if source == step]
        outside = [use.node for use in value.uses if use.node not in expected]
        if value.is_output:
            return f"%{value.hint} is an output of the graph"
        if outside:
            return f"{outside[0].op} reads %{value.hint} too"
    return None
