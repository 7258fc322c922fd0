"""Watchers: what may look on while a pipeline runs. Each sees the graph before and after every pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from qir.errors import QirError
from qir.files import write_text
from qir.graph import Graph, Node, Value
from qir.rewrite import Outcome
from qir.verify import verify

if TYPE_CHECKING:
    from qir.pipeline import Pass


class Stop(Exception):
    """Raised by a watcher to end the pipeline after the pass or the rewrite that it saw."""


class Watcher:
    """Looks on. Subclasses override what they need; no method may change the graph.

    Drivers of rewrites tell of every replacement. What a pass does to a graph beside them is seen between passes alone.
    """

    def before(self, step: Pass, graph: Graph) -> None:
        """Called with the graph that `step` is about to transform."""

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        """Called with the graph that `step` left, and what it says it did."""

    def replacing(self, rule: str, node: Node, new: Mapping[Value, Value], added: Sequence[Node]) -> None:
        """Called when `rule` rewrites `node`, with the values that are about to take the places of others.

        `added` are the nodes that the rule added for it.
        """

    def replaced(self) -> None:
        """Called when they have taken the places. Raising `Stop` ends the pipeline with the graph as it stands."""


class Verify(Watcher):
    """Verifies the graph after every pass. Raises QirError that names the pass."""

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        try:
            verify(graph)
        except QirError as error:
            error.stage = f"verify after {step.name}"
            raise


class Outcomes(Watcher):
    """Keeps what every pass says it did."""

    def __init__(self) -> None:
        self.kept: list[Outcome] = []

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        self.kept.append(outcome)


@dataclass
class PrintAfter(Watcher):
    """Gives the text of the graph to `write` after the passes named (all of them, when none is)."""

    names: Sequence[str] = ()
    write: Callable[[str], None] = print

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        if not self.names or step.name in self.names:
            self.write(f"// after {step}\n{graph}")


@dataclass
class SaveAfter(Watcher):
    """Writes the text of the graph into `folder` after every pass: `01_lift-functionals.qir` and so on."""

    folder: Path
    count: int = 0

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        self.count += 1
        write_text(self.folder / f"{self.count:02}_{step.name}.qir", f"// after {step}\n{graph}\n")


@dataclass
class Timing(Watcher):
    """Keeps the seconds that every pass took, in order: `seconds` holds (pass, seconds)."""

    seconds: list[tuple[str, float]] = field(default_factory=list)
    _started: float = 0.0

    def before(self, step: Pass, graph: Graph) -> None:
        self._started = time.perf_counter()

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        self.seconds.append((str(step), time.perf_counter() - self._started))


@dataclass
class StopAfter(Watcher):
    """Ends the pipeline after the pass with this name, or after this many passes."""

    what: str | int
    _seen: int = 0

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        self._seen += 1
        if self.what in (step.name, self._seen):
            raise Stop
