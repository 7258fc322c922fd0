"""What a target computes of a quantized model with integers, and what keeps the rest in float."""

from __future__ import annotations

from dataclasses import dataclass

from qir.errors import QirError
from qir.fusion import OTHER_SCALE, bias_mismatch
from qir.graph import Graph
from qir.pipeline import Pipeline
from qir.placement.targets import target as profile_of
from qir.rewrite import Note

ROUNDING = 1e-6
"""How far apart two float32 products of the same scales may be."""


@dataclass(frozen=True)
class Verdict:
    """One operator of a model: whether the target computes it with integers, and what is to be said about it.

    `wrong` is an operator that the target computes with integers, and otherwise than the model says.
    """

    note: Note
    integer: bool
    wrong: bool = False


def lint(graph: Graph, target: str) -> list[Verdict]:
    """A verdict for every operator of a quantized graph that computes, in canonical order.

    The verdicts are those of the pass `fuse-integer`, which models what the target fuses; `graph` is not changed.
    Raises QirError for a graph without calibrated quantizers.
    """
    from qir.passes.fuse_integer import FuseInteger, is_float

    shipped = Pipeline.parse(f"legalize-onnx{{opset={profile_of(target).opset}}}", graph).run(graph.copy())
    if not any(node.op == "QuantizeLinear" for node in shipped.nodes()):
        raise QirError("the model is not quantized", stage="lint", help="quantize it: qir quantize")
    computing = [node for node in shipped.nodes() if is_float(node)]
    found = {node: Verdict(Note.of(node, "computes with integers"), integer=True) for node in computing}
    for node in computing:
        if bias_mismatch(node) > ROUNDING:
            found[node] = Verdict(Note.of(node, OTHER_SCALE), integer=True, wrong=True)
    missed = {note.node: note for note in FuseInteger(target=target).run(shipped).missed}
    for node in computing:
        if not node.erased:
            found[node] = Verdict(missed[str(node)], integer=False)
    return list(found.values())
