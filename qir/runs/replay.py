"""Running a pipeline again along the log of an earlier run."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import ndiff

from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pipeline
from qir.runs.recording import Log, Step, Steps, graph_hash
from qir.runs.versions import versions
from qir.watch import Stop


class Agree(Steps):
    """Holds every step of a run to that of a log, and ends the run after step `to`.

    Raises QirError at the first step that differs: in the pass, the rule, the nodes before or after, or in the graph
    that a pass left. Times and the user's lines may differ.
    """

    def __init__(self, log: Log, to: int | None = None) -> None:
        super().__init__()
        self.log = log
        self.last = len(log.steps) if to is None else log.step(to).number

    def take(self, step: Step) -> None:
        if step.number > len(self.log.steps):
            raise self._apart(f"step {step.number} is not in the log", step)
        recorded = self.log.step(step.number)
        if step.what != recorded.what:
            raise self._apart(f"step {step.number} differs from the log", step, recorded)
        if step.number == self.last and not (self.log.complete and self.last == len(self.log.steps)):
            raise Stop

    def _apart(self, message: str, step: Step, recorded: Step | None = None) -> QirError:
        old = [] if recorded is None else _lines(recorded)
        snippet = "\n".join(line for line in ndiff(old, _lines(step)) if not line.startswith("?"))
        line = f" at {step.line}" if step.line else ""
        return QirError(f"{message}: {step.rule or 'the end of the pass'}{line}", stage=f"replay of {step.within}",
                        snippet=snippet, help=self._help())  # fmt: skip

    def _help(self) -> str:
        now, then = versions(), self.log.header.get("versions", {})
        apart = [f"{name} {known}, now {now.get(name, 'not installed')}" for name, known in then.items()
                 if now.get(name) != known]  # fmt: skip
        if apart:
            return f"the log was written with {', '.join(apart)}"
        return "a pass, an option's file or the data changed since, or the run depends on something else than these"


def _lines(step: Step) -> list[str]:
    return [f"{step.within}: {step.rule or 'end'}", *step.before, *step.after, *([step.graph] if step.graph else [])]


def replay(log: Log, pipeline: Pipeline, graph: Graph, to: int | None = None) -> Graph:
    """`graph`, transformed by `pipeline` up to step `to` of the log (its last, unless told), each step as in the log.

    Raises QirError when the graph is not the one that the log begins with, and at the first step that differs.
    """
    if (found := graph_hash(graph)) != (due := log.header["graph"]):
        help = f"the log begins with the graph {due}, and this one is {found}"
        raise QirError("this model is another than that of the log", stage="replay", help=help)
    agree = Agree(log, to)
    pipeline.run(graph, [agree])
    if agree.count < agree.last:
        missing = log.step(agree.count + 1)
        help = "a pass changed since, or the run depends on something else than model and data"
        raise QirError(f"the run ends before step {missing.number} of the log: {missing.within}", stage="replay",
                       help=help)  # fmt: skip
    return graph


def summary(log: Log) -> Iterator[str]:
    """The steps of a log, one a line."""
    for step in log.steps:
        what = step.rule or f"end, {step.nodes} operations"
        line = f"  --> {step.line}" if step.line else ""
        yield f"{step.number:6}  {step.within}: {what}{line}"
    if not log.complete:
        yield "the run did not come to its end"
