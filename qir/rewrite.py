"""Rewrite rules and the worklist that applies them.

A rule is a function from a node to the value that replaces its result (a list of values for several results), to
`Miss("reason")` when the node is a candidate that must stay, or to None when it is no candidate at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from qir.errors import Loc, QirError
from qir.graph import Graph, Node, Value
from qir.ops import definition


@dataclass(frozen=True)
class Miss:
    """Why a rule left a node alone, and what the user may change about that. `qir explain` shows it."""

    reason: str
    help: str = ""


Rule = Callable[[Node, Graph], "Value | Sequence[Value] | Miss | None"]


@dataclass(frozen=True)
class Note:
    """What a pass did to one node, or why it did nothing: the node as it stood, and where the user wrote it.

    `help` says what the user may change, where there is something; `tensor` names the one value that the note is about,
    None when it is about the node.
    """

    node: str
    op: str
    module: str | None
    loc: Loc | None
    reason: str
    help: str = ""
    tensor: str | None = None

    @classmethod
    def of(cls, node: Node, why: str | Miss) -> Note:
        """The note about `node` as it stands now."""
        miss = Miss(why) if isinstance(why, str) else why
        return cls(str(node), node.op, node.module, node.loc, miss.reason, miss.help)


@dataclass
class Outcome:
    """What a pass did: one note for every node that it changed, one for every candidate that it left."""

    done: list[Note] = field(default_factory=list)
    missed: list[Note] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Append what another run did."""
        self.done += other.done
        self.missed += other.missed


def rewrite(graph: Graph, rules: Mapping[str, Rule]) -> Outcome:
    """Apply `rules` (by operator name) until none applies, visiting what a change touches and nothing else.

    Raises QirError for a name that no operator has, and, with the rule's name, when the rules do not settle.
    """
    for op in rules:
        definition(op)
    outcome = Outcome()
    work = list(reversed(graph.nodes()))
    pending = set(work)
    missed: dict[Node, Note] = {}
    budget = 8 * len(work) + 64
    while work:
        node = work.pop()
        pending.discard(node)
        rule = None if node.erased else rules.get(node.op)
        if rule is None:
            continue
        missed.pop(node, None)
        new, added = _apply(rule, node, graph)
        if isinstance(new, Miss):
            missed[node] = Note.of(node, new)
        elif new is not None:
            name = getattr(rule, "__name__", str(rule))
            if len(outcome.done) >= budget:
                raise QirError(f"{name} does not settle: {budget} rewrites and no end", node)
            outcome.done.append(Note.of(node, _became(added)))
            around = _substitute(graph, node, [new] if isinstance(new, Value) else list(new))
            again = [other for other in dict.fromkeys([*added, *around]) if other not in pending]
            pending.update(again)
            work += reversed(again)
    outcome.missed += (note for node, note in missed.items() if not node.erased)
    return outcome


def _became(added: Sequence[Node]) -> str:
    """What a rewrite made of a node, as `qir explain` shows it."""
    if not added:
        return "is replaced by a value that is already there"
    return f"becomes {' + '.join(node.op for node in added)}"


def _apply(rule: Rule, node: Node, graph: Graph) -> tuple[Value | Sequence[Value] | Miss | None, list[Node]]:
    """What the rule gives for the node, and the nodes that it added."""
    added: list[Node] = []
    graph.added = added
    try:
        return rule(node, graph), added
    finally:
        graph.added = None


def _substitute(graph: Graph, node: Node, new: Sequence[Value]) -> list[Node]:
    """Put `new` in the place of the results of `node`; the nodes around it, which may now match."""
    results = node.results
    if len(new) != len(results):
        raise QirError(f"a rule gave {len(new)} values for {len(results)} results", node)
    around = {use.node: None for result in results for use in result.uses}
    around |= {value.node: None for value in new if value.node is not None}
    read = [value for value in dict.fromkeys(node.operands) if value is not None]
    for old, value in zip(results, new, strict=True):
        if old is not value:
            graph.replace(old, value)
    graph.erase_dead(node)
    if node.erased:
        around |= {reader: None for value in read for reader in _left_alone(graph, value)}
    return list(around)


def _left_alone(graph: Graph, value: Value) -> list[Node]:
    """What computes `value` and what reads it, where a reader that went has left a single one."""
    if value not in graph.nx or len(graph.nx._adj[value]) > 1:
        return []
    return [node for node in (value.node, *(use.node for use in value.uses)) if node is not None]
