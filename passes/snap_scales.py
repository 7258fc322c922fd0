"""Moves scales to powers of two, where all kernels round alike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding, ProductEncoding
from qir.facts import CALIBRATED
from qir.graph import Graph
from qir.pipeline import Pass
from qir.quantizers import quantizers, replace_encodings
from qir.rewrite import Note, Outcome


@dataclass(frozen=True)
class SnapScales(Pass, name="snap-scales"):
    """Make every scale the power of two that is not below it, and every zero point even.

    Products and sums of such numbers are exact in float32, so onnxruntime computes the same with and without its
    optimizations (as long as sums stay below 2^24 steps). It costs up to one bit of resolution, and a clamp whose
    limit is no point of the new grid is no longer free.

        graph @g(%x: f32[2]) {
          %x_q = qir.Quantize %x {encoding=$x_q} : f32[2] [x_quantizer]
          return %x_q
          $x_q = u8 asymmetric scale=0.1 zero_point=101
        }
        -->
        graph @g(%x: f32[2]) {
          %x_q = qir.Quantize %x {encoding=$x_q} : f32[2] [x_quantizer]
          return %x_q
          $x_q = u8 asymmetric scale=0.125 zero_point=80
        }
    """

    needs = (CALIBRATED,)
    gives = (CALIBRATED,)
    numerics = "changes"

    to: Literal["pow2"] = "pow2"

    def run(self, graph: Graph) -> Outcome:
        """Snap every encoding, and say which scales can not be chosen freely."""
        outcome = Outcome()
        snapped: dict[Encoding, Encoding] = {}
        for node in quantizers(graph):
            encoding = node.attrs["encoding"]
            if isinstance(encoding, LowPowerEncoding | FloatEncoding):
                outcome.missed.append(Note.of(node, "its scales are not free"))
            elif isinstance(encoding, ProductEncoding):
                outcome.missed.append(Note.of(node, "its scale follows those of its input and its weight"))
            else:
                snapped.setdefault(encoding, _snapped(encoding))
                outcome.done.append(Note.of(node, "has a power of two as its scale"))
        replace_encodings(graph, snapped)
        return outcome


def _snapped(encoding: Encoding) -> Encoding:
    """The grid with scales of powers of two that covers what `encoding` covers, to one step."""
    assert encoding.scale is not None
    assert encoding.zero_point is not None
    fraction, exponent = np.frexp(encoding.scale)
    scale = np.ldexp(np.float32(1), exponent - (fraction == 0.5)).astype(np.float32)
    if encoding.symmetric:
        return replace(encoding, scale=scale)
    steps = (encoding.low - encoding.zero_point.astype(np.float64)) * encoding.scale / scale
    zero = 2 * np.rint((encoding.low - steps) / 2)
    zero = np.clip(zero, encoding.low + encoding.low % 2, encoding.high - encoding.high % 2)
    return replace(encoding, scale=scale, zero_point=zero.astype(encoding.zero_point.dtype))
