"""Writes composed operators, such as attention, in parts that can be quantized each."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from qir.errors import QirError
from qir.expansions import put_in_place
from qir.facts import CALIBRATED, FUNCTIONALS_LIFTED, MODULES_UNROLLED
from qir.graph import Graph, Node, Value
from qir.ops import composed_families
from qir.paths import Paths
from qir.pipeline import Pass
from qir.rewrite import Miss, Note, Outcome
from qir.traits import Composed
from qir.types import UNKNOWN


@dataclass(frozen=True)
class Decompose(Pass, name="decompose"):
    """Take attention, recurrent layers and einsum apart, so that each of their steps can be quantized.

    `families` names what is taken apart; all that there are, when it names none. A recurrent layer is unrolled over its
    sequence, whose length must be known. The parts compute the same as the framework's fused kernel, rounded after
    every step; `only_exact` takes apart where that gives the same bits. Parts of a layer get layers below its path.

        graph @g(%q: f32[1,2,4,16], %k: f32[1,2,4,16], %v: f32[1,2,4,16]) {
          %out = qir.ScaledDotProductAttention %q, %k, %v : f32[1,2,4,16] [attend]
          return %out
        }
        -->
        graph @g(%q: f32[1,2,4,16], %k: f32[1,2,4,16], %v: f32[1,2,4,16]) {
          %mul = Mul %q, 0.5 : f32[1,2,4,16] [attend.mul]
          %swapaxes = qir.SwapAxes %k {axis0=-2, axis1=-1} : f32[1,2,16,4]
          %mul_1 = Mul %swapaxes, 0.5 : f32[1,2,16,4] [attend.mul_1]
          %matmul = MatMul %mul, %mul_1 : f32[1,2,4,4] [attend.matmul]
          %softmax = Softmax %matmul : f32[1,2,4,4] [attend.softmax]
          %out = MatMul %softmax, %v : f32[1,2,4,16] [attend.matmul_1]
          return %out
        }
    """

    breaks = (FUNCTIONALS_LIFTED, MODULES_UNROLLED, CALIBRATED)
    numerics = "rounds"

    families: tuple[str, ...] = ()
    only_exact: bool = False

    def __post_init__(self) -> None:
        for name in self.families:
            if name not in composed_families():
                near = get_close_matches(name, composed_families(), 1)
                help = f"did you mean {near[0]!r}?" if near else f"families are {', '.join(composed_families())}"
                raise QirError(f"decompose knows no family {name!r}", help=help)

    def run(self, graph: Graph) -> Outcome:
        """Take apart until nothing is left to take apart."""
        outcome, paths = Outcome(), Paths(graph)
        work = list(reversed(graph.nodes()))
        while work:
            node = work.pop()
            composed = None if node.erased else node.definition.trait(Composed)
            if composed is None:
                continue
            if self.families and composed.family not in self.families:
                why = Miss(f"the family {composed.family!r} is not asked for", "name it in the option families")
                outcome.missed.append(Note.of(node, why))
                continue
            if self.only_exact and not composed.exact(node):
                outcome.missed.append(Note.of(node, "its parts round otherwise than the whole"))
                continue
            added: list[Node] = []
            parts = parts_of(node, composed, graph, added)
            if isinstance(parts, Miss):
                outcome.missed.append(Note.of(node, parts.reason))
                continue
            outcome.done.append(Note.of(node, _written_in(added)))
            for old, new in zip(node.results, parts, strict=True):
                new.hint, new.type = old.hint, new.type if old.type == UNKNOWN else old.type
            work += reversed(put_in_place(graph, node, parts, paths))
            for part in reversed(added):
                if not part.erased:
                    graph.erase_dead(part)
        return outcome


def _written_in(added: list[Node]) -> str:
    ops = ", ".join(dict.fromkeys(part.op for part in added))
    return f"is written in {len(added)} parts: {ops}" if added else "is replaced by a value that is already there"


def parts_of(node: Node, composed: Composed, graph: Graph, added: list[Node]) -> list[Value] | Miss:
    """The values that stand for the results of the node, or why it stays whole; `added` gets the new nodes."""
    graph.added = added
    try:
        return list(composed.parts(graph, node))
    except QirError as error:
        for part in reversed(added):
            graph.erase(part)
        return Miss(error.message)
    finally:
        graph.added = None
