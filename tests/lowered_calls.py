"""Calls that the lowering table covers: for each lowering, arguments that every spelling of it takes, and layers."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Call:
    """Arguments; tensors among them become inputs of the model."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def call(*args: Any, **kwargs: Any) -> Call:
    """The arguments of one call."""
    return Call(args, kwargs)


_random = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_random)


X, Y = normal(2, 3, 4), normal(2, 3, 4)
IMAGE, MATRIX, ROW = normal(2, 4, 7, 7), normal(3, 4), normal(4)
UNIT, LARGE = torch.rand(2, 3, 4, generator=_random) * 2 - 1, X.abs() + 1.5
HALVES = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
TRUE, OTHER = X > 0, Y > 0
WHOLE = torch.arange(12).reshape(3, 4)
NAN = torch.tensor([0.0, torch.nan, torch.inf])
LINE, VOLUME = normal(2, 4, 9), normal(2, 2, 5, 5, 5)

_unary = "abs ceil cos cosh atan asinh erf exp floor neg sign sin sinh tan relu sigmoid tanh silu hardswish hardsigmoid"
_unary += " mish selu softsign relu6 square expm1 contiguous"
_compared = [call(X, Y), call(X, 0.5), call(WHOLE, 5), call(WHOLE, 5.5)]

CALLS: dict[str, list[Call]] = {
    **{name: [call(X)] for name in _unary.split()},
    **{name: [call(UNIT)] for name in ("acos", "asin", "atanh")},
    **{name: [call(LARGE)] for name in ("acosh", "log", "reciprocal", "sqrt", "rsqrt", "log1p")},
    "round": [call(HALVES)],
    "isnan": [call(NAN)],
    "not": [call(TRUE)],
    "hardtanh": [call(X), call(X, -0.5, 0.25)],
    "gelu": [call(X), call(X, approximate="tanh")],
    "leaky_relu": [call(X), call(X, 0.2)],
    "elu": [call(X), call(X, 0.5)],
    "prelu": [call(X, normal(3)), call(X, normal(1))],
    **{name: [call(X, 1), call(X, dim=-1), call(X, dim=1, dtype=torch.float64)] for name in ("softmax", "log_softmax")},
    "conv1d": [call(LINE, normal(6, 2, 3), normal(6), 2, 1, 2, 2), call(LINE, normal(6, 4, 4), padding="same")],
    "conv2d": [call(IMAGE, normal(6, 2, 3, 2), stride=(2, 1), padding=(1, 0), groups=2),
               call(IMAGE, normal(3, 4, 3, 3), normal(3), dilation=2, padding="same"),
               call(IMAGE, normal(3, 4, 3, 3), padding="valid")],
    "conv3d": [call(VOLUME, normal(3, 2, 2, 3, 2), padding=(0, 1, 2))],
    "linear": [call(X, normal(5, 4), normal(5)), call(MATRIX, normal(5, 4)), call(ROW, normal(5, 4))],
    "embedding": [call(WHOLE, normal(12, 5))],
    "layer_norm": [call(X, (4,), normal(4), normal(4)), call(X, [3, 4], weight=normal(3, 4), eps=1e-3)],
    "group_norm": [call(IMAGE, 2, normal(4), normal(4)), call(IMAGE, 4, weight=normal(4), bias=normal(4), eps=0.1)],
    "dropout": [call(X, 0.5, False)],
    "max_pool1d": [call(LINE, 2), call(LINE, 3, stride=1, padding=1, dilation=2, ceil_mode=True)],
    "max_pool2d": [call(IMAGE, (2, 3)), call(IMAGE, 3, 2, 1, ceil_mode=True)],
    "max_pool3d": [call(VOLUME, 2, 1)],
    "avg_pool1d": [call(LINE, 2), call(LINE, 3, 2, 1, count_include_pad=False)],
    "avg_pool2d": [call(IMAGE, 3, 2, 1), call(IMAGE, (2, 3), count_include_pad=False, padding=(1, 0))],
    "avg_pool3d": [call(VOLUME, 2, 1)],
    "adaptive_avg_pool1d": [call(LINE, 1), call(LINE, 4)],
    "adaptive_avg_pool2d": [call(IMAGE, (1, 1)), call(IMAGE, 3), call(IMAGE, (2, 5))],
    "adaptive_avg_pool3d": [call(VOLUME, 1), call(VOLUME, (2, 3, 1))],
    "add": [call(X, Y), call(X, 2), call(X, 0.5), call(X, ROW), call(WHOLE, 2), call(WHOLE, 0.5), call(TRUE, 2)],
    "sub": [call(X, Y), call(X, 2.5)],
    "rsub": [call(X, Y), call(X, 2.5)],
    "mul": [call(X, Y), call(X, 3), call(TRUE, X), call(WHOLE, MATRIX)],
    "div": [call(X, LARGE), call(X, 3), call(X, WHOLE)],
    "power": [call(X, 2), call(LARGE, 0.5), call(LARGE, Y), call(X, 3), call(WHOLE, 0.5), call(WHOLE, 2)],
    "maximum": [call(X, Y), call(MATRIX, WHOLE)],
    "minimum": [call(X, Y)],
    "clamp": [call(X, -0.5, 0.5), call(X, max=0.0), call(X, min=-1), call(WHOLE, 2, 5)],
    "matmul": [call(MATRIX, normal(4, 5))],
    **dict.fromkeys(("equal", "greater", "greaterorequal", "less", "lessorequal", "compare_in_place"), _compared),
    **{name: [call(TRUE, OTHER)] for name in ("and", "or", "xor")},
    "where": [call(TRUE, X, Y), call(TRUE, X, 0.0), call(TRUE, 1.5, X), call(MATRIX > 0, WHOLE, MATRIX),
              call(TRUE, 1.0, 0.0), call(TRUE, 1, 0), call(TRUE, 1, 0.5)],
    "tensor_where": [call(X, TRUE, Y), call(X, TRUE, -1.0)],
    **{name: [call(X), call(X, 1), call(X, (0, -1), keepdim=True)] for name in ("reducemax", "reducemin")},
    **{name: [call(X), call(X, [1]), call(X, (0, -1), keepdim=True)] for name in ("reducemean", "reducesum")},
    "cat": [call([X, Y]), call((X, Y, X), -1)],
    "stack": [call([X, Y]), call((X, Y), -1), call([X, Y], dim=1)],
    "flatten": [call(X), call(X, 1), call(IMAGE, 2)],
    "reshape": [call(X, (6, 4)), call(X, (-1, 2))],
    "permute": [call(X, (2, 0, 1)), call(X, (-1, 0, 1))],
    "transpose": [call(X, 0, 2), call(X, -1, 1)],
    "t": [call(MATRIX)],
    "unsqueeze": [call(X, 0), call(X, -1)],
    "squeeze": [call(normal(2, 1, 3), 1), call(normal(2, 3, 1), -1)],
}  # fmt: skip
"""By the name of the lowering."""

