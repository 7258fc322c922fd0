"""Writes batch norms as onnxruntime computes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qir.graph import Graph, Value
from qir.patterns import Constant, Input, Match, Op
from qir.pipeline import Pass
from qir.rewrite import Miss, Outcome, rewrite

NORM = Op("BatchNormalization", Input(), Constant(), Constant(), Constant(), Constant())


@dataclass(frozen=True)
class SpellBatchNorm(Pass, name="spell-batch-norm"):
    """Write a batch norm of inference as a product and a sum, with the roundings of onnxruntime's kernel.

    Measured for onnxruntime 1.31 on x86, in float32: factor = scale * (1 / sqrt(variance + epsilon)), each step
    rounded; then x * factor, rounded, plus bias - mean * factor. torch rounds the product and the sum together.

        graph @g(%x: f32[4,1]) {
          %y = BatchNormalization %x, f32[1](2), f32[1](1), f32[1](3), f32[1](3) {epsilon=1.0} : f32[4,1] [bn]
          return %y
        }
        -->
        graph @g(%x: f32[4,1]) {
          %y = Mul %x, f32[1](1.0) : f32[4,1] [bn.mul]
          %y_1 = Add %y, f32[1](-2.0) : f32[4,1] [bn.add]
          return %y_1
        }
    """

    numerics = "rounds"

    def run(self, graph: Graph) -> Outcome:
        """Rewrite every batch norm whose statistics are constants."""
        return rewrite(graph, {NORM: spelled})


def spelled(found: Match, graph: Graph) -> Value | Miss:
    """The product and the sum that a batch norm is."""
    node = found[NORM]
    x, *parameters = node.operands
    if x.type.rank is None or x.type.dtype != "f32" or any(result.uses for result in node.results[1:]):
        return Miss("it is not one float32 tensor of known rank")
    scale, bias, mean, variance = (value.array.astype(np.float32) for value in parameters)
    factor = scale * (np.float32(1) / np.sqrt(variance + np.float32(node.attr("epsilon"))))
    shape = [-1] + [1] * (x.type.rank - 2)
    layer = node.module or node.result.hint
    product = graph.add("Mul", [x, graph.constant(factor.reshape(shape))], like=node, module=f"{layer}.mul").result
    offset = graph.constant((bias - mean * factor).reshape(shape))
    return graph.add("Add", [product, offset], like=node, module=f"{layer}.add").result
