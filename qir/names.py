"""New paths for layers."""

from __future__ import annotations

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
