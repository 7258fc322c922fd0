"""Where in a torch module the layers and weights of a graph go: at their paths, as far as torch can have these."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from keyword import iskeyword

from torch import nn

from qir.graph import Node, Value


@cache
def attribute(path: str) -> str:
    """`path` with every part changed that can be no attribute: an empty one, a keyword, quotes, a method of modules."""
    parts = (re.sub(r"[\"'\\\s{}]", "_", part) for part in path.split("."))
    return ".".join(f"{part}_" if not part or iskeyword(part) or hasattr(_PLAIN, part) else part for part in parts)


_PLAIN = nn.Module()


def weight_places(nodes: Iterable[Node], weights: Iterable[Value]) -> dict[str, str]:
    """For the path of each weight, where it goes: the path itself, unless that is a layer or holds other paths."""
    layers = {attribute(node.module) for node in nodes if node.module is not None}
    paths = [path for value in weights if value.weight is not None for path in value.weight.paths]
    taken = layers.union(*(_around(path) for path in (*layers, *map(attribute, paths))))
    found: dict[str, str] = {}
    for path in paths:
        place = attribute(path)
        while place in taken:
            place += "_"
        taken.add(place)
        found[path] = place
    return found


def _around(path: str) -> set[str]:
    """The paths of the modules that `path` lies in."""
    parts = path.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}
