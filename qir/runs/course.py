"""A run of a pipeline, kept: the graph at any step of it, and what became of every tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from qir.graph import Graph, Node, Value
from qir.pipeline import Pipeline
from qir.rewrite import Outcome
from qir.same_numbers import tensors_of
from qir.watch import Stop, Watcher

if TYPE_CHECKING:
    from qir.pipeline import Pass


class Position(NamedTuple):
    """A place in a run: behind so many passes, and so many rewrites of the next pass."""

    passes: int
    rewrites: int = 0


@dataclass(frozen=True)
class Stage:
    """A graph between two passes. `heirs` has what stands in it for tensors that the first graph computed."""

    graph: Graph
    heirs: Mapping[Value, Value]


@dataclass
class StopAfterRewrites(Watcher):
    """Ends a pipeline after so many rewrites."""

    count: int

    def replaced(self) -> None:
        self.count -= 1
        if self.count == 0:
            raise Stop


@dataclass
class Course(Watcher):
    """The run of a pipeline on a copy of a graph; weights are shared.

    `stages` are the graphs before the first pass and after each, `rewrites` counts those of every pass, and `moved` has
    for each tensor of the first graph the positions behind the rewrites that gave it a new heir.
    """

    pipeline: Pipeline
    tensors: list[Value]
    stages: list[Stage] = field(default_factory=list)
    rewrites: list[int] = field(default_factory=list)
    moved: dict[Value, list[Position]] = field(default_factory=dict)
    _ancestors: dict[Value, list[Value]] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph, pipeline: Pipeline, watch: Sequence[Watcher] = ()) -> Course:
        """The run of `pipeline` on `graph`, which stays as it is; `watch` looks on, too."""
        running = graph.copy()
        course = cls(pipeline, tensors_of(running))
        course._ancestors = {tensor: [tensor] for tensor in course.tensors}
        course._keep(running)
        pipeline.run(running, [course, *watch])
        return course

    def before(self, step: Pass, graph: Graph) -> None:
        self.rewrites.append(0)

    def replacing(self, rule: str, node: Node, new: Mapping[Value, Value], added: Sequence[Node]) -> None:
        self.rewrites[-1] += 1
        here = Position(len(self.rewrites) - 1, self.rewrites[-1])
        for old, heir in new.items():
            ancestors = self._ancestors.pop(old, [])
            self._ancestors.setdefault(heir, []).extend(ancestors)
            for tensor in ancestors:
                self.moved.setdefault(tensor, []).append(here)

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        self._keep(graph)

    def _keep(self, graph: Graph) -> None:
        copy, twins = graph.copy_with_map()
        standing = {heir: tensors for heir, tensors in self._ancestors.items() if heir in graph.nx and heir.node}
        heirs = {tensor: twins[heir] for heir, tensors in standing.items() for tensor in tensors}
        self.stages.append(Stage(copy, heirs))

    @property
    def end(self) -> Position:
        """Behind the last pass."""
        return Position(len(self.rewrites))

    def previous(self, position: Position) -> Position:
        """The position one step before: behind the rewrite or the pass before."""
        passes, rewrites = position
        return Position(passes, rewrites - 1) if rewrites else Position(passes - 1, self.rewrites[passes - 1])

    def middle(self, low: Position, high: Position) -> Position:
        """A position between two: behind a pass where one ends between them, else behind a rewrite."""
        first = low.passes + 1
        last = high.passes if high.rewrites else high.passes - 1
        if first <= last:
            return Position((first + last) // 2)
        count = high.rewrites or self.rewrites[low.passes] + 1
        return Position(low.passes, (low.rewrites + count) // 2)

    def graph(self, position: Position, watch: Sequence[Watcher] = ()) -> Graph:
        """The graph at a position, which may be changed. Inside a pass, that pass is run again up to there."""
        graph = self.stages[position.passes].graph.copy()
        if position.rewrites:
            step = self.pipeline.passes[position.passes]
            Pipeline((step,)).run(graph, [*watch, StopAfterRewrites(position.rewrites)])
        return graph
