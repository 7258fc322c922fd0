"""More of `tests.lowered_calls`: functions of elements, indexing, reductions, products, casts and further layers."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.lowered_calls import (
    HALVES,
    IMAGE,
    LARGE,
    LINE,
    MATRIX,
    NAN,
    OTHER,
    ROW,
    TRUE,
    UNIT,
    VOLUME,
    WHOLE,
    Call,
    X,
    Y,
    call,
    normal,
)

DIVISORS = torch.tensor([3, -2, 5, -4])
PLACES = torch.tensor([2, 0, 2])
AT = torch.tensor([[2, 0, 1], [1, 1, -1]])
MIXED = WHOLE - 6
_compared = [call(X, Y), call(X, 0.5), call(WHOLE, 5)]

FUNCTION_CALLS: dict[str, list[Call]] = {
    **{name: [call(X)] for name in ("exp2", "trunc", "frac", "erfc", "radianstodegrees", "degreestoradians", "sinc",
                                    "logsigmoid", "tanhshrink", "clone", "detach", "positive")},
    **{name: [call(LARGE)] for name in ("log2", "log10")},
    **{name: [call(NAN)] for name in ("isinf", "isposinf", "isneginf", "isfinite")},
    "outer": [call(ROW, normal(3))],
    "reflected_remainder": [call(LARGE, 1.5), call(DIVISORS, MIXED)],
    "reflected_floor_divide": [call(LARGE, 7.5), call(DIVISORS, MIXED)],
    "trunc": [call(X * 3), call(HALVES)],
    "logit": [call(UNIT.abs() * 0.9 + 0.05)],
    "atan2": [call(X, Y)],
    "hypot": [call(X, Y)],
    "logaddexp": [call(X, Y)],
    "xlogy": [call(X, LARGE), call(X.relu(), LARGE)],
    "remainder": [call(X, LARGE), call(X, -0.7), call(MIXED, DIVISORS), call(MIXED, 4)],
    "fmod": [call(X, LARGE), call(X, -0.7), call(MIXED, DIVISORS)],
    "floor_divide": [call(X, LARGE), call(X, 0.7), call(MIXED, DIVISORS), call(MIXED, -4)],
    "ne": _compared,
    **{name: [call(TRUE, OTHER), call(MIXED, DIVISORS), call(MIXED, 5)]
       for name in ("bitwiseand", "bitwiseor", "bitwisexor")},
    "bitwise_not": [call(TRUE), call(MIXED)],
    "reflected_sub": [call(X, 1.5), call(X, Y)],
    "reflected_div": [call(LARGE, 1.5)],
    "reflected_power": [call(X, 2.0), call(X, LARGE)],
    "reflected_matmul": [call(normal(4, 5), MATRIX)],
    "clamp_min": [call(X, 0.25), call(WHOLE, 5)],
    "clamp_max": [call(X, 0.25), call(WHOLE, 5)],
    "largest": [call(X), call(X, Y)],
    "smallest": [call(X), call(X, Y)],
    "lerp": [call(X, Y, 0.3), call(X, Y, 0.75)],
    "addcmul": [call(X, Y, LARGE), call(X, Y, LARGE, value=-0.3)],
    "addcdiv": [call(X, Y, LARGE), call(X, Y, LARGE, value=0.7)],
    "masked_fill": [call(X, TRUE, 0.0), call(X, TRUE, -1e9), call(X, TRUE, 2), call(X, MATRIX > 0, -float("inf")),
                    call(WHOLE, MATRIX > 0, -1)],
    "getitem": [call(X, 1), call(X, -1), call(X, slice(1)), call(X, (slice(None), slice(0, 3, 2))), call(X, None),
                call(X, (Ellipsis, 0)), call(X, (0, None, Ellipsis, slice(-3, -1))), call(X, (0, 1, -2)),
                call(X, (None, slice(None), -1, None)), call(X, Ellipsis),
                call(X, AT[0] % 2), call(X, (slice(None), AT)), call(X, (slice(None), slice(None), AT[1])),
                call(X, (AT[0] % 2, AT[1])), call(X, (slice(None), AT, AT - 1)), call(X, (AT % 2, AT, AT, Ellipsis)),
                call(X, TRUE), call(WHOLE, WHOLE > 5)],
    "select": [call(X, 1, 2), call(X, -1, -2)],
    "narrow": [call(X, 1, 1, 2), call(X, -1, 0, 3)],
    "split": [call(X, 2, 1), call(X, 3, dim=-1), call(X, [1, 3], -1)],
    "chunk": [call(X, 2, 1), call(X, 3, dim=-1)],
    "tensor_split": [call(X, 2, -2), call(X, 3, dim=2)],
    "unbind": [call(X, 1), call(X, -1)],
    "index_select": [call(X, 1, PLACES), call(X, -1, PLACES)],
    "gather": [call(X, 2, torch.randint(0, 4, (2, 3, 5), generator=torch.Generator().manual_seed(0)))],
    "flip": [call(X, (0,)), call(X, (-1, 1))],
    "fliplr": [call(X)],
    "flipud": [call(X)],
    "roll": [call(X, 1, 0), call(X, (2, -1), (-1, 1)), call(X, 7, dims=2)],
    "expand": [call(normal(2, 1, 4), (2, 3, 4)), call(normal(2, 1, 4), (5, -1, 3, -1))],
    "repeat": [call(X, (1, 2, 1)), call(X, (2, 1, 1, 3))],
    "unflatten": [call(X, 2, (2, 2)), call(X, -1, (2, -1))],
    "movedim": [call(X, 0, -1), call(X, (0, 1), (2, 0))],
    "ravel": [call(X)],
    "tril": [call(X), call(X, -1)],
    "triu": [call(X), call(X, diagonal=2)],
    "hstack": [call([X, Y]), call([ROW, normal(4)])],
    "vstack": [call([X, Y]), call([ROW, normal(4)])],
    "dstack": [call([X, Y])],
    "column_stack": [call([X, Y]), call([ROW, normal(4)])],
    "pixel_shuffle": [call(IMAGE, 2)],
    "pixel_unshuffle": [call(normal(2, 3, 4, 6), 2)],
    "channel_shuffle": [call(IMAGE, 2)],
    **{name: [call(X), call(X, 1), call(X, dim=-1, keepdim=True)] for name in ("argmax", "argmin", "prod")},
    "logsumexp": [call(X, 1), call(X, (0, -1), keepdim=True)],
    "cumsum": [call(X, 1), call(WHOLE, dim=-1), call(TRUE, 0), call(WHOLE, 1, dtype=torch.float64)],
    **{name: [call(X), call(X, 1), call(X, (0, 2), keepdim=True), call(X, dim=-1, unbiased=False),
              call(X, dim=1, correction=0)] for name in ("variance", "standarddeviation")},
    "norm": [call(X), call(X, 1, 1), call(X, dim=-1, keepdim=True), call(X, 3, 0), call(X, float("inf"), (1, 2))],
    "vector_norm": [call(X), call(X, 1, 1), call(X, dim=(0, -1), keepdim=True), call(X, 3.0, 0)],
    "normalize": [call(X), call(X, 1, -1), call(X, p=3.0, dim=0, eps=0.5)],
    **{name: [call(TRUE), call(TRUE, 1), call(TRUE, dim=-1, keepdim=True)] for name in ("any", "all")},
    "cosine_similarity": [call(X, Y), call(X, Y, -1, 0.1)],
    "pairwise_distance": [call(MATRIX, normal(3, 4)), call(MATRIX, normal(3, 4), 1.0, 0.1, True)],
    "addmm": [call(ROW, normal(3, 5), normal(5, 4)), call(MATRIX, normal(3, 5), normal(5, 4), beta=0.5, alpha=2)],
    "baddbmm": [call(X, normal(2, 3, 5), normal(2, 5, 4)),
                call(X, normal(2, 3, 5), normal(2, 5, 4), beta=0.5, alpha=0.3)],
    "einsum": [call("bij,bkj->bik", X, Y), call("...j,jk -> ...k", X, normal(4, 2)), call("ij->j", [MATRIX])],
    "to": [call(X, torch.float64), call(WHOLE, torch.float32), call(X * 3, torch.int32)],
    **{f"cast_{name}": [call(X * 3), call(TRUE)] for name in ("float", "double", "half", "bfloat16", "int", "long",
                                                             "short", "char", "bool")},
    "cast_byte": [call(TRUE), call(WHOLE)],
    "conv_transpose1d": [call(LINE, normal(4, 3, 3), normal(6), 2, 1, 1, 2), call(LINE, normal(4, 3, 2), dilation=2)],
    "conv_transpose2d": [call(IMAGE, normal(4, 2, 3, 2), stride=(2, 1), padding=(1, 0), groups=2)],
    "conv_transpose3d": [call(VOLUME, normal(2, 3, 2, 3, 2), normal(3), 2)],
    "softplus": [call(X), call(X, 2.0), call(X, 0.5, threshold=10.0)],
    "celu": [call(X), call(X, 0.5)],
    "threshold": [call(X, 0.1, 0.5), call(X, 0, 0)],
    "hardshrink": [call(X), call(X, 0.25)],
    "softshrink": [call(X), call(X, 0.25)],
    "glu": [call(X), call(IMAGE, 1)],
    "softmin": [call(X, 1), call(X, dim=-1), call(X, dim=1, dtype=torch.float64)],
    "instance_norm": [call(IMAGE), call(LINE, weight=normal(4), bias=normal(4), eps=1e-3)],
    "rms_norm": [call(X, (4,)), call(X, [3, 4], normal(3, 4), 1e-3), call(X, (4,), weight=normal(4))],
    "local_response_norm": [call(IMAGE, 3), call(IMAGE, 3, 0.1, 0.5, 2.0)],
    "pad": [call(X, (1, 2)), call(X, (1, 0, -1, 2), value=0.5), call(LINE, (2, 1), mode="reflect"),
            call(IMAGE, [1, 2, 0, 1], "replicate"), call(IMAGE, (1, 2, 0, 1), "circular"), call(VOLUME, (1,) * 6)],
    "constant_pad": [call(X, (1, 2), 0.5)],
    "interpolate": [call(IMAGE, 9), call(IMAGE, scale_factor=2), call(IMAGE, (5, 11), mode="bilinear"),
                    call(IMAGE, None, (1.5, 2.0), "bilinear"), call(IMAGE, 10, None, "bilinear", True),
                    call(LINE, 6, mode="linear"), call(IMAGE, scale_factor=2.0, mode="bicubic"),
                    call(VOLUME, scale_factor=2, mode="trilinear"), call(IMAGE, (5, 9), mode="nearest-exact"),
                    call(LINE, scale_factor=2.0, mode="nearest-exact"), call(IMAGE, (3, 4), mode="area")],
    "upsample_nearest": [call(IMAGE, scale_factor=2)],
    "upsample_bilinear": [call(IMAGE, (9, 10))],
    **{name: [call(IMAGE, 0.5, False)] for name in ("featuredropout", "alphadropout", "featurealphadropout")},
}  # fmt: skip
"""By the name of the lowering."""

FUNCTIONS_SPELLED: dict[Any, list[Call]] = {
    "Tensor.split_with_sizes": [call(X, [1, 3], -1)],
    torch.split_with_sizes: [call(X, [1, 3], -1)],
    "Tensor.flip": [call(X, 0, 2)],
    "Tensor.expand": [call(normal(2, 1, 4), 2, 3, 4)],
    "Tensor.repeat": [call(X, 1, 2, 1)],
    **{spelling: [call(MATRIX, ROW)] for spelling in (torch.mv, "Tensor.mv")},
    **{spelling: [call(ROW, normal(4))] for spelling in (torch.dot, "Tensor.dot")},
    operator.mod: [call(X, 0.7)],
    F.interpolate: [
        call(IMAGE, (4, 5), mode="bilinear", antialias=True),
        call(IMAGE, 5, mode="bicubic", antialias=True),
    ],
    F.dropout1d: [call(LINE, 0.5, False)],
    F.dropout3d: [call(VOLUME, 0.5, False)],
    **dict.fromkeys(("Tensor.ne_", "Tensor.not_equal_"), _compared),
}
"""Further or, where the lowering's calls do not fit, other calls of one spelling."""

