"""The stages of a graph: what it is before and after every pass, as a page shows them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from qir.facts import is_quantizer
from qir.graph import Graph, Node, Value
from qir.pages.modules import Path, Read, containers, enclosed, path_of
from qir.pages.records import Data, Tables, border, record
from qir.rewrite import Note, Outcome
from qir.text.printing import value_names
from qir.watch import Watcher

if TYPE_CHECKING:
    from qir.pipeline import Pass


@dataclass
class Stage:
    """One state of a graph. Its leaves are its inputs, operations and outputs, numbered in topological order.

    `same_as` has for each leaf a number that it keeps from stage to stage, whatever becomes of the operation; `changed`
    what differs in a leaf from the stage before. `around` and `reads` are what `modules.py` draws.
    """

    title: str
    numerics: str = ""
    leaves: list[Data] = field(default_factory=list)
    same_as: list[int] = field(default_factory=list)
    around: list[Path] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    changed: dict[int, list[str]] = field(default_factory=dict)
    notes: list[Data] = field(default_factory=list)


class Stages(Watcher):
    """A watcher that keeps every stage of a pipeline, for `qir.view`.

    An operation is the same in two stages when a pass left the node in place, or put in its place one that gives its
    result the same name.
    """

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self.tables = Tables()
        self.graph: Graph | None = None
        self._numbers: dict[Hashable, tuple[int, str]] = {}
        self._before: dict[int, dict[str, Any]] = {}
        self._texts: dict[str, int] = {}
        self._count = 0

    def before(self, step: Pass, graph: Graph) -> None:
        """Take in the graph that the pipeline begins with."""
        if not self.stages:
            self.add("as imported", graph)

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        """Take in the graph that `step` left."""
        self.add(str(step), graph, outcome, step.numerics)

    def add(self, title: str, graph: Graph, outcome: Outcome | None = None, numerics: str = "") -> Stage:
        """The stage that `graph` is now, behind those that there are."""
        names, self.graph = value_names(graph), graph
        nodes = graph.nodes()
        stage = Stage(title, numerics)
        stage.leaves = [border(value, names, self.tables, "input") for value in graph.inputs]
        stage.leaves += [record(node, names, self.tables) for node in nodes]
        stage.leaves += [border(value, names, self.tables, "output") for value in graph.outputs]
        paths = [(path_of(node.module or node.scope), node.module is not None) for node in nodes]
        stage.reads = _reads(graph, nodes)
        around: list[Path] = [*([()] * len(graph.inputs)), *containers(paths), *([()] * len(graph.outputs))]
        placed = {leaf for leaf, node in enumerate(nodes, len(graph.inputs)) if not _written(node)}
        stage.around = enclosed(around, stage.reads, placed)
        things = [*graph.inputs, *nodes, *(("output", number) for number in range(len(graph.outputs)))]
        hints = [value.hint for value in graph.inputs]
        hints += [node.results[0].hint if node.results else node.op for node in nodes]
        hints += [f"output {number}" for number in range(len(graph.outputs))]
        self._number(stage, things, hints)
        self._note(stage, nodes, outcome or Outcome())
        self.stages.append(stage)
        return stage

    def number_of(self, node: Node) -> int:
        """The lasting number of a node of the last stage."""
        return self._numbers[node][0]

    def named(self, name: str) -> int | None:
        """The lasting number of what gives the value of this name in the last stage."""
        return self._first(lambda leaf: any(name == given for given, _ in leaf["gives"]))

    def in_layer(self, path: str) -> int | None:
        """The lasting number of the first operation of a layer in the last stage."""
        return self._first(lambda leaf: leaf["path"] == path)

    def set_kind(self, number: int | None, kind: str) -> None:
        """Let the operation with this lasting number be of another kind in the last stage."""
        stage = self.stages[-1]
        for leaf, same_as in zip(stage.leaves, stage.same_as, strict=True):
            if same_as == number:
                leaf["kind"] = kind

    def _first(self, wanted: Callable[[Data], bool]) -> int | None:
        stage = self.stages[-1]
        return next((number for leaf, number in zip(stage.leaves, stage.same_as, strict=True) if wanted(leaf)), None)

    def _number(self, stage: Stage, things: list[Hashable], hints: list[str]) -> None:
        """Give the leaves their lasting numbers, and say what changed."""
        here, gone = set(things), dict[str, list[int]]()
        for thing, (number, hint) in self._numbers.items():
            if thing not in here:
                gone.setdefault(hint, []).append(number)
        numbers: dict[Hashable, tuple[int, str]] = {}
        for thing, hint in zip(things, hints, strict=True):
            if thing in self._numbers:
                number = self._numbers[thing][0]
            elif waiting := gone.get(hint):
                number = waiting.pop(0)
            else:
                number, self._count = self._count, self._count + 1
            numbers[thing] = number, hint
            stage.same_as.append(number)
        after = self._parts(stage)
        for leaf, number in enumerate(stage.same_as):
            before = self._before.get(number, after[number])
            if differing := [part for part, value in after[number].items() if before[part] != value]:
                stage.changed[leaf] = differing
        self._numbers, self._before = numbers, after

    def _parts(self, stage: Stage) -> dict[int, dict[str, Any]]:
        """What a leaf is compared by with the stage before, by its lasting number."""
        givers = {
            name: number for leaf, number in zip(stage.leaves, stage.same_as, strict=True) for name, _ in leaf["gives"]
        }
        rows = self.tables.encodings.rows
        return {
            number: {
                "operator": leaf["op"],
                "operands": [read and self._source(read, givers) for read in leaf["reads"]],
                "attributes": leaf["attrs"],
                "types": [type for _, type in leaf["gives"]],
                "layer": leaf["path"],
                "encoding": rows[leaf["encoding"]] if "encoding" in leaf else None,
            }
            for leaf, number in zip(stage.leaves, stage.same_as, strict=True)
        }

    def _source(self, read: Data, givers: Mapping[str, int]) -> Any:
        """What an operand is compared by: who gives it, or what a constant or weight holds, as far as it is known."""
        if "weight" in read:
            return self.tables.weights.rows[read["weight"]]
        return read.get("literal") or givers[read["name"]]

    def _note(self, stage: Stage, nodes: list[Node], outcome: Outcome) -> None:
        """What the pass says it did and left, each with the lasting number of the node that it is about."""
        here = {str(node): self._numbers[node][0] for node in nodes}
        texts, self._texts = self._texts | here, here
        names = {
            name: number for leaf, number in zip(stage.leaves, stage.same_as, strict=True) for name, _ in leaf["gives"]
        }
        for status, notes in (("done", outcome.done), ("left", outcome.missed)):
            for note in notes:
                about = texts.get(note.node) if note.tensor is None else names.get(note.tensor)
                stage.notes.append(self._noted(status, note, about))

    def _noted(self, status: str, note: Note, about: int | None) -> Data:
        line = None if note.loc is None else self.tables.lines.number(note.loc)
        return {"status": status, "about": about, "node": note.node, "reason": note.reason, "help": note.help,
                "line": line, "tensor": note.tensor}  # fmt: skip


def stages_of(graphs: Mapping[str, Graph] | Iterable[tuple[str, Graph]]) -> Stages:
    """Stages of graphs that stand for themselves, by title. Operations with the same name are the same."""
    made = Stages()
    for title, graph in graphs.items() if isinstance(graphs, Mapping) else graphs:
        made.add(title, graph)
    return made


def _written(node: Node) -> bool:
    """Whether the user wrote the operation, as a line of code tells."""
    return not is_quantizer(node) and any(loc.file for loc in node.locs)


def _reads(graph: Graph, nodes: list[Node]) -> list[Read]:
    """Every value that is computed or given and read, by the numbers of leaves."""
    leaf = dict[Node | Value, int](zip([*graph.inputs, *nodes], count()))
    outputs: dict[Value, list[int]] = {}
    for number, value in enumerate(graph.outputs, len(leaf)):
        outputs.setdefault(value, []).append(number)
    found = []
    for value in (*graph.inputs, *(result for node in nodes for result in node.results)):
        source = leaf[value] if value.node is None else leaf[value.node]
        readers = dict.fromkeys([*(leaf[use.node] for use in value.uses), *outputs.get(value, [])])
        if readers:
            found.append(Read(source, tuple(sorted(readers))))
    return found
