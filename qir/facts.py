"""The facts that passes establish and rely on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from qir.graph import Graph, Node
from qir.traits import MovesData, Shapes, Views
from qir.types import ScalarType


@dataclass(frozen=True)
class Fact:
    """A property of a graph. `check` yields the nodes that break it; `meaning` completes "the graph has …"."""

    name: str
    meaning: str
    check: Callable[[Graph], Iterable[Node]]


def is_quantizer(node: Node) -> bool:
    """Whether the node puts a tensor on a grid."""
    return node.op == "qir.Quantize"


def computes(node: Node) -> bool:
    """Whether the node computes with tensors, so that it deserves a layer: no data movement, no shape arithmetic."""
    known = node.definition
    if is_quantizer(node) or any(known.trait(kind) for kind in (MovesData, Views, Shapes)):
        return False
    return not all(isinstance(result.type, ScalarType) for result in node.results)


def _breaking(graph: Graph, breaks: Callable[[Node], bool]) -> Iterator[Node]:
    """The nodes that break a fact. They are put in order only where there are any."""
    if any(isinstance(vertex, Node) and breaks(vertex) for vertex in graph.nx):
        yield from filter(breaks, graph.nodes())


def _not_lifted(graph: Graph) -> Iterator[Node]:
    return _breaking(graph, lambda node: node.module is None and computes(node))


def _not_unrolled(graph: Graph) -> Iterator[Node]:
    def called(node: Node) -> bool:
        return node.module is not None and not is_quantizer(node)

    layers = [vertex.module for vertex in graph.nx if isinstance(vertex, Node) and called(vertex)]
    seen: set[str | None] = set()
    for node in graph.nodes() if len(set(layers)) < len(layers) else ():
        if called(node):
            if node.module in seen:
                yield node
            seen.add(node.module)


def _not_inserted(graph: Graph) -> Iterator[Node]:
    nodes = graph.nodes()
    if not any(map(is_quantizer, nodes)):
        yield from (node for node in nodes if computes(node))


def _not_calibrated(graph: Graph) -> Iterator[Node]:
    return _breaking(graph, lambda node: is_quantizer(node) and not node.attrs["encoding"].calibrated)


def _not_expanded(graph: Graph) -> Iterator[Node]:
    def composite(node: Node) -> bool:
        return node.op.startswith("qir.") and not (is_quantizer(node) and not node.attrs["encoding"].calibrated)

    return _breaking(graph, composite)


FUNCTIONALS_LIFTED = Fact("functionals-lifted", "a layer for every computation", _not_lifted)
MODULES_UNROLLED = Fact("modules-unrolled", "one call for every layer", _not_unrolled)
QUANTIZERS_INSERTED = Fact("quantizers-inserted", "quantizers", _not_inserted)
CALIBRATED = Fact("calibrated", "a scale for every quantizer", _not_calibrated)
COMPOSITES_EXPANDED = Fact("composites-expanded", "no composites and no calibrated quantizers", _not_expanded)

FACTS = (FUNCTIONALS_LIFTED, MODULES_UNROLLED, QUANTIZERS_INSERTED, CALIBRATED, COMPOSITES_EXPANDED)


def held_by(graph: Graph, facts: Iterable[Fact] = FACTS) -> frozenset[Fact]:
    """Those of `facts` that no node of the graph breaks."""
    return frozenset(fact for fact in facts if not any(True for _ in fact.check(graph)))
