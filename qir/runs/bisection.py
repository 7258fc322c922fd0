"""Which step of a pipeline costs the numbers: the first rewrite, or pass, whose graph is beyond a threshold.

As every search by halves, this one takes it that a graph that is beyond the threshold stays so to the end of the run.
Where outputs are compared with those of the original graph, the first tensor that is beyond the threshold at the end
tells where to look first: which step made it so is found by evaluating that one tensor from exact values of those
before it. The guess is then checked like any other position, so a wrong one costs two evaluations and nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from qir.differences import decibels, signal_to_noise
from qir.errors import QirError
from qir.evaluate import Runner
from qir.execution import runner, values_of
from qir.extract import part
from qir.graph import Graph, Value
from qir.runs.course import Course, Position, Stage
from qir.runs.recording import Step, Steps, graph_hash

EQUAL = float("inf")
"""The signal-to-noise ratio of equal results."""


@dataclass(frozen=True)
class Culprit:
    """The first step of a run whose graph is beyond the threshold.

    It is a step of pass number `position` (from 1) of the pipeline: its rewrite number `rewrite` of `rewrites`, or what
    the pass did beside its rewrites, where `rewrite` is None. `step` is that step as a log has it. `before` and `after`
    measure the graphs around it. `tensor` is the first tensor that is beyond the threshold at the end of the run, and
    `line` where the user wrote what was rewritten, or else that tensor. `evaluations` counts how often the whole model
    was evaluated, the original and the end of the run included, and `parts` how often a single tensor was.
    """

    position: int
    rewrite: int | None
    rewrites: int
    step: Step
    before: float
    after: float
    line: str
    tensor: str | None
    evaluations: int
    parts: int


@dataclass
class Trial:
    """Judges the graphs of a run. `threshold` is the lowest measure that is good, `measured` what is known by now."""

    course: Course
    evaluator: str
    threshold: float
    measured: dict[Position, float] = field(default_factory=dict)

    def beyond(self, position: Position) -> bool:
        """Whether the graph there is beyond the threshold; it is evaluated once."""
        if position not in self.measured:
            self.measured[position] = self.measure(self.course.graph(position))
        return not self.measured[position] >= self.threshold

    def measure(self, graph: Graph) -> float:
        """How good a graph is."""
        raise NotImplementedError

    def suspect(self) -> Position | None:
        """A position that is likely the first beyond the threshold."""
        return None

    def shown(self, measure: float) -> str:
        """A measure for a reader."""
        return f"{measure:g}"


@dataclass
class Scored(Trial):
    """Judges a graph by what a function says of it, such as the accuracy on a test set."""

    score: Callable[[Runner], float] = field(kw_only=True)

    def measure(self, graph: Graph) -> float:
        run = runner(graph, graph.outputs, self.evaluator)
        try:
            return float(self.score(run))
        except QirError:
            raise
        except Exception as error:  # whatever the user's function raises
            raise QirError(f"the score fails: {type(error).__name__}: {error}", stage="bisect") from error


@dataclass
class Compared(Trial):
    """Judges a graph by the lowest signal-to-noise ratio of an output, in decibels, beside the original graph.

    With an infinite threshold, every value of every output must be equal.
    """

    inputs: Sequence[np.ndarray] = field(kw_only=True)
    parts: int = 0
    first: Value | None = None
    """The first tensor of the original that is beyond the threshold at the end of the run."""

    def __post_init__(self) -> None:
        self.exact, self.tensors = self._evaluated(self.course.stages[0])
        self.measured[Position(0)] = EQUAL
        outputs, found = self._evaluated(self.course.stages[-1])
        self.measured[self.course.end] = self._ratio(outputs)
        heirs = self.course.stages[-1].heirs
        order = {
            value: rank for rank, node in enumerate(self.course.stages[-1].graph.nodes()) for value in node.results
        }
        beyond = [tensor for tensor in found if self._apart(tensor, found[tensor])]
        self.first = min(beyond, key=lambda tensor: order[heirs[tensor]], default=None)

    def measure(self, graph: Graph) -> float:
        return self._ratio(values_of(graph, self.inputs, graph.outputs, self.evaluator))

    def shown(self, measure: float) -> str:
        return decibels(None if measure == EQUAL else measure)

    def suspect(self) -> Position | None:
        """Where the first tensor that is beyond the threshold became so, given exact values of others that stay."""
        tensor, staying = self.first, self.course.stages[-1].heirs
        for passes, stage in enumerate(self.course.stages[1:]):
            if tensor is not None and self._wrong(stage, tensor, staying):
                between = self._between(stage, tensor, staying)
                first = next((other for other in between if self._wrong(stage, other, stage.heirs)), tensor)
                moved = [position for position in self.course.moved.get(first, []) if position.passes == passes]
                return moved[0] if moved else Position(passes + 1)
        return None

    def _wrong(self, stage: Stage, tensor: Value, known: Container[Value]) -> bool:
        """Whether what stands for a tensor is beyond the threshold, computed from exact values of those in `known`."""
        self.parts += 1
        frontier = self._frontier(stage, tensor, known)
        alone, read = part(stage.graph, [stage.heirs[tensor]], frontier)
        values = {**frontier, **dict(zip(stage.graph.inputs, self.inputs, strict=True))}
        (found,) = values_of(alone, [values[value] for value in read], alone.outputs, self.evaluator)
        return self._apart(tensor, found)

    def _frontier(self, stage: Stage, tensor: Value, known: Container[Value]) -> dict[Value, Any]:
        """What stands for tensors in `known`, other than for `tensor`, with the exact values of these."""
        heirs = {other: heir for other, heir in stage.heirs.items() if other in known}
        return {heir: self.tensors[other] for other, heir in heirs.items() if heir is not stage.heirs[tensor]}

    def _between(self, stage: Stage, tensor: Value, known: Container[Value]) -> list[Value]:
        """The tensors that stand between those in `known` and `tensor`, in the order of the graph."""
        frontier, tensors = self._frontier(stage, tensor, known), {heir: key for key, heir in stage.heirs.items()}
        found: dict[Value, None] = {}
        stack = [stage.heirs[tensor]]
        while stack:
            value = stack.pop()
            node = value.node
            if node is not None and value not in found and value not in frontier:
                found[value] = None
                stack += [operand for operand in node.operands if operand is not None]
        results = (value for node in stage.graph.nodes() for value in node.results)
        inner = (value for value in results if value in found and value is not stage.heirs[tensor])
        return [tensors[value] for value in inner if value in tensors]

    def _evaluated(self, stage: Stage) -> tuple[list[Any], dict[Value, Any]]:
        """The outputs, and what stands for every tensor of the original."""
        count, heirs = len(stage.graph.outputs), stage.heirs
        found = values_of(stage.graph, self.inputs, [*stage.graph.outputs, *heirs.values()], self.evaluator)
        return found[:count], dict(zip(heirs, found[count:], strict=True))

    def _apart(self, tensor: Value, found: Any) -> bool:
        ratio = signal_to_noise(self.tensors[tensor], found)
        return ratio is not None and not ratio >= self.threshold

    def _ratio(self, outputs: Sequence[Any]) -> float:
        ratios = (signal_to_noise(a, b) for a, b in zip(self.exact, outputs, strict=True))
        return min((EQUAL if ratio is None else ratio for ratio in ratios), default=EQUAL)


def first_beyond(trial: Trial) -> Culprit | None:
    """The first step whose graph is beyond the threshold, None when the end of the run is not.

    Raises QirError when the original graph is beyond it.
    """
    course, good, bad = trial.course, Position(0), trial.course.end
    if trial.beyond(good):
        raise QirError("the model is beyond the threshold before the first pass", stage="bisect",
                       help=f"choose a threshold of {trial.shown(trial.measured[good])} at most")  # fmt: skip
    if not trial.beyond(bad):
        return None
    suspect = trial.suspect()
    for position in [] if suspect is None else [suspect, course.previous(suspect)]:
        if good < position < bad:
            good, bad = (good, position) if trial.beyond(position) else (position, bad)
    while course.previous(bad) != good:
        position = course.middle(good, bad)
        good, bad = (good, position) if trial.beyond(position) else (position, bad)
    return _culprit(trial, bad)


class _Last(Steps):
    """Keeps the last step."""

    def take(self, step: Step) -> None:
        self.step = step


def _culprit(trial: Trial, bad: Position) -> Culprit:
    course = trial.course
    number = bad.passes if bad.rewrites else bad.passes - 1
    before = sum(course.rewrites[:number]) + number
    if bad.rewrites:
        last = _Last()
        course.graph(bad, [last])
        step = replace(last.step, number=before + bad.rewrites)
    else:
        left, within = course.stages[bad.passes].graph, str(course.pipeline.passes[number])
        count = before + course.rewrites[number] + 1
        step = Step(count, within, graph=graph_hash(left), nodes=len(left.nodes()))
    first = trial.first if isinstance(trial, Compared) else None
    node = None if first is None else course.stages[0].heirs[first].node
    return Culprit(
        position=number + 1,
        rewrite=bad.rewrites or None,
        rewrites=course.rewrites[number],
        step=step,
        before=trial.measured[course.previous(bad)],
        after=trial.measured[bad],
        line=step.line or str((node.loc if node is not None else None) or ""),
        tensor=None if first is None else first.hint,
        evaluations=len(trial.measured),
        parts=trial.parts if isinstance(trial, Compared) else 0,
    )
