"""The log of a run of a pipeline: every rewrite and every pass as a line of JSON, `run.qirlog`.

The first line is the header: the number of the format, `qirlog`, the hash of the graph before the first pass, the
versions of qir and onnx, and what the writer wants to add. A line follows for every step, in order:

* a rewrite: its number `step`, the `pass` as text, the `rule`, the user's `line`, the nodes `before` and `after` as
  graph text, and the `seconds` of finding and building it;
* the end of a pass, which is a step too, because passes change graphs beside their rewrites: `step`, `pass`, a null
  `rule`, `nodes` and the hash of the `graph` that it left, what it says it has `done` and `missed`, and `seconds`.

The last line has the number of steps as `end`. Apart from the seconds, two runs on the same input write the same.

A log is written line by line while the pipeline runs, so a run that fails leaves every step before the failure; a log
without an `end` is of such a run. A last line that was cut off is not read.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from qir.errors import QirError
from qir.graph import Graph, Node, Value
from qir.rewrite import Note, Outcome
from qir.runs.versions import versions
from qir.text.printing import Names, fragment, shown_alone
from qir.watch import Watcher

if TYPE_CHECKING:
    from qir.pipeline import Pass

FORMAT = 1
"""The number of the format of logs."""


@dataclass(frozen=True)
class Step:
    """A rewrite, or the end of a pass: then `rule` is None, and `graph` and `nodes` say what the pass left."""

    number: int
    within: str
    rule: str | None = None
    line: str = ""
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    graph: str = ""
    nodes: int = 0
    done: tuple[dict[str, Any], ...] = ()
    missed: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0

    @property
    def what(self) -> tuple[Any, ...]:
        """What two runs on the same input must have in common: neither times nor places in source files."""
        return self.within, self.rule, self.before, self.after, self.graph, self.nodes

    def document(self) -> dict[str, Any]:
        """The step as a JSON object."""
        begun = {"step": self.number, "pass": self.within, "rule": self.rule}
        if self.rule is None:
            more = {"nodes": self.nodes, "graph": self.graph, "done": self.done, "missed": self.missed}
        else:
            more = {"line": self.line, "before": self.before, "after": self.after}
        return {**begun, **more, "seconds": round(self.seconds, 6)}

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Self:
        """The step that has this document. Raises KeyError and TypeError for another document."""
        made = cls(entry["step"], entry["pass"], entry["rule"], seconds=entry["seconds"])
        if made.rule is None:
            notes = tuple(entry["done"]), tuple(entry["missed"])
            return replace(made, graph=entry["graph"], nodes=entry["nodes"], done=notes[0], missed=notes[1])
        return replace(made, line=entry["line"], before=tuple(entry["before"]), after=tuple(entry["after"]))

    def __str__(self) -> str:
        if self.rule is None:
            return f"{self.number}  {self.within}: ends with {self.nodes} operations, {self.graph}"
        lines = [f"{self.number}  {self.within}: {self.rule}" + (f"  --> {self.line}" if self.line else "")]
        return "\n".join([*lines, *(f"  - {text}" for text in self.before), *(f"  + {text}" for text in self.after)])


def graph_hash(graph: Graph) -> str:
    """16 hexadecimal digits of a hash of the graph's text, weights by content, without the user's lines."""
    plain = graph.copy()
    for node in plain.nodes():
        node.locs = ()
    return hashlib.blake2b(str(plain).encode(), digest_size=8).hexdigest()


class Steps(Watcher):
    """Makes a step of every rewrite and of the end of every pass, and hands it to `take`."""

    def __init__(self) -> None:
        self.count = 0
        self._within = ""
        self._resumed = 0.0
        self._next: Step | None = None

    def take(self, step: Step) -> None:
        """Called with every step as soon as it is done."""
        raise NotImplementedError

    def before(self, step: Pass, graph: Graph) -> None:
        self._within = str(step)
        self._resumed = time.perf_counter()

    def replacing(self, rule: str, node: Node, new: Mapping[Value, Value], added: Sequence[Node]) -> None:
        seconds = time.perf_counter() - self._resumed
        names = Names()
        old = fragment(dict.fromkeys([node, *(value.node for value in new if value.node is not None)]), names)
        made = fragment(added, names)
        made += [f"{shown_alone(value, names)} --> {shown_alone(other, names)}" for value, other in new.items()]
        line = str(node.loc or "")
        self._next = Step(self.count + 1, self._within, rule, line, tuple(old), tuple(made), seconds=seconds)
        self._resumed = time.perf_counter()

    def replaced(self) -> None:
        assert self._next is not None
        self._done(self._next)

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        seconds = time.perf_counter() - self._resumed
        done, missed = (tuple(map(_note, notes)) for notes in (outcome.done, outcome.missed))
        left, size = graph_hash(graph), len(graph.nodes())
        ended = Step(self.count + 1, str(step), graph=left, nodes=size, done=done, missed=missed, seconds=seconds)
        self._done(ended)

    def _done(self, step: Step) -> None:
        self.count += 1
        self.take(step)
        self._resumed = time.perf_counter()


def _note(note: Note) -> dict[str, Any]:
    """What a note says, without what is empty."""
    said = {**asdict(note), "loc": str(note.loc or "")}
    return {name: value for name, value in said.items() if value}


class Record(Steps):
    """Writes a log to `path` while pipelines run: `with Record(path) as record: pipeline.run(graph, [record])`.

    `about` is added to the header. Without an error, leaving the `with` block writes the end of the log.
    """

    def __init__(self, path: str | Path, about: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.path = Path(path)
        self.about = dict(about or {})
        self._file: TextIO | None = None

    def before(self, step: Pass, graph: Graph) -> None:
        if self._file is None:
            self._begin(graph_hash(graph))
        super().before(step, graph)

    def take(self, step: Step) -> None:
        self._write(step.document())

    def _begin(self, graph: str) -> None:
        try:
            self._file = self.path.open("w", encoding="utf-8")
        except OSError as error:
            help = "choose a file in a folder that exists and is writable"
            raise QirError(f"can not write {self.path}: {error.strerror}", help=help) from None
        self._write({"qirlog": FORMAT, "graph": graph, "versions": versions("qir", "onnx"), **self.about})

    def _write(self, entry: Mapping[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            if kind is None:
                self._write({"end": self.count})
            self._file.close()


@contextmanager
def recorded(path: str | Path | None, about: Mapping[str, Any]) -> Iterator[list[Record]]:
    """The watcher that writes a log to `path`; none without a path."""
    if path is None:
        yield []
        return
    with Record(path, about) as record:
        yield [record]


@dataclass(frozen=True)
class Log:
    """A log that was read: its header, its steps, and whether the run came to its end."""

    header: Mapping[str, Any]
    steps: tuple[Step, ...]
    complete: bool

    @classmethod
    def read(cls, path: str | Path) -> Log:
        """The log in a file. Raises QirError, with the number of the line, for what is no log."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise QirError(f"can not read {path}: {error}", help="give a log that --record wrote") from None
        entries = []
        for number, line in enumerate(text.split("\n")[:-1], 1):
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                raise _no_log(path, number, f"is no JSON: {error}") from None
        if not entries or not isinstance(entries[0], dict) or entries[0].get("qirlog") != FORMAT:
            raise _no_log(path, 1, f"is no header of format {FORMAT}")
        complete = "end" in entries[-1]
        return cls(entries[0], tuple(_steps(path, entries[1 : len(entries) - complete])), complete)

    @property
    def pipeline(self) -> str:
        """The pipeline as text: that of the header, or else of the passes that came to their end."""
        ended = ",".join(step.within for step in self.steps if step.rule is None)
        return str(self.header.get("pipeline", ended))

    def step(self, number: int) -> Step:
        """The step of this number. Raises QirError when there is none."""
        if not 1 <= number <= len(self.steps):
            raise QirError(f"there is no step {number}", help=f"the log has the steps 1 to {len(self.steps)}")
        return self.steps[number - 1]


def _steps(path: str | Path, entries: Sequence[Mapping[str, Any]]) -> Iterator[Step]:
    for number, entry in enumerate(entries, 1):
        try:
            step = Step.of(entry)
        except (KeyError, TypeError) as error:
            raise _no_log(path, number + 1, f"is no step: {type(error).__name__} {error}") from None
        if step.number != number:
            raise _no_log(path, number + 1, f"is step {step.number}, where step {number} is due")
        yield step


def _no_log(path: str | Path, line: int, why: str) -> QirError:
    return QirError(f"line {line} of {path} {why}", stage="log", help="give a log that --record wrote")
