"""Why a pass changed a node or a tensor, or left it: as data, for `qir explain` and for Python."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pass, Pipeline
from qir.rewrite import Note, Outcome
from qir.watch import Watcher

_NAME = re.compile(r'%("(?:[^"\\]|\\.)*"|[\w./-]+)')


@dataclass(frozen=True)
class Reason:
    """What one pass did to a node or tensor, or why it left it.

    `step` is the pass as text. `node` is the node as it stood, in graph text, `op` its operator, `layer` its path and
    `values` the names of its results; all are empty for what is about the whole graph or a rule. `tensor` names the
    tensor that the reason is about, None where it is about the node. `help` says what the user may change, `line` where
    the node was written; both may be empty.
    """

    step: str
    done: bool
    reason: str
    help: str
    node: str
    op: str
    layer: str
    values: tuple[str, ...]
    tensor: str | None
    line: str

    @classmethod
    def of(cls, step: Pass, note: Note, done: bool) -> Reason:
        """The reason that a pass noted."""
        before, equals, _ = note.node.partition(" = ")
        values = tuple(name.strip('"') for name in _NAME.findall(before)) if equals else ()
        return cls(str(step), done, note.reason, note.help, note.node, note.op, note.module or "", values, note.tensor,
                   str(note.loc or ""))  # fmt: skip

    def concerns(self, glob: str) -> bool:
        """Whether the glob names the tensor, or a result or the layer of the node."""
        pattern = glob.removeprefix("%")
        named = (self.tensor,) if self.tensor is not None else (*self.values, self.layer)
        return pattern == "*" or any(fnmatchcase(name or "", pattern) for name in named)


class Reasons(Watcher):
    """Keeps the reasons of every pass of a pipeline; `steps` holds (pass, outcome)."""

    def __init__(self) -> None:
        self.steps: list[tuple[Pass, Outcome]] = []

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        self.steps.append((step, outcome))

    def all(self) -> Iterator[Reason]:
        """The reasons of all passes, in order."""
        for step, outcome in self.steps:
            yield from noted(step, outcome)


def noted(step: Pass, outcome: Outcome) -> Iterator[Reason]:
    """The reasons that a pass notes."""
    yield from (Reason.of(step, note, True) for note in outcome.done)
    yield from (Reason.of(step, note, False) for note in outcome.missed)


def reasons(step: Pass, outcome: Outcome) -> list[Reason]:
    """The reasons that a pass notes; where it notes none, that it found nothing to do."""
    found = list(noted(step, outcome))
    return found or [Reason.of(step, Note("", "", None, None, nothing_to_do(step)), False)]


def nothing_to_do(step: Pass) -> str:
    """Why a pass neither did nor left anything."""
    about = (inspect.getdoc(type(step)) or step.name).partition("\n")[0].rstrip(".:")
    return f"nothing in this graph is for it ({about})"


def explain(graph: Graph, passes: str | Pipeline, about: str = "*") -> list[Reason]:
    """What the last of `passes` does to `graph` and why it leaves the rest; `graph` is not changed.

    `about` is a glob for the names of tensors, and of results and layers of nodes. Raises QirError when there is no
    pass, and what the passes raise.
    """
    pipeline = Pipeline.parse(passes, given=graph) if isinstance(passes, str) else passes
    if not pipeline.passes:
        raise QirError("there is no pass to explain", help="`qir passes` lists them")
    watch = Reasons()
    pipeline.run(graph.copy(), [watch])
    return about_only(reasons(*watch.steps[-1]), about)


def about_only(found: Iterable[Reason], glob: str) -> list[Reason]:
    """The reasons about what the glob names."""
    return [reason for reason in found if reason.concerns(glob)]
