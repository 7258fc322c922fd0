"""Folds a batch norm into the convolution or linear layer before it.

y  = conv(x, w) + b            z = (y - mean) * gain + beta,   gain = gamma / sqrt(variance + epsilon)
z  = conv(x, w * gain) + (b - mean) * gain + beta
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qir.facts import CALIBRATED
from qir.graph import Graph, Node, Value
from qir.patterns import Candidate, Constant, Match, Op
from qir.pipeline import Pass
from qir.rewrite import Miss, Outcome, rewrite
from qir.traits import Weighted
from qir.weights import Weight

LAYER = Op(Weighted, ...)
NORM = Candidate("BatchNormalization", LAYER, Constant(), Constant(), Constant(), Constant())


@dataclass(frozen=True)
class FoldBatchNorm(Pass, name="fold-batch-norm"):
    """Fold every batch norm (with its running statistics) into the layer before it.

    graph @g(%x: f32[1,1,2,2]) {
      %conv = Conv %x, f32[1,1,1,1](3.0) : f32[1,1,2,2] [conv]
      %n = BatchNormalization %conv, f32[1](2.0), f32[1](1.0), f32[1](5.0), f32[1](4.0) {epsilon=0.0} : f32[1,1,2,2]
      return %n
    }
    -->
    graph @g(%x: f32[1,1,2,2]) {
      %conv = Conv %x, f32[1,1,1,1](3.0), f32[1](-4.0) : f32[1,1,2,2] [conv]
      return %conv
    }
    """

    breaks = (CALIBRATED,)
    numerics = "rounds"

    def run(self, graph: Graph) -> Outcome:
        """Fold what can be folded, and remove the batch norms' counters with them."""
        outcome = rewrite(graph, {NORM: fold})
        folded = {note.module for note in outcome.done}
        for value in graph.weights():
            owners = {path.rpartition(".")[0] for path in value.weight.paths} if value.weight else set()
            if not value.uses and not value.is_output and owners & folded:
                graph.remove_weight(value)
        return outcome


def fold(found: Match, graph: Graph) -> Value | Miss:
    """The layer before a batch norm, with weights that do both."""
    layer, norm = found[LAYER], found[NORM]
    weighted = layer.definition.trait(Weighted)
    if weighted is None or weighted.bias is None:
        return Miss(f"its {layer.op} has no bias to fold into")
    if norm.attr("training_mode") or len(norm.results) > 1:
        return Miss("it uses the statistics of the batch")
    if layer.attrs.get("beta", 1.0) != 1.0:
        return Miss(f"its {layer.op} scales its bias")
    axis = weighted.output_axis(layer)
    weight, *bias = layer.operands[weighted.weight :]
    if axis is None or any(value is None or value.weight is None for value in (weight, *bias)):
        return Miss("a weight is computed, or its output channels are not on one axis")
    if any(len(value.uses) > 1 for value in (weight, *bias)):
        return Miss("another call reads the weight too")
    return _folded(graph, layer, norm, weighted, axis)


def _folded(graph: Graph, layer: Node, norm: Node, weighted: Weighted, axis: int) -> Value:
    # Float64: half-precision checkpoints have channels whose variance underflows.
    gamma, beta, mean, variance = (value.array.astype(np.float64) for value in norm.operands[1:])
    gain = gamma / np.sqrt(variance + norm.attr("epsilon"))
    weight, *bias = layer.operands[weighted.weight :]
    shape = [1] * weight.type.rank
    shape[axis] = -1
    old = bias[0].array.astype(np.float64) if bias else 0.0
    scaled = graph.weight(weight.weight.with_data(weight.array * gain.reshape(shape)), hint=weight.hint)
    offset = (old - mean) * gain + beta
    if bias:
        moved = graph.weight(bias[0].weight.with_data(offset), hint=bias[0].hint)
    else:
        paths = (f"{layer.module}.bias",) if weight.weight.paths and layer.module else ()
        data = offset.astype(weight.array.dtype)
        moved = graph.weight(Weight(data, paths, trainable=weight.weight.trainable), hint=paths[0] if paths else "c")
    operands = [*layer.operands[: weighted.weight], scaled, moved]
    new = graph.add(layer.op, operands, layer.attrs, like=[layer, norm])
    return new.result
