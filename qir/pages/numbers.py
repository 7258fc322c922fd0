"""What data shows of a graph with quantizers: histograms of what they read, and how much each tensor loses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qir.attributes import Port
from qir.batches import Batch, arrays_of
from qir.calibration.observers import ZERO_BIN, Histogram, NonFiniteError
from qir.encodings.encoding import Encoding
from qir.evaluate import Executor
from qir.facts import is_quantizer
from qir.graph import Graph, Node, Value
from qir.pages.records import Data, finite, is_float
from qir.quantizers import is_parameter

BARS = 96
"""So many bars a histogram has at most."""

MOST_ELEMENTS = 1 << 20
"""A larger weight is counted by evenly spaced elements."""


@dataclass
class Seen:
    """What is known of the values of one tensor: their histogram, and the powers of signal and quantization noise."""

    histogram: Histogram = field(default_factory=lambda: Histogram(Encoding("i8")))
    signal: float = 0.0
    noise: float = 0.0
    compared: bool = False

    def see(self, array: np.ndarray) -> None:
        """Count the values, unless some are not finite."""
        try:
            self.histogram.see(array)
        except NonFiniteError:
            return

    def compare(self, exact: np.ndarray, rounded: np.ndarray) -> None:
        """Add up signal and noise."""
        exact = exact.astype(np.float64)
        self.signal += float(np.sum(exact**2))
        self.noise += float(np.sum((exact - rounded.astype(np.float64)) ** 2))
        self.compared = True

    def data(self) -> Data:
        """As the page takes it; `sqnr` in decibels, None where nothing is lost, left out where nothing was compared."""
        found: Data = {}
        if self.compared and np.isfinite(self.signal) and np.isfinite(self.noise):
            ratio = self.signal / self.noise if self.noise else 0.0
            found["sqnr"] = round(10 * float(np.log10(ratio)), 2) if ratio else None
        if self.histogram.counts is not None:
            found["histogram"] = bars(self.histogram)
        return found


def bars(histogram: Histogram) -> Data:
    """The histogram in at most `BARS` equal bars from `low` to `high`; `least` and `most` are the extremes."""
    assert histogram.counts is not None
    assert histogram.exponent is not None
    assert histogram.low is not None
    assert histogram.high is not None
    counts, width = histogram.counts[0], 2.0 ** int(histogram.exponent[0])
    held = np.flatnonzero(counts)
    first, last = int(held[0]), int(held[-1]) + 1
    step = 1
    while -(-(last - first) // step) > BARS:
        step *= 2
    count = -(-(last - first) // step)
    padded = np.zeros(count * step, np.int64)
    padded[: last - first] = counts[first:last]
    low = (first - ZERO_BIN - 1) * width
    return {
        "low": low,
        "high": low + count * step * width,
        "counts": [int(bar) for bar in padded.reshape(count, step).sum(1)],
        "least": finite(histogram.low[0]),
        "most": finite(histogram.high[0]),
    }


def numbers_of(graph: Graph, executor: Executor, data: Iterable[Batch] = ()) -> dict[Node, Data]:
    """For nodes of `graph`, what is known of their first results; for quantizers, of what they read.

    Weights are looked at as they are. On `data`, the graph is run with its quantizers and without, each run through
    `executor`: `sqnr` is the power of a tensor in float over that of its difference, from the model's inputs on.
    Without data, or when a quantizer has no scale, nothing is run.
    """
    seen = {node: _of_weight(node) for node in graph.nodes() if is_quantizer(node) and is_parameter(node)}
    watched = [node for node in graph.nodes() if node not in seen and node.results and is_float(node.result)]
    rounding = [node for node in graph.nodes() if is_quantizer(node)]
    batches = iter(data)
    first = next(batches, None)
    if first is not None and rounding and all(node.attrs["encoding"].calibrated for node in rounding):
        seen |= {node: Seen() for node in watched}
        runs = executor(_returning(graph, watched, rounds=False)), executor(_returning(graph, watched, rounds=True))
        for number, batch in enumerate((first, *batches), 1):
            arrays = arrays_of(graph, batch, number)
            for node, exact, rounded in zip(watched, *(run(arrays) for run in runs), strict=True):
                if is_quantizer(node):
                    seen[node].see(exact)
                seen[node].compare(exact, rounded)
    return {node: found for node, of in seen.items() if (found := of.data())}


def _of_weight(node: Node) -> Seen:
    seen, encoding = Seen(), node.attrs["encoding"]
    weight = node.operands[0].weight
    if weight is None or weight.data is None or not weight.array.size:
        return seen
    array = np.asarray(weight.array)
    flat = array.reshape(-1)
    seen.see(flat[:: -(-flat.size // MOST_ELEMENTS)])
    if encoding.calibrated:
        seen.compare(array, encoding.dequantize(encoding.quantize(array)))
    return seen


def _returning(graph: Graph, nodes: Sequence[Node], *, rounds: bool) -> Graph:
    """A copy of the graph that returns what `nodes` compute, without its quantizers unless it `rounds`."""
    copy, twins = graph.copy_with_map()
    outputs: list[Value] = [twins[node].result for node in nodes]
    if not rounds:
        sources: dict[Any, Value] = {}
        for node in copy.nodes():
            if is_quantizer(node):
                source = node.operands[0]
                sources[node.result] = sources.get(source, source)
                copy.replace(node.result, source)
        outputs = [sources.get(value, value) for value in outputs]
    copy.outputs, copy.structure = outputs, tuple(map(Port, range(len(outputs))))
    for node in reversed(copy.nodes()):
        copy.erase_dead(node)
    return copy
