"""Composites in the domain `qir.` whose sizes a model computes: Python numbers that follow the shapes of its inputs.

The computed numbers are the last operands. None in an attribute stands for the next of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.operators.functions import Writer, function, types_if_known
from qir.operators.python_numbers import known_size
from qir.traits import CopiesData, MovesData, Shapes
from qir.types import DTYPES, NUMPY, UNKNOWN, Dim, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Node, Value

Pattern = Sequence[int | None]
LAST = 2**63 - 1


def filled_in(pattern: Pattern, numbers: Sequence[Any]) -> list[Any]:
    """The pattern with the next of `numbers` in the place of each None."""
    left = iter(numbers)
    return [next(left) if item is None else item for item in pattern]


def _sizes(pattern: Pattern, computed: Sequence[Value]) -> list[Dim]:
    """The sizes as far as types tell."""
    found = filled_in(pattern, [known_size(value) for value in computed])
    return [None if isinstance(size, float) else size for size in found]


def vector(on: Writer, numbers: Sequence[int | Value]) -> Value:
    """The numbers as one vector of i64: a constant where all are known."""
    known = [number if isinstance(number, int) else known_size(number) for number in numbers]
    if all(isinstance(number, int) for number in known):
        return on.graph.constant(np.array(known, np.int64))
    parts = [[number] if isinstance(number, int) else on.Reshape(value, [1])
             for number, value in zip(known, numbers, strict=True)]  # fmt: skip
    return on.Concat(*parts, axis=0)


def _view(on: Writer, x: Value, *size: Value, shape: Pattern) -> Value:
    """Reshape, where a single size that is not known is left to Reshape."""
    sizes = _sizes(shape, size)
    unknown = [axis for axis, part in enumerate(sizes) if not isinstance(part, int)]
    if len(unknown) == 1 and all(isinstance(part, int) and part > 0 for part in sizes if isinstance(part, int)):
        return on.Reshape(x, [part if isinstance(part, int) else -1 for part in sizes])
    return on.Reshape(x, vector(on, filled_in(shape, size)))


def _view_type(node: Node) -> Sequence[Type]:
    x, *size = node.operands
    if x.type.dtype is None:
        return [UNKNOWN]
    sizes = _sizes(node.attr("shape"), size)
    if -1 in sizes and x.type.shape is not None:
        sizes[sizes.index(-1)] = _quotient(x.type.shape, [size for size in sizes if size != -1])
    return [TensorType(x.type.dtype, tuple(None if part == -1 else part for part in sizes))]


def _quotient(sizes: Sequence[Dim], others: Sequence[Dim]) -> int | None:
    """The product of sizes by that of others, where both have the same symbols."""
    if None in sizes or None in others or 0 in others:
        return None
    symbols = [Counter(size for size in each if isinstance(size, str)) for each in (sizes, others)]
    if symbols[0] != symbols[1]:
        return None
    above, below = (prod(size for size in each if isinstance(size, int)) for each in (sizes, others))
    return above // below


def _broadcast(on: Writer, x: Value, *sizes: Value, size: Pattern) -> Value:
    """Expand, with a 1 where an axis keeps its size."""
    return on.Expand(x, vector(on, [1 if part == -1 else part for part in filled_in(size, sizes)]))


def _broadcast_type(node: Node) -> Sequence[Type]:
    x, *sizes = node.operands
    if x.type.dtype is None:
        return [UNKNOWN]
    found = _sizes(node.attr("size"), sizes)
    kept: list[Dim] = [None] * len(found) if x.type.shape is None else \
        [*[None] * (len(found) - len(x.type.shape)), *x.type.shape]  # fmt: skip
    return [TensorType(x.type.dtype, tuple(old if part == -1 else part for old, part in zip(kept, found, strict=True)))]


def _repeat(on: Writer, x: Value, *counts: Value, repeats: Pattern) -> Value:
    missing = len(repeats) - on.rank(x)
    x = on.Unsqueeze(x, list(range(missing))) if missing else x
    return on.Tile(x, vector(on, filled_in(repeats, counts)))


def _part(
    on: Writer, x: Value, start: Value | None = None, stop: Value | None = None, *, axis: int, step: int
) -> Value:
    """Slice, which takes limits behind the end for the end as Python does."""
    limits = [default if limit is None else vector(on, [limit]) for limit, default in ((start, [0]), (stop, [LAST]))]
    return on.Slice(x, *limits, [axis], [step])


def _part_type(node: Node) -> Sequence[Type]:
    x, *limits = node.operands
    if x.type.shape is None:
        return [TensorType(x.type.dtype, None)]
    sizes, axis = list(x.type.shape), node.attr("axis")
    bounds = [None if limit is None else known_size(limit) for limit in limits]
    known = all(limit is None or isinstance(bound, int) for limit, bound in zip(limits, bounds, strict=True))
    whole, (start, stop) = sizes[axis], [bound if isinstance(bound, int) else None for bound in (*bounds, None)[:2]]
    sizes[axis] = len(range(whole)[start : stop : node.attr("step")]) if known and isinstance(whole, int) else None
    return [TensorType(x.type.dtype, tuple(sizes))]


def _pad(on: Writer, x: Value, *amounts: Value, pad: Pattern, value: float) -> Value:
    """Pad, whose amounts stand axis by axis from the last one on, before and behind."""
    sizes = filled_in(pad, amounts)
    axes = list(range(-len(sizes) // 2, 0))
    ordered = [sizes[2 * (-axis - 1) + side] for side in (0, 1) for axis in axes]
    number = on.graph.constant(np.array(value, NUMPY[x.type.dtype or "f32"]))
    return on.Pad(x, vector(on, ordered), number, axes)


def _filled(on: Writer, like: Value | None = None, *sizes: Value, shape: Pattern, value: Any, dtype: str) -> Value:
    number = on.graph.constant(np.array(value, NUMPY[dtype]))
    return on.Expand(number, vector(on, filled_in(shape, sizes)))


def _filled_type(node: Node) -> Sequence[Type]:
    return [TensorType(node.attr("dtype"), tuple(_sizes(node.attr("shape"), node.operands[1:])))]


def _count(on: Writer, like: Value | None = None, *numbers: Value, limits: Pattern, dtype: str) -> Value:
    """Range in i64 for whole numbers, else in the dtype of the result."""
    parts = filled_in(limits, numbers)
    known = [part if isinstance(part, int | float) else known_size(part) for part in parts]
    if all(isinstance(part, int | float) for part in known):
        return on.graph.constant(np.arange(*known, dtype=NUMPY[dtype]))  # type: ignore[arg-type]
    whole = not any(isinstance(part, float) for part in known)
    kind = "i64" if whole else dtype
    given = [on.graph.constant(np.array(part, NUMPY[kind])) if isinstance(part, int | float) else value
             for part, value in zip(known, parts, strict=True)]  # fmt: skip
    counted: Value = on.Range(*given)
    return counted if kind == dtype else on.cast(counted, dtype)


def _count_type(node: Node) -> Sequence[Type]:
    numbers = [known_size(value) for value in node.operands[1:]]
    start, stop, step = filled_in(node.attr("limits"), numbers)
    if start == 0 and step == 1 and isinstance(stop, int | str):
        return [TensorType(node.attr("dtype"), (stop,))]
    if all(isinstance(part, int) for part in (start, stop, step)):
        return [TensorType(node.attr("dtype"), (len(range(start, stop, step)),))]
    return [TensorType(node.attr("dtype"), (None,))]


def _resized(on: Writer, x: Value, *sizes: Value, size: Pattern, mode: str, align_corners: Any) -> Value:
    """qir.Interpolate to known sizes, else Resize to the sizes that the axes before have and these."""
    found = _sizes(size, sizes)
    if all(isinstance(part, int) for part in found):
        options = {"size": tuple(found), "mode": mode, "align_corners": align_corners}
        return on.graph.add("qir.Interpolate", [x], options, like=on.node).result
    count = on.rank(x) - len(size)
    target = on.Concat(on.Shape(x, end=count), vector(on, filled_in(size, sizes)), axis=0)
    if mode == "nearest":
        options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        kind = "align_corners" if align_corners else "pytorch_half_pixel"
        options = {"mode": "cubic" if mode == "bicubic" else "linear", "coordinate_transformation_mode": kind,
                   "cubic_coeff_a": -0.75}  # fmt: skip
    return on.Resize(x, None, None, target, **options)


def _resized_type(node: Node) -> Sequence[Type]:
    x, *sizes = node.operands
    found = _sizes(node.attr("size"), sizes)
    if x.type.shape is None:
        return [TensorType(x.type.dtype, None)]
    return [TensorType(x.type.dtype, (*x.type.shape[: len(x.type.shape) - len(found)], *found))]


def _joined(on: Writer, x: Value, start: int, end: int) -> Value:
    rank = on.rank(x)
    first, last = start % rank, end % rank
    behind = [on.length(x, axis) for axis in range(last + 1, rank)]
    kept = on.graph.constant(np.array([0] * first + [-1], np.int64))
    return on.Reshape(x, on.Concat(kept, *behind, axis=0) if behind else kept)


def _joined_type(node: Node) -> Sequence[Type]:
    type = node.operands[0].type
    if type.shape is None:
        return [TensorType(type.dtype, None)]
    first, last = (node.attr(name) % len(type.shape) for name in ("start", "end"))
    middle = type.shape[first : last + 1]
    size = prod(part for part in middle if isinstance(part, int)) if all(isinstance(p, int) for p in middle) else None
    return [TensorType(type.dtype, (*type.shape[:first], size, *type.shape[last + 1 :]))]


def _moved(on: Writer, x: Value, device: str, dtype: str | None) -> Value:
    return x if dtype is None else on.Cast(x, to=DTYPES[dtype])


MOVES, SHAPES = (MovesData(),), (Shapes(),)

function("View", "x size*", _view, MOVES, _view_type, "x in another shape.", shape=None)
function("BroadcastTo", "x sizes*", _broadcast, MOVES, _broadcast_type,
         "x repeated to this size, where -1 keeps the size of an axis.", size=())  # fmt: skip
function("Repeat", "x counts*", _repeat, (CopiesData(),), types_if_known,
         "x repeated along each axis, new axes in front.", repeats=())  # fmt: skip
function("Part", "x start? stop?", _part, MOVES, _part_type, "x[start:stop:step] along one axis.", axis=0, step=1)
function("PadBy", "x amounts*", _pad, (), types_if_known,
         "x with so many more elements before and behind, from the last axis on, as torch lists them.",
         pad=(), value=0.0)  # fmt: skip
function("Filled", "like? sizes*", _filled, SHAPES, _filled_type,
         "A tensor that holds one number, on the device of `like`.", shape=(), value=0.0, dtype="f32")  # fmt: skip
function("CountUp", "like? numbers*", _count, SHAPES, _count_type,
         "The numbers from start to stop by step, on the device of `like`.",
         limits=(0, None, 1), dtype="i64")  # fmt: skip
function("ResizeTo", "x sizes*", _resized, (), _resized_type, "x at another size, by torch's interpolate.",
         size=(), mode="nearest", align_corners=None)  # fmt: skip
function("JoinAxes", "x", _joined, MOVES, _joined_type, "The axes from start to end as one.", start=0, end=-1)
function("OnDevice", "x", _moved, MOVES, lambda node: [
    TensorType(node.attr("dtype") or node.operands[0].type.dtype, node.operands[0].type.shape)
], "x on a device of the framework, cast if it has a dtype.", device="cpu", dtype=None)  # fmt: skip
