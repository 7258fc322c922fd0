"""Rewrite rules and the worklist that applies them.

A rule is a function from a node to the value that replaces its result (a list of values for several results, a mapping
where results of other nodes are replaced too), to `Miss("reason")` when the node is a candidate that must stay, or to
None when it is no candidate at all. A rule for a pattern (`qir.patterns`) is a function from a match.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from qir.errors import Loc, QirError
from qir.graph import Graph, Node, Value
from qir.ops import definition


@dataclass(frozen=True)
class Miss:
    """Why a rule left a node alone, and what the user may change about that. `qir explain` shows it."""

    reason: str
    help: str = ""


Rewritten = Value | Sequence[Value] | Mapping[Value, Value] | Miss | None
Rule = Callable[[Node, Graph], Rewritten]


class Pattern(Protocol):
    """What a node may match; what it matches is what a rule for the pattern is given."""

    def is_kind(self, node: Node) -> bool:
        """Whether the node has the pattern's operator or trait."""

    def match(self, node: Node) -> Any:
        """How the pattern stands at the node; `Miss` for a candidate that does not match, None for none."""


Rules = Mapping[Any, Callable[[Any, Graph], Rewritten]]
"""Rules, each by the name of an operator, by a trait, or by a pattern."""


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


def rewrite(graph: Graph, rules: Rules) -> Outcome:
    """Apply `rules` until none applies, visiting what a change touches and nothing else.

    Where several are for one operator, the first that replaces something counts. Raises QirError for a name that no
    operator has, and, with the rule's name, when the rules do not settle.
    """
    table = _Table(rules)
    outcome = Outcome()
    work = list(reversed(graph.nodes()))
    pending = set(work)
    missed: dict[Node, Note] = {}
    budget = 8 * len(work) + 64
    while work:
        node = work.pop()
        pending.discard(node)
        rules_here = () if node.erased else table.of(node)
        if not rules_here:
            continue
        missed.pop(node, None)
        rule, new, added = _first(rules_here, node, graph)
        if isinstance(new, Miss):
            missed[node] = Note.of(node, new)
        elif new is not None:
            name = getattr(rule, "__name__", str(rule))
            if len(outcome.done) >= budget:
                raise QirError(f"{name} does not settle: {budget} rewrites and no end", node)
            by_old = _by_old(node, new)
            outcome.done.append(Note.of(node, became(added, by_old.values())))
            around = _replace(graph, name, node, by_old, added)
            again = [other for other in dict.fromkeys([*added, *around]) if other not in pending]
            pending.update(again)
            work += reversed(again)
    outcome.missed += (note for node, note in missed.items() if not node.erased)
    return outcome


def became(added: Sequence[Node], new: Iterable[Value] = ()) -> str:
    """What a rewrite made of a node, as `qir explain` shows it: the nodes that it added, or the values themselves."""
    if added:
        return f"becomes {' + '.join(node.op for node in added)}"
    weights = [value.weight for value in new if value.weight is not None]
    names = [f"the weight {weight.paths[0]}" if weight.paths else "a constant" for weight in weights]
    return f"becomes {' and '.join(names)}" if names else "is replaced by a value that is already there"


class _Table:
    """The rules for each operator, in the order in which they are given."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.known: dict[str, list[Rule]] = {}
        for key in rules:
            if isinstance(key, str):
                definition(key)

    def of(self, node: Node) -> list[Rule]:
        if node.op not in self.known:
            self.known[node.op] = [_rule(key, rule) for key, rule in self.rules.items() if _concerns(key, node)]
        return self.known[node.op]


def _concerns(key: Any, node: Node) -> bool:
    if isinstance(key, str):
        return node.op == key
    return node.definition.trait(key) is not None if isinstance(key, type) else bool(key.is_kind(node))


def _rule(key: Any, given: Callable[[Any, Graph], Rewritten]) -> Rule:
    if isinstance(key, str | type):
        return given
    pattern: Pattern = key

    def rule(node: Node, graph: Graph) -> Rewritten:
        found = pattern.match(node)
        return found if found is None or isinstance(found, Miss) else given(found, graph)

    rule.__name__ = getattr(given, "__name__", str(given))
    return rule


def _first(rules: Sequence[Rule], node: Node, graph: Graph) -> tuple[Rule, Rewritten, list[Node]]:
    """The first rule that replaces something, what by, and the nodes that it added; else the first that missed."""
    tried = []
    for rule in rules:
        new, added = _apply(rule, node, graph)
        tried.append((rule, new, added))
        if new is not None and not isinstance(new, Miss):
            return tried[-1]
    return next((each for each in tried if each[1] is not None), tried[0])


def _apply(rule: Rule, node: Node, graph: Graph) -> tuple[Rewritten, list[Node]]:
    """What the rule gives for the node, and the nodes that it added."""
    added: list[Node] = []
    graph.added = added
    try:
        return rule(node, graph), added
    finally:
        graph.added = None


def _replace(graph: Graph, rule: str, node: Node, new: Mapping[Value, Value], added: list[Node]) -> list[Node]:
    """Put new values in the place of old ones while watchers look on; the nodes around them, which may now match."""
    for watcher in graph.watchers:
        watcher.replacing(rule, node, new, added)
    around = _substitute(graph, new)
    for watcher in graph.watchers:
        watcher.replaced()
    return around


def _by_old(node: Node, new: Value | Sequence[Value] | Mapping[Value, Value]) -> Mapping[Value, Value]:
    """What a rule gave for the node: for each value that is replaced, the new one."""
    if isinstance(new, Mapping):
        return new
    values, results = [new] if isinstance(new, Value) else list(new), node.results
    if len(values) != len(results):
        raise QirError(f"a rule gave {len(values)} values for {len(results)} results", node)
    return dict(zip(results, values, strict=True))


def _substitute(graph: Graph, new: Mapping[Value, Value]) -> list[Node]:
    """Put new values in the place of old ones; the nodes around them, which may now match."""
    nodes = list(dict.fromkeys(old.node for old in new if old.node is not None))
    around = {use.node: None for old in new for use in old.uses}
    around |= {value.node: None for value in new.values() if value.node is not None}
    read = [value for node in nodes for value in dict.fromkeys(node.operands) if value is not None]
    for old, value in new.items():
        if old is not value:
            graph.replace(old, value)
    for node in nodes:
        if not node.erased:
            graph.erase_dead(node)
    if any(node.erased for node in nodes):
        around |= {reader: None for value in read for reader in _left_alone(graph, value)}
    return list(around)


def _left_alone(graph: Graph, value: Value) -> list[Node]:
    """What computes `value` and what reads it, where a reader that went has left a single one."""
    if value not in graph.nx or len(graph.nx._adj[value]) > 1:
        return []
    return [node for node in (value.node, *(use.node for use in value.uses)) if node is not None]
