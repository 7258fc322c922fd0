"""What the steps of an analysis found out, put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qir.analysis.contradictions import contradicted
from qir.analysis.results import (
    Analysis,
    AnalyzedLayer,
    AnalyzedQuantizer,
    Bins,
    Measured,
    decibels,
    ranked,
    without_luck,
)
from qir.text.encodings import grid_text
from qir.text.printing import value_names

if TYPE_CHECKING:
    from qir.backends.torch_sensitivity import Grids, Sensitivity


def put_together(
    pipeline: str, steps: Sensitivity, results: Mapping[str, Any], samples: int, metric: str | None
) -> Analysis:
    """The analysis that has the results of all steps, by their names."""
    from qir.backends.torch_sensitivity import ERRORS, RANGES

    def measured(label: str) -> Measured:
        return Measured(**results[steps.step_of(label)])

    def sides(unit: str) -> dict[str, Any]:
        return {side: measured(f"{side}: {unit}") for side in ("alone", "without")}

    names = value_names(steps.graph)
    found = []
    for grid in steps.grids:
        ranges = dict(results[RANGES][grid.name])
        ranges["histogram"] = Bins(**ranges["histogram"])
        tensor = names[grid.nodes[0].operands[0]]
        found.append(AnalyzedQuantizer(**_described(grid), tensor=tensor, **ranges, **sides(f"quantizer {grid.name}")))
    calls = {node.module: node for node in reversed(steps.graph.nodes())}
    layers = []
    for layer, error in results[ERRORS].items():
        members, node = steps.members.get(layer, []), calls[layer]
        none = {"alone": measured("floating"), "without": measured("quantized")}
        both = sides(f"layer {layer}") if members else none
        layers.append(AnalyzedLayer(layer, node.op, str(node.loc or ""), members, **error, **both))
    return Analysis(
        steps.graph.name, samples, metric, pipeline, measured("floating"), measured("quantized"),
        measured("weights"), measured("activations"), ranked(_with_contradictions(steps, found)), layers,
    )  # fmt: skip


def _with_contradictions(steps: Sensitivity, found: Sequence[AnalyzedQuantizer]) -> Iterator[AnalyzedQuantizer]:
    """The quantizers; of those whose scales contradict others, the error beside the scale that follows from these."""
    of = {node: quantizer for grid, quantizer in zip(steps.grids, found, strict=True) for node in grid.nodes}
    wrong = contradicted(steps.graph, lambda node: 1.0 if node not in of or of[node].fits else of[node].stretch or 1.0)
    times = {of[node].name: factor for node, factor in wrong.items() if node in of}
    for grid, quantizer in zip(steps.grids, found, strict=True):
        if (factor := times.get(quantizer.name)) is None:
            yield quantizer
            continue
        best = without_luck(quantizer.fitted_sqnr, grid.nodes[0].attrs["encoding"].bits)
        yield replace(quantizer, stretch=round(factor, 4), sqnr=decibels(1.0, (factor - 1) ** 2), fitted_sqnr=best)


def _described(grid: Grids) -> dict[str, Any]:
    """What the graph says of a grid."""
    from qir.backends.torch_sensitivity import kind_of, name_of

    node = grid.nodes[0]
    owner = node.operands[0].node or next((use.node for use in node.result.uses), None)
    return {
        "name": grid.name,
        "tied": [name_of(other) for other in grid.nodes[1:]],
        "layer": grid.layer,
        "kind": kind_of(node),
        "op": "" if owner is None else owner.op,
        "line": "" if owner is None else str(owner.loc or ""),
        "grid": grid_text(node.attrs["encoding"]),
    }
