"""Folds zeros around a tensor into the convolution that reads it."""

from __future__ import annotations

from dataclasses import dataclass

from qir.graph import Graph, Node, Value
from qir.patterns import Match, Op, Shared
from qir.pipeline import Pass
from qir.rewrite import Miss, Outcome, rewrite

PAD = Shared("Pad", ...)
CONV = Op("Conv", PAD, ...)


@dataclass(frozen=True)
class FoldPadding(Pass, name="fold-padding"):
    """Let a convolution pad by itself what is padded with zeros before it, for which runtimes have integer kernels.

    graph @g(%x: f32[1,1,4,4], %w: f32[1,1,3,3]) {
      %pad = Pad %x, i64[4](0, 0, 1, 1), 0.0, i64[2](2, 3) : f32[1,1,5,5] [pad]
      %conv = Conv %pad, %w {strides=(2, 2)} : f32[1,1,2,2] [conv]
      return %conv
    }
    -->
    graph @g(%x: f32[1,1,4,4], %w: f32[1,1,3,3]) {
      %conv = Conv %x, %w {pads=(0, 0, 1, 1), strides=(2, 2)} : f32[1,1,2,2] [conv]
      return %conv
    }
    """

    numerics = "rounds"

    def run(self, graph: Graph) -> Outcome:
        """Fold what can be folded."""
        return rewrite(graph, {CONV: fold})


def fold(found: Match, graph: Graph) -> Value | Miss:
    """The convolution with the padding before it."""
    pad, conv = found[PAD], found[CONV]
    amounts = _amounts(pad)
    if amounts is None:
        return Miss("it is padded with something else than known amounts of zeros")
    rank = len(amounts) // 2
    if min(amounts) < 0 or any(amounts[axis + side] for axis in (0, 1) for side in (0, rank)):
        return Miss("something is cut off, or the batch or the channels are padded")
    if conv.attr("auto_pad") not in ("NOTSET", "VALID"):
        return Miss("how much it pads itself depends on the size")
    own = conv.attrs.get("pads", (0,) * (2 * (rank - 2)))
    added = (*amounts[2:rank], *amounts[rank + 2 :])
    attrs = {name: value for name, value in conv.attrs.items() if name != "auto_pad"}
    attrs["pads"] = tuple(a + b for a, b in zip(own, added, strict=True))
    return graph.add("Conv", [pad.operands[0], *conv.operands[1:]], attrs, like=[conv, pad]).result


def _amounts(pad: Node) -> list[int] | None:
    """The zeros before and behind every axis; None where other numbers are padded with, or they are computed."""
    x, pads, value, axes = (*pad.operands, None, None)[:4]
    known = all(part is None or part.literal is not None for part in (pads, value, axes))
    if not known or x.type.rank is None or pad.attr("mode") != "constant" or (value is not None and value.literal != 0):
        return None
    rank = x.type.rank
    named = range(rank) if axes is None else [axis % rank for axis in axes.literal]
    amounts = [0] * (2 * rank)
    for number, axis in enumerate(named):
        for side in (0, 1):
            amounts[axis + side * rank] = pads.literal[number + side * len(named)]
    return amounts
