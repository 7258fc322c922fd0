"""The spans of an exported program, each lowered as the one call that it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import fx

from qir.frontends.torch_aten import aliases, changes
from qir.frontends.torch_lowerings import Builder
from qir.frontends.torch_program import type_of_example
from qir.frontends.torch_spans import END, Span
from qir.graph import Value
from qir.traits import Views

if TYPE_CHECKING:
    from qir.frontends.torch_export import ProgramImporter


class SpanLowering:
    """What became of the spans of a program: what stands for their ends, and the calls of theirs that are left out."""

    def __init__(self, spans: Mapping[str, Span]) -> None:
        self.spans = spans
        self.results: dict[fx.Node, Value] = {}
        self.parts: set[fx.Node] = set()

    def begin(self, importer: ProgramImporter, node: fx.Node, tensors: list[Any], sizes: list[Any], span: str) -> None:
        """Lower the span as the one call that it is and leave its parts out, where its lowering takes it."""
        build = Builder(importer.graph, importer.weights.of)
        results = self.spans[span].lowered(build, tensors, sizes, bool(importer.callers.rate(node)))
        if results is None:
            return
        self.parts |= _inside(node)
        importer.place(build, node)
        for end in node.users:
            result = self.results[end] = results[int(end.args[3])]  # type: ignore[arg-type]
            if result.node in build.added and not end.users and result.node.definition.trait(Views):
                importer.graph.erase_dead(result.node)
            elif result.node in build.added:
                result.type = type_of_example(end.meta.get("val"))


def _inside(begin: fx.Node) -> set[fx.Node]:
    """The calls between `begin` and its ends that only compute what the ends pass on."""
    ends = {user for user in begin.users if user.target is END}
    between: list[fx.Node] = []
    node = begin.next
    left = len(ends)
    while left:
        between.append(node)
        left -= node in ends
        node = node.next
    there, needed = {*between}, set[fx.Node]()
    for node in reversed(between):
        read = any(user not in ends and (user not in there or user in needed) for user in node.users)
        if read or (changes(node) and not aliases(node) <= there):
            needed.add(node)
    return there - needed - ends
