"""Drops clamps that a squash makes superfluous."""

from dataclasses import dataclass

from qir import Graph, Pass, Value
from qir.patterns import Input, Match, Op
from qir.rewrite import Miss, Outcome, rewrite
from qir.traits import Clamps

X = Input()
SQUASH = Op("qir_lab.Squash", X)
CLAMP = Op(Clamps, SQUASH, ...)


@dataclass(frozen=True)
class DropSquashes(Pass, name="drop-squashes"):
    """Drop a clamp behind a squash that stays within its limits.

    graph @g(%x: f32[4]) {
      %squash = qir_lab.Squash %x {limit=2.0} : f32[4]
      %clamp = Clip %squash, -3.0, 3.0 : f32[4]
      return %clamp
    }
    -->
    graph @g(%x: f32[4]) {
      %squash = qir_lab.Squash %x {limit=2.0} : f32[4]
      return %squash
    }
    """

    def run(self, graph: Graph) -> Outcome:
        """Look at every clamp."""
        return rewrite(graph, {CLAMP: drop})


def drop(found: Match, graph: Graph) -> Value | Miss:
    """The squash, where the clamp does nothing."""
    low, high = found[CLAMP].definition.trait(Clamps).range(found[CLAMP]) or (0, 0)
    limit = found[SQUASH].attr("limit")
    if (low is not None and low > -limit) or (high is not None and high < limit):
        return Miss(f"its limits are below {limit}")
    return found[SQUASH].result
