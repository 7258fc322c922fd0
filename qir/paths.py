"""New paths for layers and weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from qir.graph import Graph, Node, Value


class Paths:
    """The paths that a graph's layers and weights have taken, and new ones beside them."""

    def __init__(self, graph: Graph) -> None:
        self.taken: set[str] = set()
        self.next: dict[str, int] = {}
        for vertex in graph.nx:
            if isinstance(vertex, Node) and vertex.module is not None:
                self.taken.add(vertex.module)
            elif isinstance(vertex, Value) and vertex.weight is not None:
                self.taken.update(vertex.weight.paths)

    def new(self, parent: str, name: str) -> str:
        """A path for `name` below `parent` that nothing has, numbered if need be; it is taken from now on."""
        wanted = f"{parent}.{name}" if parent else name
        path = wanted
        while path in self.taken:
            self.next[wanted] = self.next.get(wanted, 0) + 1
            path = f"{wanted}_{self.next[wanted]}"
        self.taken.add(path)
        return path


def tell_views_apart(graph: Graph, families: Iterable[Iterable[Value]]) -> None:
    """Let no two of the views of one weight, a family, have one path: those that nothing reads go.

    The first of those that are left keeps the paths that all have; each other gets new ones beside them.
    """
    paths = Paths(graph)
    for family in families:
        views = [value for value in family if value in graph.nx]
        read = [value for value in views if value.uses or value.is_output]
        for value in views:
            if value not in read:
                graph.remove_weight(value)
        for value in read[1:]:
            assert value.weight is not None
            value.weight = replace(value.weight, paths=tuple(paths.new("", path) for path in value.weight.paths))
