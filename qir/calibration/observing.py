"""Running a graph in float while observers look at what its quantizers read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qir.attributes import Port
from qir.calibration.observers import MinMax, NonFiniteError
from qir.encodings.encoding import Encoding
from qir.errors import QirError
from qir.evaluate import Executor
from qir.graph import Graph, Node, Value
from qir.quantizers import quantizers
from qir.types import TensorType

Views = Mapping[Node, Callable[[np.ndarray], object]]
"""For quantizer nodes, what is called with the array that one reads."""

Observed = Callable[[Sequence[np.ndarray]], object]
"""Runs the graph on the arrays of its inputs."""


def observed_by(executor: Executor, graph: Graph, views: Views) -> Observed:
    """`graph` in float, run by `executor`, which holds all arrays of a run until its end."""
    floating, twins = graph.copy_with_map()
    watched = _without_quantizers(floating, [twins[node] for node in views])
    run = executor(floating)

    def show(inputs: Sequence[np.ndarray]) -> None:
        arrays = run(inputs)
        for view, position in zip(views.values(), watched, strict=True):
            view(arrays[position])

    return show


def _without_quantizers(graph: Graph, moving: Sequence[Node]) -> list[int]:
    """Let the graph return what the quantizers read, and compute in float; which output belongs to which quantizer."""
    observed: list[Value] = []
    sources = [_float_source(node) for node in moving]
    for node in quantizers(graph):
        graph.replace(node.result, node.operands[0])
    for source in sources:
        if source not in observed:
            observed.append(source)
    graph.outputs, graph.structure = list(observed), tuple(map(Port, range(len(observed))))
    for node in reversed(graph.nodes()):
        graph.erase_dead(node)
    return [observed.index(source) for source in sources]


def _float_source(node: Node) -> Value:
    """What the quantizer reads, past other quantizers."""
    value: Value = node.operands[0]
    while value.node is not None and value.node.op == node.op:
        value = value.node.operands[0]
    return value


@dataclass
class Watch:
    """Runs data before observers, one for each encoding.

    A framework picks its kernels by the size of a batch, and they differ in the last digits. So every sample is run by
    itself, and what is observed does not depend on how the data was split. The first batch of several samples is also
    run as a whole: where that gives other ranges, the samples are not independent (the first axis is no batch), and
    batches are run as they are given.
    """

    observers: dict[Encoding, MinMax]
    batch: int = 0
    independent: bool | None = None

    def view(self, node: Node) -> Callable[[np.ndarray], None]:
        """What takes note of what `node` reads. It raises QirError, naming both node and batch, for NaN."""
        encoding = node.attrs["encoding"]
        return lambda array: look(self.observers[encoding], node, array, f"in batch {self.batch}")

    def run(self, show: Observed, graph: Graph, arrays: Sequence[np.ndarray]) -> None:
        """Run a batch: `show` for `graph`."""
        self.batch += 1
        samples = samples_of(graph, arrays)
        if len(samples) < 2 or self.independent is False:
            show(arrays)
        elif self.independent:
            for sample in samples:
                show(sample)
        else:
            whole, parts = self._apart(show, [arrays]), self._apart(show, samples)
            self.independent = all(_alike(whole[encoding], parts[encoding]) for encoding in whole)
            for encoding, seen in (parts if self.independent else whole).items():
                self.observers[encoding].merge(seen)

    def _apart(self, show: Observed, batches: Sequence[Sequence[np.ndarray]]) -> dict[Encoding, MinMax]:
        """What observers of their own see of batches."""
        kept = self.observers
        self.observers = fresh = {encoding: type(seen)(encoding) for encoding, seen in kept.items()}
        try:
            for arrays in batches:
                show(arrays)
        finally:
            self.observers = kept
        return fresh


def look(observer: MinMax, node: Node, array: np.ndarray, where: str = "") -> None:
    """Let the observer see what `node` reads. Raises QirError, naming it, when that is not finite."""
    try:
        observer.see(array)
    except NonFiniteError as error:
        raise QirError(f"this tensor holds {error} {where}".rstrip(), node, stage="calibrate",
                       help="look at the data, or at the operator before it") from None  # fmt: skip


def samples_of(graph: Graph, arrays: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """The batch cut into batches of one, where all inputs have one symbolic first axis; else nothing."""
    firsts = {value.type.shape[0] if isinstance(value.type, TensorType) and value.type.shape else None
              for value in graph.inputs}  # fmt: skip
    if len(firsts) != 1 or not isinstance(next(iter(firsts)), str) or len({len(array) for array in arrays}) != 1:
        return []
    return [[array[i : i + 1] for array in arrays] for i in range(len(arrays[0]))]


def _alike(first: MinMax, second: MinMax) -> bool:
    """Whether two observers saw the same range, but for rounding."""
    if first.low is None or first.high is None or second.low is None or second.high is None:
        return first.low is second.low
    if first.low.shape != second.low.shape:
        return False
    slack = 1e-3 * np.maximum(first.high, -first.low)
    ends = (first.low - second.low, first.high - second.high)
    return all(bool(np.all(np.abs(difference) <= slack)) for difference in ends)
