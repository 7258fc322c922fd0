"""Products in which groups of rows have a matrix each, as those of the experts of a mixture, and their expansion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from qir.operators.functions import Writer, function
from qir.traits import Composed, Permutes
from qir.types import NUMPY, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value


def _grouped(on: Writer, x: Value, weight: Value, ends: Value) -> Value:
    """A product for each group, of its rows and its matrix, and zeros for the rows behind the last group."""
    groups = [_matrix(on, weight, group) for group in range(on.size(weight, 0))]
    places = on.cast(ends, "i64")
    limits = [on.graph.constant([0]), *(on.Slice(places, [group], [group + 1]) for group in range(len(groups)))]
    rows = [on.Slice(x, start, end, [0]) for start, end in pairwise(limits)]
    products = [on.MatMul(part, matrix) for part, matrix in zip(rows, groups, strict=True)]
    left = on.Sub(on.length(x, 0), limits[-1])
    zeros = on.Expand(
        on.graph.constant(np.array(0, NUMPY[x.type.dtype or "f32"])), on.Concat(left, on.length(weight, 2), axis=0)
    )
    result: Value = on.Concat(*products, zeros, axis=0)
    return result


def _matrix(on: Writer, weight: Value, group: int) -> Value:
    """The matrix of a group: a part of the weight's data where it is here, as runtimes quantize constants alone."""
    source, order = weight, None
    if weight.node is not None and (turned := weight.node.definition.trait(Permutes)) is not None:
        source, order = weight.node.operands[0], turned.order(weight.node)
    if source.weight is None or source.weight.data is None or (source is not weight and order is None):
        picked: Value = on.Gather(weight, on.graph.constant(np.array(group)), axis=0)
        return picked
    array = source.weight.array if order is None else np.transpose(source.weight.array, order)
    paths = tuple(f"{path}_{group}" for path in source.weight.paths)
    part = replace(source.weight, data=array[group], read=np.asarray, paths=paths)
    return on.graph.weight(part, hint=f"{source.hint}_{group}")


def _parts(graph: Graph, node: Node) -> Sequence[Value]:
    return [_grouped(Writer(graph, node), *node.operands)]


def _type(node: Node) -> Sequence[Type]:
    x, weight = node.operands[0].type, node.operands[1].type
    rows, columns = (x.shape or (None,))[0], (weight.shape or (None,))[-1]
    return [TensorType(x.dtype, (rows, columns))]


function(
    "GroupedMatMul", "x weight ends", _grouped, (Composed("experts", _parts),), _type,
    "Row i of the matrix `x` times the matrix `weight[g]`, where group g ends before row `ends[g]`.",
)  # fmt: skip
