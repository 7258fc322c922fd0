"""Emissions of products, distances, weighted sums and rows of embeddings."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qir.backends.torch_emissions import Emission, call, emits, layer, owned
from qir.graph import Node

FUNCTIONS: dict[str, Any] = {
    "qir.AddMatVec": torch.addmv, "qir.AddOuter": torch.addr, "qir.AddSummedMatMul": torch.addbmm,
    "qir.Inner": torch.inner, "qir.TensorDot": torch.tensordot, "qir.Kronecker": torch.kron, "qir.Cross": torch.cross,
    "qir.Trace": torch.trace, "qir.ChainMatMul": torch.chain_matmul, "qir.MatrixPower": torch.matrix_power,
    "qir.Distances": torch.cdist, "qir.Distance": torch.dist, "qir.PairDistances": F.pdist,
    "qir.Bilinear": F.bilinear, "qir.Renormalized": torch.renorm, "qir.NanSum": torch.nansum,
    "qir.NanMean": torch.nanmean, "qir.VarianceMean": torch.var_mean, "qir.DeviationMean": torch.std_mean,
    "Det": torch.det, "qir.LogDeterminant": torch.logdet, "qir.SignAndLogDeterminant": torch.slogdet,
    "qir.NormExcept": torch.norm_except_dim,
    "qir.Covariance": torch.cov, "qir.Correlation": torch.corrcoef, "qir.ConvTBC": torch.conv_tbc,
}  # fmt: skip
"""By operator; every attribute is an argument of that name."""


def _function(node: Node) -> Emission:
    attributes = {name: node.attr(name) for name in node.definition.attributes}
    return call(FUNCTIONS[node.op], *node.operands, **attributes)


emits(*FUNCTIONS)(_function)


@emits("qir.Trapezoid", "qir.CumulativeTrapezoid")
def trapezoid(node: Node) -> Emission:
    """torch.trapezoid or cumulative_trapezoid, with the points' places or their distance."""
    function: Any = torch.trapezoid if node.op == "qir.Trapezoid" else torch.cumulative_trapezoid
    place = {"dim": node.attr("dim")} if node.operand(1) is not None else {
        "dx": node.attr("dx"), "dim": node.attr("dim")}  # fmt: skip
    return call(function, *node.operands, **place)


def slope(x: Tensor, spacing: float, dim: int, edge_order: int) -> Tensor:
    """The gradient along one axis."""
    (found,) = torch.gradient(x, spacing=spacing, dim=dim, edge_order=edge_order)
    return found


@emits("qir.Gradient")
def gradient(node: Node) -> Emission:
    """torch.gradient along one axis."""
    return call(slope, node.operands[0], *(node.attr(name) for name in ("spacing", "dim", "edge_order")))


@emits("qir.Embedding")
def embedding(node: Node) -> Emission:
    """nn.Embedding when the weight is the layer's own; else F.embedding."""
    weight, indices = node.operands
    options = {name: node.attr(name) for name in node.definition.attributes}
    if not owned(node, weight=0) or weight.type.static is None:
        return call(F.embedding, indices, weight, **options)
    rows, size = weight.type.static
    return layer(nn.Embedding(rows, size, device="meta", **options), indices, weight=weight)


@emits("qir.EmbeddingBag")
def embedding_bag(node: Node) -> Emission:
    """nn.EmbeddingBag when the weight is the layer's own; else F.embedding_bag."""
    weight, indices, *rest = node.operands
    options = {name: node.attr(name) for name in node.definition.attributes}
    if not owned(node, weight=0) or weight.type.static is None:
        factors = rest[1] if len(rest) > 1 else None
        return call(F.embedding_bag, indices, weight, *rest[:1], per_sample_weights=factors, **options)
    rows, size = weight.type.static
    return layer(nn.EmbeddingBag(rows, size, device="meta", **options), indices, *rest, weight=weight)


def grouped(x: Tensor, weight: Tensor, ends: Tensor) -> Tensor:
    """The product of each group of rows and its matrix; zeros for rows behind the last group."""
    limits = [0, *ends.tolist()]
    products = [x[start:end] @ matrix for (start, end), matrix in zip(pairwise(limits), weight, strict=True)]
    return torch.cat([*products, x.new_zeros(len(x) - limits[-1], weight.shape[2])])


@emits("qir.GroupedMatMul")
def grouped_matmul(node: Node) -> Emission:
    """A product for each group."""
    return call(grouped, *node.operands)
