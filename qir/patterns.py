"""Finds the groups of operators that a kernel computes together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qir.graph import Graph, Node, Value
from qir.placement import Group
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


def matches(graph: Graph, groups: Sequence[Group]) -> tuple[list[Match], list[Note], set[Group]]:
    """The matches that share no node, larger groups first; why near ones are none; the groups that matched."""
    taken: set[Node] = set()
    found: list[Match] = []
    missed: dict[tuple[Node, str], Note] = {}
    nodes = graph.nodes()
    for group in sorted(groups, key=lambda group: -len(group.steps)):
        for last in nodes:
            if last in taken or not group.steps[-1](last):
                continue
            whole = next(_extended(group, (last,), taken), None)
            obstacle = None if whole is None else _obstacle(group, whole)
            if whole is not None and obstacle is None:
                found.append(Match(group, whole))
                taken.update(whole)
            elif whole is not None:
                name = str(Match(group, whole))
                missed.setdefault((whole[0], name), Note.of(whole[0], f"is not one kernel {name}: {obstacle}"))
    left = [note for (node, _), note in missed.items() if node not in taken]
    return found, left, {match.group for match in found}


def _extended(group: Group, nodes: tuple[Node, ...], taken: set[Node]) -> Iterator[tuple[Node, ...]]:
    """Every way to find the steps before `nodes`, those that nothing else reads first."""
    step = len(group.steps) - len(nodes) - 1
    if step < 0:
        yield nodes
        return
    readers = [nodes[reader - step - 1] for source, reader in group.edges if source == step]
    ways = [
        whole
        for node in _sources(group, readers[0])
        if node not in taken and node not in nodes and group.steps[step](node)
        if all(node in _sources(group, reader) for reader in readers)
        for whole in _extended(group, (node, *nodes), taken)
    ]
    yield from sorted(ways, key=lambda whole: _obstacle(group, whole) is not None)


def _sources(group: Group, node: Node) -> list[Node]:
    """The nodes that compute the operands, and those before a batch norm that folds into them."""
    found = list(dict.fromkeys(node.definitions))
    before = [norm.operands[0].node for norm in found if norm.op == "BatchNormalization"] if group.folds_norms else []
    return [*found, *(folding for folding in before if folding is not None and precedes_norm(folding))]


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
