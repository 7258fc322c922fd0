"""The report of the calls that stay opaque."""

from __future__ import annotations

from dataclasses import dataclass

from qir.facts import computes
from qir.graph import Graph, Node


@dataclass(frozen=True)
class OpaqueCall:
    """A call that stays as it is: `path` is its layer, or the module that makes it where it has none."""

    path: str
    call: str
    reason: str
    line: str

    def __str__(self) -> str:
        place = f"\n  --> {self.line}" if self.line else ""
        return f"{self.path or 'the model'}: {self.call} stays as it is: {self.reason}{place}"


def opaque_calls(graph: Graph) -> list[OpaqueCall]:
    """The calls of a graph that stay opaque and compute something, in order."""
    if not any(isinstance(vertex, Node) and vertex.definition.opaque for vertex in graph.nx):
        return []
    return [
        OpaqueCall(
            node.module or node.scope,
            node.op,
            node.why_opaque or "nothing lowers it yet",
            str(node.loc) if node.loc is not None and node.loc.file else "",
        )
        for node in graph.nodes()
        if node.definition.opaque and (node.module is not None or computes(node))
    ]
