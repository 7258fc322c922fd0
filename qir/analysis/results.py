"""What `qir.analyze` finds out, as data: how much every quantizer and every layer costs, and why.

Decibels are those of a signal over the noise that rounding adds to it; None means that nothing differs. What is not
finite counts as `WORST` decibels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import inf, log2, log10
from pathlib import Path
from typing import Any

from qir.json_documents import check_schema, load_document

SCHEMA = "analysis-1"
"""The schema of the JSON document; its number is the version of the document."""

WORST = -300.0
"""The least number of decibels that is told apart."""

MISFIT = 12.0
"""Decibels that a grid may cost its tensor beside the best one: those of two bits."""


@dataclass(frozen=True)
class Measured:
    """The model's outputs in one setting of its quantizers.

    `sqnr` compares them with those of the float model on the same data; `score` is that of the metric, if there is one.
    """

    sqnr: float | None = None
    score: float | None = None


@dataclass(frozen=True)
class Bins:
    """A histogram: `counts` in bins of one width from `low` to `high`."""

    low: float
    high: float
    counts: list[int]


@dataclass(frozen=True)
class AnalyzedQuantizer:
    """One grid, and the tensors that it rounds.

    `name` is the path of the quantizer in the simulator, `tied` are those that share its grid and are switched with it.
    `layer` computes or holds the `tensor`, which is a `weight`, a `bias` or an `activation`. `low` and `high` are the
    ends of what the tensors hold in float, `grid_low` and `grid_high` those of the grid, and `clipped` the share of
    values beyond these. `sqnr` is that of the tensors on the grid, `fitted_sqnr` on a grid of the same kind with the
    least squared error, or what a sine over a whole grid has, if that is less; the steps of the grid are `stretch`
    times as wide as those of the best one. Both are None where the grid is not free. Of a weight or bias whose scale
    contradicts those around it (`contradictions.py`), they are for the scale that follows from them. `alone` has this
    grid on and all others off, `without` all others on.
    """

    name: str
    tied: list[str]
    layer: str
    tensor: str
    kind: str
    op: str
    line: str
    grid: str
    low: float
    high: float
    grid_low: float | None
    grid_high: float | None
    clipped: float
    histogram: Bins
    sqnr: float | None
    fitted_sqnr: float | None
    stretch: float | None
    alone: Measured
    without: Measured

    @property
    def misfit(self) -> float:
        """How many decibels a better fitting grid would gain for the tensors; 0 where none is known."""
        if self.fitted_sqnr is None or self.sqnr is None:
            return 0.0
        return max(self.fitted_sqnr - self.sqnr, 0.0)

    @property
    def fits(self) -> bool:
        """Whether the grid suits what its tensors hold: a better one would gain less than `MISFIT`."""
        return self.misfit < MISFIT


@dataclass(frozen=True)
class AnalyzedLayer:
    """One layer: the `quantizers` that belong to it, and what they cost.

    `sqnr` is that of the layer's output in the quantized model, beside the float model on the same data; `own_sqnr`
    that of the layer alone, given what the float model gives it, with all quantizers around it.
    """

    name: str
    op: str
    line: str
    quantizers: list[str]
    sqnr: float | None
    own_sqnr: float | None
    alone: Measured
    without: Measured


@dataclass(frozen=True)
class Analysis:
    """A quantized model on some data: as a whole, and grid by grid.

    `floating` has all quantizers off, `quantized` all on, `weights` those of weights and biases, `activations` the
    others. `quantizers` are ranked: first those that do not fit their tensors, the furthest from the best scale before
    the others; then by what the model loses with that grid alone. `layers` are in the order of execution; those that no
    quantizer belongs to are there for their errors.
    """

    model: str
    samples: int
    metric: str | None
    pipeline: str
    floating: Measured
    quantized: Measured
    weights: Measured
    activations: Measured
    quantizers: list[AnalyzedQuantizer]
    layers: list[AnalyzedLayer]

    @property
    def misfits(self) -> list[AnalyzedQuantizer]:
        """The grids that do not suit their tensors, the worst first."""
        return [quantizer for quantizer in self.quantizers if not quantizer.fits]

    def as_json(self) -> str:
        """The document that `read_analysis` reads, with a line for every quantizer and layer."""
        document = {"format": "qir-analysis", "version": 1, **asdict(self)}
        parts = []
        for key, value in document.items():
            rows = value if isinstance(value, list) else None
            text = json.dumps(value) if not rows else "[\n  " + ",\n  ".join(map(json.dumps, rows)) + "\n ]"
            parts.append(f" {json.dumps(key)}: {text}")
        return "{\n" + ",\n".join(parts) + "\n}\n"


def ranked(quantizers: Iterable[AnalyzedQuantizer]) -> list[AnalyzedQuantizer]:
    """The quantizers, which are in the order of execution, as `Analysis` ranks them.

    Not the decibels rank those that do not fit: a value that calibration did not see may cost many, once it is clipped.
    Those that are as far from the best scale, in halves of a bit, stay in order, for the first may be why the others
    do not fit.
    """

    def cost(quantizer: AnalyzedQuantizer) -> tuple[float, ...]:
        if not quantizer.fits:
            return (-1.0 - round(2 * abs(log2(quantizer.stretch or 1.0))), 0.0, 0.0)
        score, sqnr = (inf if found is None else found for found in (quantizer.alone.score, quantizer.alone.sqnr))
        return (0.0, score, sqnr)

    return sorted(quantizers, key=cost)


def decibels(signal: float, noise: float) -> float | None:
    """The ratio of two powers in decibels, between `WORST` and None for no noise."""
    if noise == 0:
        return None
    ratio = signal / noise if noise < inf else 0.0  # what is NaN compares as false
    return round(max(10 * log10(ratio), WORST), 4) if ratio > 0 else WORST


def without_luck(sqnr: float | None, bits: int) -> float:
    """The SQNR of a grid, at most that of a sine over all of it: 6.02 dB a bit, and 1.76.

    Values that happen to lie on some grid, as pixels do, say nothing about another one.
    """
    most = round(20 * log10(2) * bits + 1.76, 4)
    return most if sqnr is None else min(sqnr, most)


def read_analysis(source: str | Path | Mapping[str, Any]) -> Analysis:
    """The analysis in a file that `qir analyze` wrote, or in the object of it. Raises QirError for any other."""
    document = load_document(source)
    check_schema(document, SCHEMA)
    given = {key: value for key, value in document.items() if key not in ("format", "version")}
    for key in ("floating", "quantized", "weights", "activations"):
        given[key] = Measured(**given[key])
    for key, kind in (("quantizers", AnalyzedQuantizer), ("layers", AnalyzedLayer)):
        given[key] = [kind(**_part(row)) for row in given[key]]
    return Analysis(**given)


def _part(row: Mapping[str, Any]) -> dict[str, Any]:
    kinds = {"histogram": Bins, "alone": Measured, "without": Measured}
    return {key: kinds[key](**value) if key in kinds else value for key, value in row.items()}
