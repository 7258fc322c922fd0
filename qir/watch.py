"""Watchers: what may look on while a pipeline runs. Each sees the graph before and after every pass."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.errors import QirError
from qir.evaluate import Arrays, evaluate
from qir.files import write_text
from qir.graph import Graph
from qir.rewrite import Outcome
from qir.verify import verify

if TYPE_CHECKING:
    from qir.pipeline import Pass


class Stop(Exception):
    """Raised by a watcher to end the pipeline after the pass that it saw."""


class Watcher:
    """Looks on. Subclasses override what they need; neither method may change the graph."""

    def before(self, step: Pass, graph: Graph) -> None:
        """Called with the graph that `step` is about to transform."""

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        """Called with the graph that `step` left, and what it says it did."""


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


@dataclass
class Record(Watcher):
    """Writes one JSON object a pass: its text, the number of nodes, what it changed and what it left, and why."""

    path: Path
    _lines: list[str] = field(default_factory=list)

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        entry = {"pass": str(step), "nodes": len(graph.nodes()), **asdict(outcome)}
        self._lines.append(json.dumps(entry, default=str))
        write_text(self.path, "\n".join(self._lines) + "\n")


@dataclass
class SameNumbers(Watcher):
    """Runs the graph on `inputs` before and after every pass and holds `exact` passes to their word.

    Raises QirError that names the first pass that lied and the first value that differs. `differences` keeps the
    largest absolute difference of an output for every pass. `rounding` is what `rounds` passes may differ by, relative
    to the largest output.
    """

    inputs: Arrays
    rounding: float = 1e-4
    differences: list[tuple[str, float]] = field(default_factory=list)
    _before: list[Any] = field(default_factory=list)
    _values: dict[str, Any] = field(default_factory=dict)

    def before(self, step: Pass, graph: Graph) -> None:
        self._values = {}
        self._before = evaluate(graph, self.inputs, lambda value, result: self._values.update({value.hint: result}))

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        first: list[tuple[Any, str]] = []

        def look(value: Any, result: Any) -> None:
            known = self._values.get(value.hint)
            if not first and known is not None and np.shape(known) == np.shape(result) and _apart(known, result):
                first.append((value.node, value.hint))

        after = evaluate(graph, self.inputs, look)
        gap = max((_apart(a, b) for a, b in zip(self._before, after, strict=True)), default=0.0)
        self.differences.append((str(step), gap))
        size = max((float(np.max(np.abs(a), initial=0)) for a in self._before), default=0.0)
        allowed = {"exact": 0.0, "rounds": self.rounding * max(size, 1e-30), "changes": np.inf}[step.numerics]
        if gap > allowed:
            node, name = first[0] if first else (None, "")
            message = f"{step.name} claims to be {step.numerics!r} but an output differs by {gap:g}"
            raise QirError(message, node, stage="same numbers", 
                           help=f"the first value that differs is %{name}" if name else None)  # fmt: skip


def _apart(a: Any, b: Any) -> float:
    """The largest absolute difference, infinite when only one is NaN or the shapes differ."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or np.any(np.isnan(a) != np.isnan(b)):
        return float("inf")
    same = (a == b) | np.isnan(a)
    return float(np.max(np.abs(np.where(same, 0, a - b)), initial=0))
