"""Composites in the domain `qir.` that move elements: indexing, repetition, turning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qir.errors import QirError
from qir.operators.functions import Writer, function, same_type, types_if_known
from qir.traits import CopiesData, KeepsGrid, MovesData, Unary

if TYPE_CHECKING:
    from qir.graph import Value

LAST = 2**63 - 1
MOVES, COPIES = (MovesData(),), (CopiesData(),)


def _index(on: Writer, x: Value, index: tuple[Any, ...]) -> Value:
    """Slice for the slices, then Squeeze for the numbers, then Unsqueeze for the Nones."""
    taken = sum(item is not None and item is not Ellipsis for item in index)
    if Ellipsis not in index:
        index = (*index, Ellipsis)
    axis, place, whole = 0, 0, on.rank(x) - taken
    slices: list[tuple[int, slice]] = []
    dropped: list[int] = []
    added: list[int] = []
    for item in index:
        if item is None:
            added.append(place)
        elif isinstance(item, int):
            slices.append((axis, slice(item, item + 1 if item != -1 else LAST, 1)))
            dropped.append(axis)
        elif isinstance(item, slice) and item != slice(None):
            slices.append((axis, item))
        step = whole if item is Ellipsis else int(item is not None)
        axis += step
        place += 1 if item is None else 0 if isinstance(item, int) else step
    if slices:
        starts = [part.start or 0 for _, part in slices]
        ends = [LAST if part.stop is None else part.stop for _, part in slices]
        x = on.Slice(x, starts, ends, [axis for axis, _ in slices], [part.step or 1 for _, part in slices])
    x = on.Squeeze(x, dropped) if dropped else x
    x = on.Unsqueeze(x, added) if added else x
    return x if slices or added else on.Identity(x)


def _flip(on: Writer, x: Value, dims: Sequence[int]) -> Value:
    count = len(dims)
    return on.Slice(x, [-1] * count, [-LAST] * count, list(dims), [-1] * count)


def _roll(on: Writer, x: Value, shifts: Sequence[int], dims: Sequence[int]) -> Value:
    for shift, axis in zip(shifts, dims, strict=True):
        size = on.Gather(on.Shape(x), [axis % on.rank(x)])
        place = on.Mod([-shift], size)
        x = on.Concat(on.Slice(x, place, [LAST], [axis]), on.Slice(x, [0], place, [axis]), axis=axis)
    return x


def _unflatten(on: Writer, x: Value, dim: int, sizes: Sequence[int]) -> Value:
    axis = dim % on.rank(x)
    parts = [on.Shape(x, end=axis)] if axis else []
    parts.append(on.graph.constant(list(sizes)))
    parts += [on.Shape(x, start=axis + 1)] if axis + 1 < on.rank(x) else []
    return on.Reshape(x, on.Concat(*parts, axis=0) if len(parts) > 1 else parts[0])


def _move_axes(on: Writer, x: Value, source: Sequence[int], destination: Sequence[int]) -> Value:
    rank = on.rank(x)
    placed = {to % rank: axis % rank for axis, to in zip(source, destination, strict=True)}
    rest = iter(axis for axis in range(rank) if axis not in placed.values())
    return on.Transpose(x, perm=[placed[to] if to in placed else next(rest) for to in range(rank)])


def _pixel_unshuffle(on: Writer, x: Value, downscale_factor: int) -> Value:
    if on.rank(x) != 4:
        raise QirError("pixel unshuffling can only be expanded for four axes", on.node)
    channels, block = on.size(x, 1), downscale_factor
    height, width = on.size(x, 2) // block, on.size(x, 3) // block
    split = on.Reshape(x, [0, channels, height, block, width, block])
    turned = on.Transpose(split, perm=[0, 1, 3, 5, 2, 4])
    return on.Reshape(turned, [0, channels * block * block, height, width])


def _channel_shuffle(on: Writer, x: Value, groups: int) -> Value:
    count = on.size(x, 1) // groups
    split = on.Reshape(x, [0, groups, count, -1])
    turned = on.Transpose(split, perm=[0, 2, 1, 3])
    return on.Reshape(turned, [0, groups * count, *(on.size(x, axis) for axis in range(2, on.rank(x)))])


function("Index", "x", _index, MOVES, None,
         "x[index], for whole numbers, slices, None and Ellipsis.", index=())  # fmt: skip
function("Flip", "x", _flip, COPIES, same_type, "The elements along some axes in reverse.", dims=())
function("Roll", "x", _roll, COPIES, same_type, "The elements along some axes shifted, the last ones coming first.",
         shifts=(), dims=())  # fmt: skip
function("Unflatten", "x", _unflatten, MOVES, None, "One axis split into several.", dim=0, sizes=())
function("MoveAxes", "x", _move_axes, MOVES, None, "Axes moved to other places, the rest in order.",
         source=(), destination=())  # fmt: skip
function("PixelUnshuffle", "x", _pixel_unshuffle, MOVES, types_if_known,
         "Blocks of pixels as channels, those of one channel together.", downscale_factor=1)  # fmt: skip
function("ChannelShuffle", "x", _channel_shuffle, MOVES, same_type, "The channels of each group dealt out in turn.",
         groups=1)  # fmt: skip
function("Clone", "x", lambda on, x: x, (KeepsGrid(), Unary()), same_type, "A copy.")
function("Detach", "x", lambda on, x: x, (MovesData(), Unary()), same_type, "The same values, without a gradient.")
