"""Gives quantizers the encodings of a file."""

from __future__ import annotations

from dataclasses import dataclass

from qir.encodings.apply import apply_encodings, remove
from qir.facts import CALIBRATED, COMPOSITES_EXPANDED, QUANTIZERS_INSERTED
from qir.graph import Graph
from qir.pipeline import Pass
from qir.rewrite import Outcome


@dataclass(frozen=True)
class LoadEncodings(Pass, name="load-encodings"):
    """Let quantizers hold the encodings of an AIMET encodings file, found by the names of their tensors.

    Those that the file does not name are removed, or with `partial` kept as they are. When not `strict`, names that no
    quantizer has are left out, and the file decides about channels and symmetry. This file holds
    `{"fc.weight": [{"bitwidth": 4, "is_symmetric": "True", "scale": 0.5, "offset": -8}]}`:

        graph @g(%x: f32[1,2]) {
          %w = weight fc.weight : f32[2,2] #0000000000000000
          %x_q = qir.Quantize %x {encoding=$x_q} : f32[1,2]
          %w_q = qir.Quantize %w {encoding=$w_q} : f32[2,2]
          %fc = MatMul %x_q, %w_q : f32[1,2] [fc]
          return %fc
          $x_q = u8 asymmetric
          $w_q = i8 symmetric
        }
        --> load-encodings{file=docs/example.encodings}
        graph @g(%x: f32[1,2]) {
          %w = weight fc.weight : f32[2,2] #0000000000000000
          %w_q = qir.Quantize %w {encoding=$w_q} : f32[2,2]
          %fc = MatMul %x, %w_q : f32[1,2] [fc]
          return %fc
          $w_q = i4 symmetric scale=0.5 zero_point=0
        }
    """

    needs = (QUANTIZERS_INSERTED,)
    gives = (CALIBRATED,)
    breaks = (COMPOSITES_EXPANDED,)
    numerics = "changes"

    file: str
    strict: bool = True
    partial: bool = False

    def run(self, graph: Graph) -> Outcome:
        """Read the file and apply it."""
        applied = apply_encodings(graph, self.file, strict=self.strict)
        outcome = applied.outcome
        if not self.partial:
            remove(graph, applied.missing)
        return outcome
