"""The modules of a graph as nested boxes: which node lies in which, and a layered drawing of the inside of each.

A module is drawn with the modules in it closed, so that a reader can open and close each by itself: opening one moves
things apart and changes no drawing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import networkx as nx

from qir.pages.layered import BEND, Layers, Net, layered, rows_of

DEEPEST = 16
"""So many names of a path are modules of their own at most."""

BOX = 208.0
"""The width of a node, and of a closed module."""

Path = tuple[str, ...]


class Read(NamedTuple):
    """A value: the leaf that computes it, and the leaves that read it. Leaves are numbered in topological order."""

    source: int
    readers: tuple[int, ...]


@dataclass(eq=False)
class Module:
    """Leaves, and modules of them, in topological order."""

    path: Path
    members: list[int | Module]

    def leaves(self) -> Iterator[int]:
        """All leaves in it, in topological order of its members."""
        for member in self.members:
            if isinstance(member, int):
                yield member
            else:
                yield from member.leaves()


def path_of(name: str) -> Path:
    """The names in a path: `layer1.0.conv1`, or `/layer1/layer1.0/conv1/Conv` in ONNX models."""
    separator = "/" if "/" in name else "."
    parts = [part for part in name.split(separator) if part]
    return (*parts[:DEEPEST], separator.join(parts[DEEPEST:])) if len(parts) > DEEPEST else tuple(parts)


def containers(paths: Iterable[tuple[Path, bool]]) -> list[Path]:
    """For each path, that of the module around it; True stands beside the path of a layer, which others may lie in."""
    paths = list(paths)
    above = {path[:depth] for path, _ in paths for depth in range(len(path))}
    above |= {path for path, is_layer in paths if not is_layer}
    seen: dict[Path, int] = {}
    for path, is_layer in paths:
        seen[path] = seen.get(path, 0) + is_layer
    return [path if path in above or seen[path] > 1 else path[:-1] for path, _ in paths]


def enclosed(around: Sequence[Path], reads: Sequence[Read], movable: Set[int]) -> list[Path]:
    """The modules of leaves, where a movable one lies in the module that all it reads from and all its readers are in.

    What a pass put between two operations of a module has seldom a path there, and would cut the module in two.
    """
    sources, readers = [list[int]() for _ in around], [list[int]() for _ in around]
    for read in reads:
        for reader in read.readers:
            sources[reader].append(read.source)
            readers[read.source].append(reader)
    above, below = [*around], [*around]
    for leaf in sorted(movable):
        above[leaf] = _shared([above[source] for source in sources[leaf]], around[leaf])
    for leaf in sorted(movable, reverse=True):
        below[leaf] = _shared([below[reader] for reader in readers[leaf]], around[leaf])
    found = [*around]
    for leaf in movable:
        inner = _shared([above[leaf], below[leaf]], ())
        if around[leaf][: len(inner)] != inner:
            found[leaf] = inner
    return found


def _shared(paths: Sequence[Path], otherwise: Path) -> Path:
    """The beginning that all paths have; `otherwise` where there are none."""
    if not paths:
        return otherwise
    low, high = min(paths), max(paths)
    return low[: next((depth for depth, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def modules_of(around: Sequence[Path], reads: Sequence[Read]) -> Module:
    """The outermost module of leaves, each inside the modules that `around` names.

    Between the members of a module no lines lead in circles: where they would, as when a module computes before and
    after another, it becomes a module for each uninterrupted part. A module of one member is that member.
    """
    edges = [(read.source, reader) for read in reads for reader in read.readers]
    found = _module((), range(len(around)), edges, around)
    return found if isinstance(found, Module) else Module((), [found])


def _module(
    path: Path, leaves: Sequence[int], edges: Sequence[tuple[int, int]], around: Sequence[Path]
) -> int | Module:
    """The module of `leaves`, which `edges` connect."""
    depth = len(path)
    keys: dict[int, int | Path] = {
        leaf: around[leaf][: depth + 1] if len(around[leaf]) > depth else leaf for leaf in leaves
    }
    part_of, parts = dict[int, int](), list[tuple[int | Path, list[int]]]()
    for key, members in _acyclic(keys, edges):
        part_of |= dict.fromkeys(members, len(parts))
        parts.append((key, members))
    inside = [list[tuple[int, int]]() for _ in parts]
    between = nx.DiGraph()
    between.add_nodes_from(range(len(parts)))
    for a, b in edges:
        if part_of[a] == part_of[b]:
            inside[part_of[a]].append((a, b))
        else:
            between.add_edge(part_of[a], part_of[b])
    order = nx.lexicographical_topological_sort(between, key=lambda part: parts[part][1][0])
    made: list[int | Module] = []
    for part in order:
        key, members = parts[part]
        made.append(
            members[0] if len(members) == 1 or isinstance(key, int) else _module(key, members, inside[part], around)
        )
    return made[0] if len(made) == 1 else Module(path, made)


def _acyclic(keys: dict[int, int | Path], edges: Iterable[tuple[int, int]]) -> Iterable[tuple[int | Path, list[int]]]:
    """The leaves by key; keys that lie on a circle are cut into runs of the topological order, which lie on none."""
    quotient = nx.DiGraph()
    quotient.add_nodes_from(keys.values())
    quotient.add_edges_from((keys[a], keys[b]) for a, b in edges if keys[a] != keys[b])
    circles = {key: number for number, part in enumerate(nx.strongly_connected_components(quotient)) for key in part}
    members: dict[int, list[int]] = {}
    for leaf in keys:
        members.setdefault(circles[keys[leaf]], []).append(leaf)
    for leaves in members.values():
        yield from ((key, list(run)) for key, run in groupby(leaves, keys.__getitem__))


# -- drawings --------------------------------------------------------------------------------------------------------


class Port(NamedTuple):
    """Where a value crosses the border of a module: at its top, or at its bottom."""

    value: int
    top: bool


Item = int | Module | Port


@dataclass
class Drawing:
    """The inside of a module: its items, the values between them, and where all that stands.

    `nets` are those of `layers`, each with the number of its value.
    """

    module: Module
    items: list[Item]
    nets: list[tuple[int, Net]] = field(default_factory=list)
    layers: Layers = field(default_factory=lambda: Layers([], [], []))


def drawings(root: Module, reads: Sequence[Read]) -> list[Drawing]:
    """A drawing of every module, the outermost first, each before those in it."""
    chains: dict[int, list[tuple[Module, int | Module]]] = {}
    found = [*_descend(root, [], chains)]
    lines: dict[Module, dict[int, tuple[Item, dict[Item, None]]]] = {module: {} for module in found}
    for value, read in enumerate(reads):
        for reader in read.readers:
            for module, source, target in _steps(chains[read.source], chains[reader], value):
                lines[module].setdefault(value, (source, {}))[1][target] = None
    return [_drawing(module, lines[module]) for module in found]


def _descend(
    module: Module, chain: list[tuple[Module, int | Module]], chains: dict[int, list[tuple[Module, int | Module]]]
) -> Iterable[Module]:
    """The modules, and for each leaf the modules around it, each with its member that the leaf is in."""
    yield module
    for member in module.members:
        inner = [*chain, (module, member)]
        if isinstance(member, int):
            chains[member] = inner
        else:
            yield from _descend(member, inner, chains)


def _steps(
    up: list[tuple[Module, int | Module]], down: list[tuple[Module, int | Module]], value: int
) -> Iterable[tuple[Module, Item, Item]]:
    """The lines from a leaf to another, module by module: out of those around the one, into those around the other."""
    common = next(depth for depth, (a, b) in enumerate(zip(up, down, strict=False)) if a[1] is not b[1])
    yield from ((module, member, Port(value, top=False)) for module, member in up[common + 1 :])
    yield up[common][0], up[common][1], down[common][1]
    yield from ((module, Port(value, top=True), member) for module, member in down[common + 1 :])


def _drawing(module: Module, lines: dict[int, tuple[Item, dict[Item, None]]]) -> Drawing:
    entering = [source for source, _ in lines.values() if isinstance(source, Port)]
    leaving = [target for _, targets in lines.values() for target in targets if isinstance(target, Port)]
    items: list[Item] = [*entering, *module.members, *leaving]
    number = {item: position for position, item in enumerate(items)}
    drawing = Drawing(module, items)
    for value, (source, targets) in lines.items():
        drawing.nets.append((value, Net(number[source], tuple(number[target] for target in targets))))
    widths = [BEND if isinstance(item, Port) else BOX for item in items]
    nets, last = [net for _, net in drawing.nets], range(len(items) - len(leaving), len(items))
    drawing.layers = layered(widths, nets, rows_of(len(items), nets, range(len(entering)), last))
    return drawing