SPELLED: dict[Any, list[Call]] = {
    torch.bmm: [call(X, normal(2, 4, 5))],
    "Tensor.bmm": [call(X, normal(2, 4, 5))],
    torch.matmul: [call(X, normal(4, 5)), call(X, ROW), call(ROW, MATRIX.t()), call(MATRIX, ROW)],
    torch.add: [call(X, Y, alpha=0.3), call(X, Y, alpha=2), call(2, X)],
    torch.sub: [call(X, Y, alpha=0.3)],
    torch.pow: [call(2.0, X), call(3, X)],
    "Tensor.view": [call(X, 6, 4), call(X, (2, -1))],
    "Tensor.permute": [call(X, 2, 0, 1)],
    operator.mul: [call(3, X)],
    operator.sub: [call(1.5, X)],
    operator.truediv: [call(1.5, LARGE)],
    operator.pow: [call(2.0, X), call(3, X)],
    F.softmax: [call(X, dim=0, _stacklevel=5)],
}
"""Further or, where the lowering's calls do not fit, other calls of one spelling."""

OTHER_ARGUMENTS = (torch.bmm, "Tensor.bmm")
"""Spellings that take none of the calls of their lowering."""

LAYERS: dict[type, list[tuple[dict[str, Any], Tensor]]] = {
    **{kind: [({}, X), ({"inplace": True}, X)]
       for kind in (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Mish, nn.ELU, nn.SELU)},
    **{kind: [({}, X)] for kind in (nn.Sigmoid, nn.Tanh, nn.Softsign, nn.Identity, nn.Flatten, nn.Dropout)},
    nn.GELU: [({}, X), ({"approximate": "tanh"}, X)],
    nn.LeakyReLU: [({}, X), ({"negative_slope": 0.3, "inplace": True}, X)],
    nn.PReLU: [({}, X), ({"num_parameters": 3}, X)],
    nn.Softmax: [({"dim": 1}, X)],
    nn.LogSoftmax: [({"dim": -1}, X)],
    nn.Conv1d: [({"in_channels": 4, "out_channels": 6, "kernel_size": 3, "groups": 2, "stride": 2}, LINE)],
    nn.Conv2d: [({"in_channels": 4, "out_channels": 6, "kernel_size": (3, 2), "padding": "same"}, IMAGE),
                ({"in_channels": 4, "out_channels": 4, "kernel_size": 3, "groups": 4, "bias": False}, IMAGE)],
    nn.Conv3d: [({"in_channels": 2, "out_channels": 3, "kernel_size": 2, "padding": 1}, VOLUME)],
    nn.Linear: [({"in_features": 4, "out_features": 5}, X),
                ({"in_features": 4, "out_features": 5, "bias": False}, MATRIX)],
    nn.Embedding: [({"num_embeddings": 12, "embedding_dim": 5}, WHOLE)],
    nn.BatchNorm1d: [({"num_features": 4}, LINE), ({"num_features": 4, "eps": 0.1}, MATRIX)],
    nn.BatchNorm2d: [({"num_features": 4, "momentum": 0.3}, IMAGE)],
    nn.BatchNorm3d: [({"num_features": 2}, VOLUME)],
    nn.LayerNorm: [({"normalized_shape": 4}, X), ({"normalized_shape": (3, 4), "bias": False}, X)],
    nn.GroupNorm: [({"num_groups": 2, "num_channels": 4}, IMAGE)],
    nn.MaxPool1d: [({"kernel_size": 2}, LINE)],
    nn.MaxPool2d: [({"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, IMAGE)],
    nn.MaxPool3d: [({"kernel_size": 2}, VOLUME)],
    nn.AvgPool1d: [({"kernel_size": 2}, LINE)],
    nn.AvgPool2d: [({"kernel_size": 3, "padding": 1, "count_include_pad": False}, IMAGE)],
    nn.AvgPool3d: [({"kernel_size": 2, "stride": 1}, VOLUME)],
    nn.AdaptiveAvgPool1d: [({"output_size": 4}, LINE)],
    nn.AdaptiveAvgPool2d: [({"output_size": (None, 3)}, IMAGE), ({"output_size": 1}, IMAGE)],
    nn.AdaptiveAvgPool3d: [({"output_size": 2}, VOLUME)],
}  # fmt: skip
"""Options of each layer, and what it is called with."""

ELSEWHERE = {
    "Tensor.size", operator.floordiv, "torchvision.ops.stochastic_depth.stochastic_depth",
    "torchvision.ops.stochastic_depth.StochasticDepth", "qir.backends.torch_composed.attention",
    "qir.backends.torch_modules.in_training", "qir.backends.torch_modules.inference_only",
}  # fmt: skip
"""Spellings that `tests.small_models` and `tests.test_training_flags` call: they need a size as a number, the training
flag, or another package."""