OTHER_FUNCTION_ARGUMENTS = (
    "Tensor.split_with_sizes", torch.split_with_sizes, torch.mv, "Tensor.mv", torch.dot, "Tensor.dot",
    F.dropout1d, F.dropout3d,
)  # fmt: skip
"""Spellings that take none of the calls of their lowering."""


def _pads(mode: str, values: bool = False) -> dict[type, list[tuple[dict[str, Any], Tensor]]]:
    inputs = (LINE, IMAGE, VOLUME)
    options = {"padding": 1, "value": 0.5} if values else {"padding": 1}
    return {getattr(nn, f"{mode}Pad{rank}d"): [(options, inputs[rank - 1])] for rank in (1, 2, 3)}


FUNCTION_LAYERS: dict[type, list[tuple[dict[str, Any], Tensor]]] = {
    **{kind: [({}, X)] for kind in (nn.LogSigmoid, nn.Tanhshrink, nn.Softplus, nn.CELU, nn.Hardshrink, nn.Softshrink,
                                    nn.GLU, nn.AlphaDropout, nn.FeatureAlphaDropout)},
    nn.Threshold: [({"threshold": 0.1, "value": 0.5}, X), ({"threshold": 0.1, "value": 0.5, "inplace": True}, X)],
    nn.Softmin: [({"dim": 1}, X)],
    nn.Softmax2d: [({}, IMAGE)],
    nn.Unflatten: [({"dim": 2, "unflattened_size": (2, 2)}, X)],
    nn.PixelShuffle: [({"upscale_factor": 2}, IMAGE)],
    nn.PixelUnshuffle: [({"downscale_factor": 2}, normal(2, 3, 4, 6))],
    nn.ChannelShuffle: [({"groups": 2}, IMAGE)],
    nn.ConvTranspose1d: [({"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "stride": 2}, LINE)],
    nn.ConvTranspose2d: [({"in_channels": 4, "out_channels": 3, "kernel_size": 3, "padding": 1, "stride": 2,
                           "output_padding": 1}, IMAGE)],
    nn.ConvTranspose3d: [({"in_channels": 2, "out_channels": 3, "kernel_size": 2, "bias": False}, VOLUME)],
    nn.InstanceNorm1d: [({"num_features": 4}, LINE), ({"num_features": 4, "affine": True}, LINE)],
    nn.InstanceNorm2d: [({"num_features": 4}, IMAGE), ({"num_features": 4, "affine": True}, IMAGE)],
    nn.InstanceNorm3d: [({"num_features": 2}, VOLUME)],
    nn.RMSNorm: [({"normalized_shape": 4}, X), ({"normalized_shape": (3, 4), "eps": 1e-3}, X),
                 ({"normalized_shape": 4, "elementwise_affine": False}, X)],
    nn.LocalResponseNorm: [({"size": 3}, IMAGE)],
    **_pads("Constant", True), **_pads("Zero"), **_pads("Reflection"), **_pads("Replication"), **_pads("Circular"),
    nn.Upsample: [({"scale_factor": 2}, IMAGE), ({"size": (5, 9), "mode": "bilinear"}, IMAGE)],
    nn.UpsamplingNearest2d: [({"scale_factor": 2}, IMAGE)],
    nn.UpsamplingBilinear2d: [({"scale_factor": 2}, IMAGE)],
    nn.Dropout1d: [({}, LINE)],
    nn.Dropout2d: [({}, IMAGE)],
    nn.Dropout3d: [({}, VOLUME)],
}  # fmt: skip
"""Options of each layer, and what it is called with."""

PAIRED_LAYERS = {
    nn.CosineSimilarity, nn.PairwiseDistance, nn.Bilinear, nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d
}  # fmt: skip
"""Layers of two tensors, which `tests.test_torch_completeness` calls."""
