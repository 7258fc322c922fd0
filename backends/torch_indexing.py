"""Emissions of operators that write elements into a tensor, and that shape one tensor after others."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qir.backends.torch_emissions import Emission, call, emits
from qir.graph import Node
from qir.types import NUMPY

BY_NAME: dict[str, Any] = {
    "qir.Scatter": torch.scatter, "qir.ScatterValue": torch.scatter, "qir.ScatterAdd": torch.scatter_add,
    "qir.ScatterReduce": torch.scatter_reduce, "qir.IndexCopy": torch.index_copy, "qir.IndexAdd": torch.index_add,
    "qir.IndexReduce": torch.index_reduce, "qir.IndexFill": torch.index_fill, "qir.Put": torch.put,
    "qir.MaskedScatter": torch.masked_scatter, "qir.SelectScatter": torch.select_scatter,
    "qir.SliceScatter": torch.slice_scatter, "qir.DiagonalScatter": torch.diagonal_scatter,
    "qir.Diagonal": torch.diagonal, "qir.DiagonalMatrix": torch.diag_embed, "qir.Windows": Tensor.unfold,
    "qir.TakeAlong": torch.take_along_dim, "qir.OneHot": F.one_hot, "qir.ExpandAs": Tensor.expand_as,
    "qir.ReshapeAs": Tensor.reshape_as, "qir.Take": torch.take, "qir.Fill": torch.fill,
}  # fmt: skip
"""By operator. Operands after the first and attributes are arguments of that name; those that are None are left out."""


def _by_name(node: Node) -> Emission:
    definition = node.definition
    operands = dict(zip(definition.operands[1:], node.operands[1:], strict=True))
    attributes = {name: node.attr(name) for name in definition.attributes if node.attr(name) is not None}
    return call(BY_NAME[node.op], node.operands[0], **operands, **attributes)


emits(*BY_NAME)(_by_name)


@emits("qir.IndexPut")
def index_put(node: Node) -> Emission:
    """torch.index_put."""
    x, values, *indices = node.operands
    return call(torch.index_put, x, tuple(indices), values, node.attr("accumulate"))


@emits("qir.Pick")
def pick(node: Node) -> Emission:
    """x[indices], behind axes that stay whole."""
    x, *indices = node.operands
    return call(Tensor.__getitem__, x, (*(slice(None),) * node.attr("axis"), *indices))


@emits("qir.FullLike")
def full_like(node: Node) -> Emission:
    """torch.full_like."""
    return call(torch.full_like, node.operands[0], node.attr("value"), **_dtype(node))


@emits("qir.NewFull")
def new_full(node: Node) -> Emission:
    """Tensor.new_full, of sizes some of which are computed."""
    x, *sizes = node.operands
    computed = iter(sizes)
    shape = tuple(next(computed) if size is None else size for size in node.attr("shape"))
    return call(Tensor.new_full, x, shape, node.attr("value"), **_dtype(node))


def _dtype(node: Node) -> dict[str, Any]:
    name = node.attr("dtype")
    return {} if name is None else {"dtype": getattr(torch, NUMPY[name].name)}


def copied(x: Tensor, source: Tensor) -> Tensor:
    """`source` in the shape and dtype of `x`."""
    return source.to(x.dtype).expand_as(x)


def filled_diagonal(x: Tensor, fill_value: Any) -> Tensor:
    """The matrix `x` with a number on its diagonal."""
    return x.clone().fill_diagonal_(fill_value)


@emits("qir.CopyInto")
def copy_into(node: Node) -> Emission:
    """The source, cast and repeated."""
    return call(copied, *node.operands)


@emits("qir.FillDiagonal")
def fill_diagonal(node: Node) -> Emission:
    """Tensor.fill_diagonal_ of a copy."""
    return call(filled_diagonal, node.operands[0], node.attr("fill_value"))


@emits("qir.SumToSize")
def sum_to_size(node: Node) -> Emission:
    """Tensor.sum_to_size."""
    return call(Tensor.sum_to_size, node.operands[0], *node.attr("size"))


@emits("qir.BroadcastTensors", "qir.CartesianProduct", "qir.BlockDiagonal")
def of_several(node: Node) -> Emission:
    """torch.broadcast_tensors, cartesian_prod or block_diag."""
    functions: dict[str, Any] = {"qir.BroadcastTensors": torch.broadcast_tensors,
                                 "qir.CartesianProduct": torch.cartesian_prod,
                                 "qir.BlockDiagonal": torch.block_diag}  # fmt: skip
    return call(functions[node.op], *node.operands)


@emits("qir.MeshGrid")
def mesh_grid(node: Node) -> Emission:
    """torch.meshgrid."""
    return call(torch.meshgrid, *node.operands, indexing=node.attr("indexing"))
