"""Operators that name the axes that they change, written with all axes: onnxruntime's layout optimizer needs that.

It moves the channels behind the other axes, and takes amounts for some axes as those of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value


def stating_all_axes(graph: Graph, node: Node) -> Sequence[Value] | None:
    """What the results of a node become that names some axes; None when it may stay, or can not be written so."""
    match node.op:
        case "Pad":
            return _pad(graph, node)
        case "Resize":
            return _resize(graph, node)
    return None


def _pad(graph: Graph, node: Node) -> Sequence[Value] | None:
    x, pads, value, axes = (*node.operands, None, None)[:4]
    if axes is None or axes.literal is None or x.type.rank is None:
        return None
    count, rank = len(axes.literal), x.type.rank
    places = list(range(2 * rank))
    for number, axis in enumerate(axes.literal):
        for side in (0, 1):
            places[axis % rank + side * rank] = 2 * rank + number + side * count
    whole = _picked(graph, node, graph.constant(np.zeros(2 * rank, np.int64)), pads, places)
    return graph.add("Pad", [x, whole, value], node.attrs, like=node).results


def _resize(graph: Graph, node: Node) -> Sequence[Value] | None:
    """An axis that was not stated keeps its size. A region and an aspect ratio are about the stated axes."""
    x, region, scales, sizes = (*node.operands, None, None, None)[:4]
    axes, shape = node.attr("axes"), x.type.shape
    if not axes or shape is None or region is not None or node.attr("keep_aspect_ratio_policy") != "stretch":
        return None
    places = list(range(len(shape)))
    for number, axis in enumerate(axes):
        places[axis] = len(shape) + number
    if sizes is None:
        scales = _picked(graph, node, graph.constant(np.ones(len(shape), np.float32)), scales, places)
    elif all(isinstance(size, int) for size in shape):
        sizes = _picked(graph, node, graph.constant(np.array(shape, np.int64)), sizes, places)
    else:
        sizes = _picked(graph, node, graph.add("Shape", [x], like=node).result, sizes, places)
    attrs = {name: value for name, value in node.attrs.items() if name != "axes"}
    return graph.add("Resize", [x, None, scales, sizes], attrs, like=node).results


def _picked(graph: Graph, node: Node, kept: Value, given: Value, places: Sequence[int]) -> Value:
    """These places of the two vectors one behind the other."""
    if kept.literal is not None and given.literal is not None:
        return graph.constant(np.concatenate([kept.array, given.array])[list(places)])
    joined = graph.add("Concat", [kept, given], {"axis": 0}, like=node)
    return graph.add("Gather", [joined.result, graph.constant(np.array(places, np.int64))], like=node).result
