"""The watcher that evaluates a graph around every pass: what a pass did to the numbers, and whether it said so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.differences import Deviation, decibels, largest_difference, lowest, signal_to_noise
from qir.errors import QirError
from qir.evaluate import Arrays
from qir.execution import default_evaluator, values_of
from qir.graph import Graph, Node, Value
from qir.rewrite import Outcome
from qir.types import TensorType
from qir.watch import Watcher

if TYPE_CHECKING:
    from qir.pipeline import Pass

SHOWN = 5
"""How many tensors of a pass the table shows."""


@dataclass(frozen=True)
class Numbers:
    """What a pass did to the numbers of a graph.

    `gap` is the largest absolute difference of an output, `lowest` the lowest signal-to-noise ratio of one (None when
    all are equal). `compared` counts the tensors that stood before the pass and still do, or that a rewrite gave a
    successor; `values` has those of them that differ, in the order of the graph.
    """

    step: str
    numerics: str
    gap: float
    lowest: float | None
    compared: int
    values: list[Deviation]

    @property
    def first(self) -> Deviation | None:
        """The first tensor that differs."""
        return self.values[0] if self.values else None


@dataclass
class SameNumbers(Watcher):
    """Evaluates the graph on `inputs` before and after every pass and holds `exact` passes to their word.

    Raises QirError that names the first pass that lied and the first tensor that differs. `reports` says of every pass
    what it did to the numbers. `rounding` is what `rounds` passes may differ by, relative to the largest output.
    `evaluator` is `torch`, `onnxruntime` or `reference`; without one, the first that is installed. Every tensor is an
    output of what is run, so a runtime fuses nothing.
    """

    inputs: Arrays
    rounding: float = 1e-4
    evaluator: str = field(default_factory=default_evaluator)
    reports: list[Numbers] = field(default_factory=list)
    _outputs: list[Any] = field(default_factory=list)
    _values: dict[Value, Any] = field(default_factory=dict)
    _heirs: dict[Value, Value] = field(default_factory=dict)

    @property
    def differences(self) -> list[tuple[str, float]]:
        """For every pass, the largest absolute difference of an output."""
        return [(report.step, report.gap) for report in self.reports]

    def before(self, step: Pass, graph: Graph) -> None:
        self._heirs = {}
        if not self.reports:
            self._outputs, self._values = self._evaluated(graph)

    def replacing(self, rule: str, node: Node, new: Mapping[Value, Value], added: Sequence[Node]) -> None:
        self._heirs.update(new)

    def after(self, step: Pass, graph: Graph, outcome: Outcome) -> None:
        outputs, values = self._evaluated(graph)
        known = {self._heir(value, graph): array for value, array in self._values.items()}
        pairs = list(zip(self._outputs, outputs, strict=True))
        both = [value for value in values if value in known]
        apart = {value: Deviation.of(value, known[value], values[value]) for value in both}
        differing = {value: found for value, found in apart.items() if found.signal_to_noise is not None}
        gap = max((largest_difference(a, b) for a, b in pairs), default=0.0)
        ratio = lowest([signal_to_noise(a, b) for a, b in pairs])
        report = Numbers(str(step), step.numerics, gap, ratio, len(both), list(differing.values()))
        self.reports.append(report)
        self._check(step, report, next(iter(differing), None))
        self._outputs, self._values = outputs, values

    def _evaluated(self, graph: Graph) -> tuple[list[Any], dict[Value, Any]]:
        """The outputs of the graph, and every tensor that it computes."""
        tensors = tensors_of(graph)
        found = values_of(graph, self.inputs, [*graph.outputs, *tensors], self.evaluator)
        count = len(graph.outputs)
        return found[:count], dict(zip(tensors, found[count:], strict=True))

    def _heir(self, value: Value, graph: Graph) -> Value:
        """What stands for a value now: itself, or what rewrites put in its place."""
        while value not in graph.nx and value in self._heirs:
            value = self._heirs[value]
        return value

    def _check(self, step: Pass, report: Numbers, first: Value | None) -> None:
        size = max((float(np.max(np.abs(array), initial=0)) for array in self._outputs), default=0.0)
        allowed = {"exact": 0.0, "rounds": self.rounding * max(size, 1e-30), "changes": np.inf}[step.numerics]
        if report.gap > allowed:
            message = f"{step.name} claims to be {step.numerics!r} but an output differs by {report.gap:g}"
            help = f"the first value that differs is %{first.hint}" if first is not None else None
            raise QirError(message, None if first is None else first.node, stage="same numbers", help=help)


def tensors_of(graph: Graph) -> list[Value]:
    """Every tensor of a known dtype that the graph computes, in its order."""
    results = (value for node in graph.nodes() for value in node.results)
    return [value for value in results if isinstance(value.type, TensorType) and value.type.dtype is not None]


def as_table(reports: Sequence[Numbers]) -> Iterator[str]:
    """A line for every pass, and below it the tensors that differ most; of an exact pass, the first that differs."""
    for report in reports:
        outputs = "equal" if report.gap == 0 else f"{report.gap:.3g} apart"
        ratio = "" if report.lowest is None else f", {decibels(report.lowest)}"
        yield f"{report.step}: {report.numerics}, outputs {outputs}{ratio}"
        if report.values:
            yield f"  {len(report.values)} of {report.compared} tensors differ"
        worst = sorted(report.values, key=lambda found: found.signal_to_noise or 0.0)[:SHOWN]
        for found in report.values[:1] if report.numerics == "exact" else worst:
            place = f"  --> {found.loc}" if str(found.loc or "") else ""
            yield f"  {decibels(found.signal_to_noise):>10}  %{found.tensor} = {found.op}{place}"
