"""A layered drawing of a directed acyclic graph: rows from top to bottom, every line down.

After Sugiyama, Tagawa and Toda (1981): rows by longest path, lines that pass rows bend at an item of their own there,
the order within a row by sweeps of barycenters, the places within a row by weighted medians. The lines of a net share
one trunk, so that a value with many readers is one line with branches.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

GAP = 28.0
"""The space between two items of a row."""

BEND = 12.0
"""The width that is kept free around a line where it passes a row."""

ORDER_SWEEPS, PLACE_SWEEPS = 6, 9
FIRM, BENDS, MIXED, LOOSE = 1e6, 6.0, 1.0, 0.1
"""How strongly a line wants to be straight: to the nearest readers of a net, so that all else gives way; between bends;
to other readers; and from a box that reads nothing, as a constant, which stands beside what leads from the top."""


class Net(NamedTuple):
    """The lines from one item to each of `targets`, items by number."""

    source: int
    targets: tuple[int, ...]


@dataclass
class Layers:
    """Where everything stands: `x` has the middle of each item, `rows` the items of each row from left to right.

    Items from `len(widths)` on are bends. `trunks` has the bends of each net, one for each row below its source.
    """

    widths: list[float]
    rows: list[list[int]]
    trunks: list[list[int]]
    x: list[float] = field(default_factory=list)

    @property
    def row(self) -> list[int]:
        """The row of every item."""
        found = [0] * len(self.widths)
        for number, row in enumerate(self.rows):
            for item in row:
                found[item] = number
        return found


def layered(widths: Sequence[float], nets: Sequence[Net], row: Sequence[int] | None = None) -> Layers:
    """The drawing of items with these widths, in rows that are given, or else those of `rows_of`.

    Raises ValueError for a net that does not lead down.
    """
    row = rows_of(len(widths), nets) if row is None else row
    for net in nets:
        if any(row[target] <= row[net.source] for target in net.targets):
            raise ValueError(f"item {net.source} leads up to {min(net.targets)}")
    layers = _with_bends(widths, nets, row)
    links = _links(nets, layers, row)
    layers.rows = _ordered(layers.rows, links)
    layers.x = _placed(layers, links)
    return layers


def rows_of(count: int, nets: Sequence[Net], first: Sequence[int] = (), last: Sequence[int] = ()) -> list[int]:
    """The row of each item: below all that it reads; an item that reads nothing right above its first reader.

    Items are numbered so that every net leads to higher numbers; ValueError is raised for one that leads back. `first`
    stand in the top row, which nothing else shares, and `last` in the bottom row.
    """
    for net in nets:
        if any(target <= net.source for target in net.targets):
            raise ValueError(f"item {net.source} leads back to {min(net.targets)}")
    row, outgoing = [int(bool(first))] * count, [list[int]() for _ in range(count)]
    for net in nets:
        outgoing[net.source] += net.targets
    for item in first:
        row[item] = 0
    for item in range(count):
        for target in outgoing[item]:
            row[target] = max(row[target], row[item] + 1)
    pinned, read = {*first, *last}, {target for net in nets for target in net.targets}
    for item in reversed(range(count)):
        if item not in pinned and item not in read and outgoing[item]:
            row[item] = min(row[target] for target in outgoing[item]) - 1
    bottom = max((row[item] + 1 for item in range(count) if item not in {*last}), default=0)
    for item in last:
        row[item] = bottom
    return row


def _with_bends(widths: Sequence[float], nets: Sequence[Net], row: Sequence[int]) -> Layers:
    """The items in their rows, in the order of their numbers, and a bend wherever a net passes a row."""
    rows = [list[int]() for _ in range(max(row, default=-1) + 1)]
    for item, number in enumerate(row):
        rows[number].append(item)
    layers = Layers(list(widths), rows, [])
    for net in nets:
        below = max((row[target] for target in net.targets), default=0)
        trunk = list(range(len(layers.widths), len(layers.widths) + max(below - row[net.source] - 1, 0)))
        for number, bend in enumerate(trunk, row[net.source] + 1):
            rows[number].append(bend)
        layers.widths += [BEND] * len(trunk)
        layers.trunks.append(trunk)
    return layers


class _Links(NamedTuple):
    """For every item, the items of the row above and of the row below that lines connect it with.

    `firm` has the pairs, upper and lower, on the way to the nearest readers of a net.
    """

    above: list[list[int]]
    below: list[list[int]]
    firm: set[tuple[int, int]]


def _links(nets: Sequence[Net], layers: Layers, row: Sequence[int]) -> _Links:
    links = _Links([[] for _ in layers.widths], [[] for _ in layers.widths], set())
    for net, trunk in zip(nets, layers.trunks, strict=True):
        path, steps = [net.source, *trunk], [row[target] - row[net.source] - 1 for target in net.targets]
        pairs = [(upper, lower, step + 1) for step, (upper, lower) in enumerate(pairwise(path))]
        pairs += [(path[step], target, step) for step, target in zip(steps, net.targets, strict=True)]
        for upper, lower, step in pairs:
            links.below[upper].append(lower)
            links.above[lower].append(upper)
            if step <= min(steps):
                links.firm.add((upper, lower))
    return links


# -- the order within a row ------------------------------------------------------------------------------------------


def _ordered(rows: list[list[int]], links: _Links) -> list[list[int]]:
    """The rows, sorted down and up by the mean place of what each item is connected with; the best of all sweeps."""
    best, fewest = rows, _crossings(rows, links)
    for sweep in range(ORDER_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        neighbours = links.above if down else links.below
        made, place = [*rows], dict[int, float]()
        for number in range(len(rows)) if down else reversed(range(len(rows))):
            made[number] = _by_barycenter(rows[number], neighbours, place)
            place = {item: float(position) for position, item in enumerate(made[number])}
        rows, crossings = made, _crossings(made, links)
        if crossings < fewest:
            best, fewest = rows, crossings
    return best


def _by_barycenter(row: list[int], neighbours: list[list[int]], place: dict[int, float]) -> list[int]:
    """The row by the mean place of each item's neighbours; an item without any stays where it is."""
    wanted: dict[int, float] = {}
    for position, item in enumerate(row):
        found = [place[other] for other in neighbours[item] if other in place]
        wanted[item] = sum(found) / len(found) if found else float(position)
    return sorted(row, key=wanted.__getitem__)


