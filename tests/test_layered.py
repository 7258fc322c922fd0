"""The layered layout: rows, gaps, trunks; and the modules that are drawn with it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qir.pages.layered import GAP, Layers, Net, layered, rows_of
from qir.pages.modules import Drawing, Module, Port, Read, containers, drawings, enclosed, modules_of, path_of


@st.composite
def nets(draw: st.DrawFn) -> tuple[int, list[Net]]:
    count = draw(st.integers(1, 14))
    found = []
    for source in range(count - 1):
        targets = draw(st.sets(st.integers(source + 1, count - 1), max_size=4))
        found += [Net(source, tuple(sorted(targets)))] if targets else []
    return count, found


def check(layers: Layers, count: int, found: list[Net]) -> None:
    """No two things overlap, and all lines lead down, past one bend in each row."""
    assert sorted(item for row in layers.rows for item in row) == list(range(len(layers.widths)))
    for row in layers.rows:
        for left, right in pairwise(row):
            apart = layers.x[right] - layers.x[left]
            assert apart >= (layers.widths[left] + layers.widths[right]) / 2 + GAP - 0.2
    row = layers.row
    for net, trunk in zip(found, layers.trunks, strict=True):
        assert [row[bend] for bend in trunk] == list(range(row[net.source] + 1, max(row[t] for t in net.targets)))
        assert all(row[target] > row[net.source] for target in net.targets)
        assert all(bend >= count for bend in trunk)


@given(nets())
def test_nothing_overlaps_and_lines_lead_down(case: tuple[int, list[Net]]) -> None:
    count, found = case
    widths = [100.0 + 10 * item for item in range(count)]
    layers = layered(widths, found)
    check(layers, count, found)
    assert min(x - width / 2 for x, width in zip(layers.x, layers.widths, strict=True)) == pytest.approx(0, abs=0.1)
    assert layers == layered(widths, found)


@given(nets())
def test_the_first_are_at_the_top_and_the_last_at_the_bottom(case: tuple[int, list[Net]]) -> None:
    count, found = case
    first = [item for item in range(count) if all(item not in net.targets for net in found)][:1]
    last = [item for item in range(count) if all(item != net.source for net in found) and item not in first][-1:]
    layers = layered([100.0] * count, found, rows_of(count, found, first, last))
    check(layers, count, found)
    assert set(first) == {item for item in layers.rows[0] if item < count} or not first
    assert not last or layers.row[last[0]] == len(layers.rows) - 1


def test_a_chain_is_a_straight_line() -> None:
    layers = layered([100.0, 300.0, 50.0, 80.0], [Net(item, (item + 1,)) for item in range(3)])
    assert layers.rows == [[0], [1], [2], [3]]
    assert len(set(layers.x)) == 1


def test_a_line_past_a_chain_leaves_the_chain_straight() -> None:
    layers = layered([100.0] * 5, [Net(0, (1, 4)), Net(1, (2,)), Net(2, (3,)), Net(3, (4,))])
    assert [layers.x[item] for item in range(5)] == pytest.approx([layers.x[0]] * 5, abs=0.2)
    assert len({layers.x[bend] for bend in layers.trunks[0]}) == 1


def test_lines_that_need_not_cross_do_not() -> None:
    layers = layered([100.0] * 6, [Net(0, (5,)), Net(1, (4,)), Net(2, (3,))])
    above, below = layers.rows
    assert [5 - item for item in above] == below


def test_the_readers_of_a_value_share_its_trunk() -> None:
    chain = [Net(item, (item + 1,)) for item in range(1, 9)]
    layers = layered([100.0] * 10, [Net(0, (3, 5, 7, 9)), *chain])
    assert len(layers.trunks[0]) == layers.row[9] - layers.row[0] - 1
    assert len(layers.widths) == 10 + len(layers.trunks[0])


def test_what_reads_nothing_stands_right_above_its_reader() -> None:
    layers = layered([100.0] * 5, [Net(0, (1,)), Net(1, (2,)), Net(2, (4,)), Net(3, (4,))])
    assert layers.row[3] == layers.row[4] - 1


def test_a_circle_is_refused() -> None:
    with pytest.raises(ValueError, match="item 1 leads back to 0"):
        layered([100.0] * 2, [Net(1, (0,))])
    with pytest.raises(ValueError, match="item 0 leads up to 1"):
        layered([100.0] * 2, [Net(0, (1,))], [1, 0])


def test_nothing_is_drawn_of_nothing() -> None:
    assert layered([], []) == Layers([], [], [])


# -- modules ---------------------------------------------------------------------------------------------------------

PATHS = st.lists(st.sampled_from(["a", "b"]), max_size=3).map(tuple)


@st.composite
def nested(draw: st.DrawFn) -> tuple[list[tuple[str, ...]], list[Read]]:
    count, found = draw(nets())
    return draw(st.lists(PATHS, min_size=count, max_size=count)), [Read(*net) for net in found]


def lines(found: list[Drawing]) -> set[tuple[int, int, int]]:
    """Every value from a leaf to a leaf, followed through the ports of modules."""
    index = {drawing.module: number for number, drawing in enumerate(found)}
    ends: dict[Any, list[Any]] = {}
    for number, drawing in enumerate(found):
        for value, net in drawing.nets:

            def end(item: Any, top: bool, value: int = value, number: int = number) -> Any:
                return (index[item], Port(value, top)) if isinstance(item, Module) else (number, item)

            targets = [end(drawing.items[target], True) for target in net.targets]
            ends.setdefault((value, end(drawing.items[net.source], False)), []).extend(targets)
    reached = set()
    for value, (number, start) in [key for key in ends if isinstance(key[1][1], int)]:
        stack = [*ends[value, (number, start)]]
        while stack:
            place = stack.pop()
            if isinstance(place[1], int):
                reached.add((value, start, place[1]))
            stack += ends.get((value, place), [])
    return reached


@settings(max_examples=200)
@given(nested())
def test_modules_hold_every_leaf_once_and_show_every_line(case: tuple[list[tuple[str, ...]], list[Read]]) -> None:
    around, reads = case
    root = modules_of(around, reads)
    assert sorted(root.leaves()) == list(range(len(around)))
    found = drawings(root, reads)
    for drawing in found:
        check(drawing.layers, len(drawing.items), [net for _, net in drawing.nets])
        inside = set(drawing.module.leaves())
        assert len(inside) > 1 or drawing.module is root
        assert all(around[leaf][: len(drawing.module.path)] == drawing.module.path for leaf in inside)
    expected = {(value, read.source, reader) for value, read in enumerate(reads) for reader in read.readers}
    assert lines(found) == expected


def test_a_module_that_computes_before_and_after_another_has_two_parts() -> None:
    around = [("a",), ("a",), ("b",), ("b",), ("a",), ("a",)]
    chain = [Read(leaf, (leaf + 1,)) for leaf in range(5)]
    root = modules_of(around, chain)
    assert [member.path for member in root.members if isinstance(member, Module)] == [("a",), ("b",), ("a",)]


def test_what_stands_between_two_parts_of_a_module_lies_in_it() -> None:
    around = [("a", "b"), (), ("q",), ("a", "c"), ("d",), (), ()]
    reads = [Read(0, (1,)), Read(1, (2,)), Read(2, (3,)), Read(3, (4,)), Read(4, (5,))]
    assert enclosed(around, reads, {1, 2, 4, 5}) == [("a", "b"), ("a",), ("a",), ("a", "c"), ("d",), (), ()]
    assert enclosed(around, reads, set()) == around


def test_a_layer_and_what_lies_in_it_are_a_module() -> None:
    paths = [("conv", "weight_quantizer"), ("conv",), ("relu",), ("block", "add")]
    assert containers([(path, True) for path in paths]) == [("conv",), ("conv",), (), ("block",)]
    assert containers([(("block",), False), (("block", "add"), True)]) == [("block",), ("block",)]


def test_a_path_has_names_between_dots_or_slashes() -> None:
    assert path_of("layer1.0.conv1") == ("layer1", "0", "conv1")
    assert path_of("/layer1/layer1.0/conv1/Conv") == ("layer1", "layer1.0", "conv1", "Conv")
    assert len(path_of(".".join("a" * 5000))) == 17
