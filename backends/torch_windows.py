"""Emissions of operators on windows and places of images, and of norms over parts of them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import nn

from qir.backends.torch_emissions import Emission, call, emits, layer, literal
from qir.graph import Node


def _of_rank(name: str, rank: int) -> Any:
    """nn.<name>1d, 2d or 3d."""
    return getattr(nn, f"{name}{rank}d")


@emits("qir.MaxPoolWithPlaces")
def max_pool(node: Node) -> Emission:
    """nn.MaxPool1d, 2d or 3d that returns places."""
    options = {name: node.attr(name) for name in node.definition.attributes}
    kind = _of_rank("MaxPool", len(node.attr("kernel_size")))
    return layer(kind(return_indices=True, **options), node.operands[0])


@emits("qir.AdaptiveMaxPool", "qir.AdaptiveMaxPoolWithPlaces")
def adaptive_max_pool(node: Node) -> Emission:
    """nn.AdaptiveMaxPool1d, 2d or 3d."""
    size = node.attr("output_size")
    kind = _of_rank("AdaptiveMaxPool", len(size))
    module = kind(size[0] if len(size) == 1 else size, return_indices=len(node.results) == 2)
    return layer(module, node.operands[0])


@emits("qir.MaxUnpool")
def max_unpool(node: Node) -> Emission:
    """F.max_unpool1d, 2d or 3d."""
    function = getattr(F, f"max_unpool{len(node.attr('kernel_size'))}d")
    return call(function, *node.operands, **{name: node.attr(name) for name in node.definition.attributes})


@emits("qir.PowerPool")
def power_pool(node: Node) -> Emission:
    """nn.LPPool1d, 2d or 3d; for a whole number, which those make a float, F.lp_pool1d, 2d or 3d."""
    norm_type, kernel, stride = (node.attr(name) for name in ("norm_type", "kernel_size", "stride"))
    if isinstance(norm_type, int):
        sizes = (kernel[0], stride[0]) if len(kernel) == 1 else (kernel, stride)
        return call(getattr(F, f"lp_pool{len(kernel)}d"), node.operands[0], norm_type, *sizes)
    if len(kernel) == 1:
        return layer(nn.LPPool1d(norm_type, kernel[0], stride[0]), node.operands[0])
    return layer(_of_rank("LPPool", len(kernel))(norm_type, kernel, stride), node.operands[0])


_LAYERS: dict[str, Any] = {"qir.Unfold": nn.Unfold, "qir.Fold": nn.Fold, "qir.CrossMapLRN": nn.CrossMapLRN2d}


@emits(*_LAYERS)
def of_layer(node: Node) -> Emission:
    """nn.Unfold, nn.Fold or nn.CrossMapLRN2d."""
    options = {name: node.attr(name) for name in node.definition.attributes}
    return layer(_LAYERS[node.op](**options), node.operands[0])


@emits("GridSample")
def grid_sample(node: Node) -> Emission:
    """F.grid_sample."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(node.attr("mode"), node.attr("mode"))
    return call(F.grid_sample, *node.operands, mode, node.attr("padding_mode"), bool(node.attr("align_corners")))


@emits("AffineGrid")
def affine_grid(node: Node) -> Emission:
    """F.affine_grid of a stated size."""
    return call(F.affine_grid, node.operands[0], literal(node, 1), bool(node.attr("align_corners")))


@emits("qir.GroupNorm")
def group_norm(node: Node) -> Emission:
    """F.group_norm without scale and offset."""
    return call(F.group_norm, node.operands[0], node.attr("num_groups"), eps=node.attr("eps"))


@emits("qir.FixedBatchNorm")
def fixed_batch_norm(node: Node) -> Emission:
    """F.batch_norm with stored statistics."""
    return call(F.batch_norm, *node.operands, training=False, eps=node.attr("eps"))


@emits("qir.BatchNorm")
def batch_norm(node: Node) -> Emission:
    """F.batch_norm with the statistics of the batch."""
    x, *affine = node.operands
    return call(F.batch_norm, x, None, None, *affine, training=True, eps=node.attr("eps"))
