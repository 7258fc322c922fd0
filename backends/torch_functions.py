"""Emissions of functions that torch has under another name, their attributes being its arguments."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.backends.torch_emissions import Emission, call, emits, layer, literal, spatial, spatial_rank, symmetric_pads
from qir.errors import QirError
from qir.graph import Node

FUNCTIONS: dict[str, Any] = {
    "qir.Exp2": torch.exp2, "qir.Log2": torch.log2, "qir.Log10": torch.log10, "qir.Trunc": torch.trunc,
    "qir.Frac": torch.frac, "qir.Erfc": torch.erfc, "qir.RadiansToDegrees": torch.rad2deg,
    "qir.DegreesToRadians": torch.deg2rad, "qir.LogSigmoid": F.logsigmoid, "qir.TanhShrink": F.tanhshrink,
    "qir.Logit": torch.logit, "qir.Sinc": torch.sinc, "qir.Softplus": F.softplus, "qir.Threshold": F.threshold,
    "qir.Remainder": torch.remainder, "qir.Atan2": torch.atan2, "qir.Hypot": torch.hypot,
    "qir.LogAddExp": torch.logaddexp, "qir.XLogY": torch.xlogy, "qir.FloorDiv": torch.floor_divide,
    "qir.Lerp": torch.lerp,
    "qir.AddCMul": torch.addcmul, "qir.AddCDiv": torch.addcdiv, "qir.Flip": torch.flip, "qir.Roll": torch.roll,
    "qir.Unflatten": torch.unflatten,
    "qir.MoveAxes": torch.movedim, "qir.PixelUnshuffle": F.pixel_unshuffle, "qir.ChannelShuffle": F.channel_shuffle,
    "qir.Clone": torch.clone, "qir.Detach": torch.detach, "qir.Variance": torch.var,
    "qir.StandardDeviation": torch.std, "qir.Norm": torch.norm, "qir.Normalize": F.normalize, "qir.Any": torch.any,
    "qir.All": torch.all, "qir.CosineSimilarity": F.cosine_similarity, "qir.PairwiseDistance": F.pairwise_distance,
    "qir.Glu": F.glu, "qir.InstanceNorm": F.instance_norm, "qir.LayerNorm": F.layer_norm, "qir.RMSNorm": F.rms_norm,
    "qir.AddMatMul": torch.addmm, "qir.AddBatchMatMul": torch.baddbmm, "qir.Interpolate": F.interpolate,
    "qir.IsFinite": torch.isfinite, "qir.NanToNum": torch.nan_to_num, "qir.SignBit": torch.signbit,
    "qir.CopySign": torch.copysign, "qir.FMax": torch.fmax, "qir.FMin": torch.fmin, "qir.Heaviside": torch.heaviside,
    "qir.LogAddExp2": torch.logaddexp2, "qir.LoadExponent": torch.ldexp, "qir.ShiftLeft": operator.lshift,
    "qir.ShiftRight": operator.rshift, "qir.RoundedDiv": torch.div, "qir.IsClose": torch.isclose,
    "qir.IsIn": torch.isin, "qir.Largest": torch.max, "qir.Smallest": torch.min, "qir.Sort": torch.sort,
    "qir.ArgSort": torch.argsort, "qir.KthValue": torch.kthvalue, "qir.Median": torch.median,
    "qir.Quantile": torch.quantile, "qir.CumulativeMax": torch.cummax, "qir.CumulativeMin": torch.cummin,
    "qir.CumulativeProduct": torch.cumprod, "qir.CumulativeLogSumExp": torch.logcumsumexp,
    "qir.SearchSorted": torch.searchsorted, "qir.NonZeroPlaces": torch.nonzero,
    "qir.Combinations": torch.combinations,
    "qir.MaskedSelect": torch.masked_select, "qir.RepeatEach": torch.repeat_interleave, "qir.Histogram": torch.histc,
    "qir.RealAngle": torch.angle,
    "BitwiseNot": torch.bitwise_not, "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip
"""By operator; every attribute of a composite is an argument of that name."""

LAYERS: dict[str, Any] = {
    "qir.Softplus": nn.Softplus, "qir.Threshold": nn.Threshold, "qir.LogSigmoid": nn.LogSigmoid, "qir.Glu": nn.GLU,
    "qir.TanhShrink": nn.Tanhshrink, "qir.AlphaDropout": nn.AlphaDropout,
    "qir.FeatureAlphaDropout": nn.FeatureAlphaDropout, "qir.PixelUnshuffle": nn.PixelUnshuffle,
    "qir.ChannelShuffle": nn.ChannelShuffle, "qir.CosineSimilarity": nn.CosineSimilarity,
    "qir.PairwiseDistance": nn.PairwiseDistance,
}  # fmt: skip
"""Functions that torch has as a layer too."""


def _attributes(node: Node) -> dict[str, Any]:
    return {name: node.attr(name) for name in node.definition.attributes}


def _function(node: Node) -> Emission:
    if node.op in LAYERS and (node.module is not None or node.op not in FUNCTIONS):
        return layer(LAYERS[node.op](**_attributes(node)), *node.operands)
    return call(FUNCTIONS[node.op], *node.operands, **_attributes(node))


emits(*(set(FUNCTIONS) | set(LAYERS)))(_function)


@emits("qir.Unique")
def unique(node: Node) -> Emission:
    """torch.unique with all of its results."""
    return call(torch.unique, node.operands[0], return_inverse=True, return_counts=True, dim=node.attr("dim"))


@emits("qir.UniqueInRow")
def unique_in_row(node: Node) -> Emission:
    """torch.unique_consecutive with all of its results."""
    return call(torch.unique_consecutive, node.operands[0], return_inverse=True, return_counts=True)


@emits("qir.CountNumbers")
def count_numbers(node: Node) -> Emission:
    """torch.bincount."""
    return call(torch.bincount, *node.operands, minlength=node.attr("minlength"))


@emits("TopK")
def largest(node: Node) -> Emission:
    """torch.topk. Raises QirError for a computed number of elements."""
    (count,) = literal(node, 1)
    options = [bool(node.attr(name)) for name in ("largest", "sorted")]
    return call(torch.topk, node.operands[0], count, node.attr("axis"), *options)


@emits("qir.Index")
def index(node: Node) -> Emission:
    """x[index]."""
    return call(torch.Tensor.__getitem__, node.operands[0], node.attr("index"))


@emits("qir.FeatureDropout")
def feature_dropout(node: Node) -> Emission:
    """nn.Dropout1d, 2d or 3d."""
    kind: Any = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)[node.attr("rank") - 1]
    return layer(kind(node.attr("p")), node.operands[0])


@emits("Softplus")
def softplus(node: Node) -> Emission:
    """nn.Softplus."""
    return layer(nn.Softplus(), node.operands[0])


@emits("Celu")
def celu(node: Node) -> Emission:
    """nn.CELU."""
    return layer(nn.CELU(node.attr("alpha")), node.operands[0])


@emits("Shrink")
def shrink(node: Node) -> Emission:
    """nn.Hardshrink or nn.Softshrink. Raises QirError for other biases."""
    limit, bias = node.attr("lambd"), node.attr("bias")
    if bias not in (0.0, limit):
        raise QirError("the torch backend takes a Shrink whose bias is 0 or its limit", node)
    return layer(nn.Softshrink(limit) if bias == limit else nn.Hardshrink(limit), node.operands[0])


@emits("IsInf")
def is_infinite(node: Node) -> Emission:
    """torch.isinf, isposinf or isneginf."""
    both = node.attr("detect_negative") and node.attr("detect_positive")
    if both:
        return call(torch.isinf, node.operands[0])
    return call(torch.isneginf if node.attr("detect_negative") else torch.isposinf, node.operands[0])


@emits("Mod")
def modulo(node: Node) -> Emission:
    """torch.fmod, or for integers torch.remainder."""
    return call(torch.fmod if node.attr("fmod") else torch.remainder, *node.operands)


@emits("Einsum")
def einsum(node: Node) -> Emission:
    """torch.einsum."""
    return call(torch.einsum, node.attr("equation"), *node.operands)


@emits("LRN")
def local_response_norm(node: Node) -> Emission:
    """nn.LocalResponseNorm."""
    options = [node.attr(name) for name in ("size", "alpha", "beta", "bias")]
    return layer(nn.LocalResponseNorm(*options), node.operands[0])


@emits("InstanceNormalization")
def instance_norm(node: Node) -> Emission:
    """F.instance_norm."""
    x, scale, bias = node.operands
    return call(F.instance_norm, x, weight=scale, bias=bias, eps=node.attr("epsilon"))


@emits("RMSNormalization")
def rms_norm(node: Node) -> Emission:
    """F.rms_norm. Raises QirError unless it goes over the axes of its scale."""
    x, scale = node.operands
    shape = scale.type.static
    if shape is None or node.attr("axis") != -len(shape):
        raise QirError("the torch backend needs an RMS norm over the axes of its scale", node)
    return call(F.rms_norm, x, shape, scale, eps=node.attr("epsilon"))


@emits("ConvTranspose")
def conv_transpose(node: Node) -> Emission:
    """F.conv_transpose1d, 2d or 3d. Raises QirError for padding that differs between the sides."""
    rank, pads = spatial_rank(node), symmetric_pads(node)
    if pads is None or node.attr("output_shape"):
        raise QirError("the torch backend takes transposed convolutions with equal pads and no output_shape", node)
    function: Any = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    return call(
        function, *node.operands, stride=spatial(node, "strides", 1), padding=pads,
        output_padding=tuple(node.attr("output_padding") or (0,) * rank), groups=node.attr("group"),
        dilation=spatial(node, "dilations", 1),
    )  # fmt: skip


@emits("Pad")
def pad(node: Node) -> Emission:
    """F.pad. Raises QirError unless the axes are the last ones."""
    x, sizes, axes = node.operands[0], literal(node, 1), literal(node, 3)
    value = literal(node, 2) if len(node.operands) > 2 else None
    count = len(sizes) // 2
    if node.attr("mode") != "constant" and x.type.rank not in (count + 1, count + 2):
        raise QirError("torch repeats elements behind one or two axes that it leaves alone", node)
    if (axes is None and x.type.rank != count) or (axes is not None and list(axes) != list(range(-count, 0))):
        raise QirError("the torch backend pads the last axes", node)
    flat = [sizes[axis + side * count] for axis in reversed(range(count)) for side in (0, 1)]
    mode = {"edge": "replicate", "wrap": "circular"}.get(node.attr("mode"), node.attr("mode"))
    return call(F.pad, x, flat, mode) if value is None else call(F.pad, x, flat, mode, value)