def _crossings(rows: list[list[int]], links: _Links) -> int:
    """How many pairs of lines between two rows cross."""
    total = 0
    for upper, lower in pairwise(rows):
        place, seen = {item: position for position, item in enumerate(lower)}, list[int]()
        for item in upper:
            ends = [place[other] for other in links.below[item]]
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


# -- the place within a row ------------------------------------------------------------------------------------------


def _placed(layers: Layers, links: _Links) -> list[float]:
    """The middle of every item: rows side by side at first, then drawn towards what they are connected with."""
    boxes, x = len(layers.widths) - sum(map(len, layers.trunks)), [0.0] * len(layers.widths)
    loose = {item for row in layers.rows[1:] for item in row if not links.above[item]}
    for row in layers.rows:
        _settle(row, [0.0] * len(row), [1.0] * len(row), layers.widths, x)
    for sweep in range(PLACE_SWEEPS):
        down = sweep % 2 == 0
        for row in layers.rows if down else reversed(layers.rows):
            wanted, weights = [], []
            for item in row:
                near = (links.above if down else links.below)[item]
                pull = [(x[other], _force(item, other, boxes, loose, links.firm)) for other in near]
                wanted.append(_median(pull) if pull else x[item])
                weights.append(sum(force for _, force in pull) if pull else 0.1)
            _settle(row, wanted, weights, layers.widths, x)
    left = min((x[item] - width / 2 for item, width in enumerate(layers.widths)), default=0.0)
    return [round(place - left, 1) for place in x]


def _force(item: int, other: int, boxes: int, loose: Set[int], firm: Set[tuple[int, int]]) -> float:
    if item in loose or other in loose:
        return LOOSE
    if (item, other) in firm or (other, item) in firm:
        return FIRM
    return BENDS if item >= boxes and other >= boxes else MIXED


def _median(pull: list[tuple[float, float]]) -> float:
    """The weighted median of places with their weights: the middle between two that are equally good."""
    pull.sort()
    half, passed = sum(force for _, force in pull) / 2, 0.0
    for number, (place, force) in enumerate(pull):
        passed += force
        if passed > half:
            return place
        if passed == half:
            return (place + pull[number + 1][0]) / 2
    return pull[-1][0]


def _settle(
    row: Sequence[int], wanted: Sequence[float], weights: Sequence[float], widths: Sequence[float], x: list[float]
) -> None:
    """Put the items of a row as near to where they want to be as order and gaps allow (weighted least squares).

    Counted without the widths and gaps before each item, that is the isotonic regression of the wishes, which pooling
    neighbours that are out of order solves.
    """
    offsets, blocks = [0.0], list[tuple[float, float, int]]()
    for left, right in pairwise(row):
        offsets.append(offsets[-1] + (widths[left] + widths[right]) / 2 + GAP)
    for want, weight, offset in zip(wanted, weights, offsets, strict=False):
        mean, total, count = want - offset, weight, 1
        while blocks and blocks[-1][0] > mean:
            before, force, members = blocks.pop()
            mean = (mean * total + before * force) / (total + force)
            total, count = total + force, count + members
        blocks.append((mean, total, count))
    place = [mean for mean, _, count in blocks for _ in range(count)]
    for item, mean, offset in zip(row, place, offsets, strict=False):
        x[item] = mean + offset
