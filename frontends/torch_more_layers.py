"""Lowerings of torch's transposed convolutions, further activations and norms, padding, resizing, feature dropout."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.attributes import TRAINING
from qir.frontends import torch_layers  # noqa: F401  (its convolutions are read below)
from qir.frontends.torch_activations import in_dtype
from qir.frontends.torch_computed import is_computed, pattern
from qir.frontends.torch_functions import floating, is_number
from qir.frontends.torch_indexing import whole
from qir.frontends.torch_lowerings import Builder, Lowering, known, lowers, numbers, unless
from qir.graph import Value


def _conv_transpose(rank: int, *spellings: Any) -> Lowering:
    def lowering(build: Builder, input: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
                 output_padding: Any = 0, groups: int = 1, dilation: Any = 1, padding_mode: str = "zeros",
                 output_size: Any = None) -> Value:  # fmt: skip
        known(padding_mode == "zeros" and output_size is None, "a stated output size or padding mode")
        kernel = build.value(weight)
        static = kernel.type.static if kernel is not None else None
        return build(
            "ConvTranspose", input, kernel, bias, strides=numbers(stride, rank), group=groups,
            pads=unless(0, numbers(padding, rank) * 2), dilations=unless(1, numbers(dilation, rank)),
            output_padding=unless(0, numbers(output_padding, rank)),
            kernel_shape=None if static is None else static[2:],
        )  # fmt: skip

    lowering.__name__ = f"conv_transpose{rank}d"
    return lowers(*spellings)(lowering)


def _conv_transpose_layer(rank: int, kind: type[nn.Module]) -> Lowering:
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    lowering = lowers.table[function]

    def of_layer(build: Builder, input: Value, output_size: Any = None, *, weight: Any, bias: Any, stride: Any,
                 padding: Any, output_padding: Any, groups: int, dilation: Any,
                 padding_mode: str) -> Value:  # fmt: skip
        made: Value = lowering(build, input, weight, bias, stride, padding, output_padding, groups, dilation,
                               padding_mode, output_size)  # fmt: skip
        return made

    of_layer.__name__ = lowering.__name__
    return lowers(kind)(of_layer)


for _rank, (_function, _kind) in enumerate(
    ((F.conv_transpose1d, nn.ConvTranspose1d), (F.conv_transpose2d, nn.ConvTranspose2d),
     (F.conv_transpose3d, nn.ConvTranspose3d)), 1,
):  # fmt: skip
    _conv_transpose(_rank, _function)
    _conv_transpose_layer(_rank, _kind)


@lowers(torch.convolution)
def convolution(build: Builder, input: Value, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
                transposed: bool, output_padding: Any, groups: int) -> Value:  # fmt: skip
    """Conv or ConvTranspose, of as many axes as the strides have."""
    rank = len(stride)
    if transposed:
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
        return lowers.table[function](build, input, weight, bias, stride, padding, output_padding, groups, dilation)  # type: ignore[no-any-return]
    plain = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return lowers.table[plain](build, input, weight, bias, stride, padding, dilation, groups)  # type: ignore[no-any-return]


# -- activations -----------------------------------------------------------------------------------------------------


@lowers(F.softplus, nn.Softplus)
def softplus(build: Builder, input: Value, beta: Any = 1.0, threshold: Any = 20.0) -> Value:
    """Softplus, or with other numbers qir.Softplus."""
    known(is_number(beta, threshold), "a computed number")
    if (beta, threshold) == (1, 20):
        return build("Softplus", input)
    return build("qir.Softplus", input, beta=beta, threshold=threshold)


@lowers(F.celu, nn.CELU, torch.celu)
def celu(build: Builder, input: Value, alpha: float = 1.0, inplace: bool = False) -> Value:
    """Celu."""
    known(input.type.dtype in (None, "f32"), "ONNX has it for f32 alone")
    return build("Celu", input, alpha=alpha)


@lowers(F.threshold, torch.threshold, nn.Threshold)
def threshold(build: Builder, input: Value, threshold: Any, value: Any, inplace: bool = False) -> Value:
    """qir.Threshold."""
    known(is_number(threshold, value), "a computed number")
    return build("qir.Threshold", input, threshold=threshold, value=value)


@lowers(F.hardshrink, nn.Hardshrink, "Tensor.hardshrink")
def hardshrink(build: Builder, input: Value, lambd: Any = 0.5) -> Value:
    """Shrink without bias."""
    known(is_number(lambd) and lambd > 0, "a limit that is not positive")
    return build("Shrink", input, lambd=lambd)


@lowers(F.softshrink, nn.Softshrink)
def softshrink(build: Builder, input: Value, lambd: Any = 0.5) -> Value:
    """Shrink by the limit."""
    known(is_number(lambd) and lambd > 0, "a limit that is not positive")
    return build("Shrink", input, lambd=lambd, bias=lambd)


@lowers(F.glu, nn.GLU)
def glu(build: Builder, input: Value, dim: int = -1) -> Value:
    """qir.Glu."""
    return build("qir.Glu", input, dim=dim)


@lowers(F.softmin, nn.Softmin)
def softmin(build: Builder, input: Value, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Value:
    """Softmax of the negative."""
    known(isinstance(dim, int), "softmin without dim")
    return build("Softmax", in_dtype(build, build("Neg", input), dtype), axis=dim)


@lowers(nn.Softmax2d)
def softmax2d(build: Builder, input: Value) -> Value:
    """Softmax over the channels."""
    return build("Softmax", input, axis=-3)


# -- norms -----------------------------------------------------------------------------------------------------------


def _instances(build: Builder, input: Value, running_mean: Any, weight: Any, bias: Any, eps: float, rank: Any) -> Value:
    known(running_mean is None and input.type.rank in rank, "an instance norm with statistics or without a batch")
    if weight is None and bias is None:
        return build("qir.InstanceNorm", input, eps=eps)
    return build("InstanceNormalization", input, weight, bias, epsilon=eps)


@lowers(F.instance_norm)
def instance_norm(build: Builder, input: Value, running_mean: Any = None, running_var: Any = None, weight: Any = None,
                  bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1,
                  eps: float = 1e-5) -> Value:  # fmt: skip
    """InstanceNormalization, or qir.InstanceNorm without scale and offset."""
    known(use_input_stats is True, "an instance norm with stored statistics")
    return _instances(build, input, running_mean, weight, bias, eps, (3, 4, 5))


def _instance_norm_layer(rank: int, kind: type[nn.Module]) -> None:
    def lowering(build: Builder, input: Value, running_mean: Any, weight: Any, bias: Any, eps: float) -> Value:
        return _instances(build, input, running_mean, weight, bias, eps, (rank,))

    lowering.__name__ = f"instance_norm{rank - 2}d"
    lowers(kind)(lowering)


for _axes, _instances_of in ((3, nn.InstanceNorm1d), (4, nn.InstanceNorm2d), (5, nn.InstanceNorm3d)):
    _instance_norm_layer(_axes, _instances_of)


@lowers(F.rms_norm, torch.rms_norm, nn.RMSNorm)
def rms_norm(build: Builder, input: Value, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Value:
    """RMSNormalization, or qir.RMSNorm without scale."""
    shape = whole(tuple(normalized_shape))
    known(eps is not None or input.type.dtype == "f32", "an unknown dtype, on which eps depends")
    least = torch.finfo(torch.float32).eps if eps is None else eps
    if weight is None:
        return build("qir.RMSNorm", input, normalized_shape=shape, eps=least)
    scale = build.value(weight)
    known(scale is not None and scale.type.static == shape, "a scale of unknown shape")
    return build("RMSNormalization", input, scale, axis=-len(shape), epsilon=least)


@lowers(F.local_response_norm, nn.LocalResponseNorm)
def local_response_norm(build: Builder, input: Value, size: int, alpha: float = 1e-4, beta: float = 0.75,
                        k: float = 1.0) -> Value:  # fmt: skip
    """LRN."""
    known(size % 2 == 1, "an even number of channels, which the two center differently")
    return build("LRN", input, size=size, alpha=alpha, beta=beta, bias=float(k))


# -- padding and resizing --------------------------------------------------------------------------------------------

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@lowers(F.pad)
def pad(build: Builder, input: Value, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    """Pad of the last axes."""
    if isinstance(pad, list | tuple) and any(map(is_computed, pad)):
        known(mode == "constant" and (value is None or is_number(value)), "computed amounts of a mode")
        amounts, computed = pattern(*pad)
        return build("qir.PadBy", input, *computed, pad=amounts, value=float(value or 0))
    flat = whole(tuple(pad) if isinstance(pad, list | tuple) else pad)
    known(len(flat) % 2 == 0 and len(flat) > 0 and mode in _MODES, "an odd number of sizes")
    known(value is None or is_number(value), "a computed value")
    known(mode == "constant" or input.type.rank == len(flat) // 2 + 2, "an input without a batch")
    floating(input)
    sides = [*flat[::2][::-1], *flat[1::2][::-1]]
    axes = build.indices(range(-(len(flat) // 2), 0))
    fill = float(value or 0) if mode == "constant" else None
    return build("Pad", input, build.indices(sides), fill, axes, mode=_MODES[mode])


@lowers(torch.constant_pad_nd)
def constant_pad(build: Builder, input: Value, pad: Any, value: Any = 0) -> Value:
    """Pad with a number."""
    made: Value = lowers.table[F.pad](build, input, pad, "constant", value)
    return made


def _pad_layer(mode: str, *kinds: type[nn.Module]) -> None:
    def lowering(build: Builder, input: Value, padding: Any, value: Any = None) -> Value:
        made: Value = lowers.table[F.pad](build, input, padding, mode, value)
        return made

    lowering.__name__ = f"{mode}_pad"
    lowers(*kinds)(lowering)


for _mode, _name in (("constant", "Constant"), ("constant", "Zero"), ("reflect", "Reflection"),
                     ("replicate", "Replication"), ("circular", "Circular")):  # fmt: skip
    _pad_layer(_mode, *(getattr(nn, f"{_name}Pad{_rank}d") for _rank in (1, 2, 3)))


@lowers(F.interpolate, F.upsample, nn.Upsample)
def interpolate(build: Builder, input: Value, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
                align_corners: Any = None, recompute_scale_factor: Any = None,
                antialias: bool = False) -> Value:  # fmt: skip
    """qir.Interpolate to a stated size or by stated factors."""
    known(not recompute_scale_factor, "interpolation that recomputes factors")
    if mode == "area" and size is not None and input.type.rank is not None:
        pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[input.type.rank - 3]
        return lowers.table[pool](build, input, size)  # type: ignore[no-any-return]
    known(mode in ("nearest", "linear", "bilinear", "trilinear", "bicubic", "nearest-exact"),
          f"interpolation of mode {mode} by factors, or without a known rank")  # fmt: skip
    given = size if size is not None else scale_factor
    if size is not None and any(map(is_computed, size if isinstance(size, list | tuple) else (size,))):
        known(mode != "nearest-exact" and not antialias and input.type.rank is not None, "a computed size")
        listed = size if isinstance(size, list | tuple) else (size,) * ((input.type.rank or 0) - 2)
        sizes, computed = pattern(tuple(listed))
        return build("qir.ResizeTo", input, *computed, size=sizes, mode=mode, align_corners=align_corners)
    known(is_number(*(given if isinstance(given, list | tuple) else (given,))), "a computed size")
    arranged = [tuple(item) if isinstance(item, list | tuple) else item for item in (size, scale_factor)]
    return build("qir.Interpolate", input, size=arranged[0], scale_factor=arranged[1], mode=mode,
                 align_corners=align_corners, antialias=bool(antialias))  # fmt: skip


@lowers(F.upsample_nearest, nn.UpsamplingNearest2d)
def upsample_nearest(build: Builder, input: Value, size: Any = None, scale_factor: Any = None) -> Value:
    """qir.Interpolate."""
    return interpolate(build, input, size, scale_factor)  # type: ignore[no-any-return]


@lowers(F.upsample_bilinear, nn.UpsamplingBilinear2d)
def upsample_bilinear(build: Builder, input: Value, size: Any = None, scale_factor: Any = None) -> Value:
    """qir.Interpolate."""
    return interpolate(build, input, size, scale_factor, "bilinear", True)  # type: ignore[no-any-return]


# -- dropout ---------------------------------------------------------------------------------------------------------


def _dropout(op: str, ranks: bool, *spellings: Any) -> Lowering:
    def lowering(build: Builder, input: Value, p: float = 0.5, training: Any = True, inplace: bool = False) -> Value:
        if training is False or (training == 0 and training is not TRAINING):
            return input
        known(training is TRAINING, "a dropout that is on in inference too")
        rank = (input.type.rank or 0) - 2
        known(not ranks or rank in (1, 2, 3), "an input without a batch")
        return build(op, input, p=float(p), rank=rank if ranks else None)

    lowering.__name__ = op.rpartition(".")[2].lower()
    return lowers(*spellings)(lowering)


_dropout("qir.FeatureDropout", True, F.dropout1d, F.dropout2d, F.dropout3d, torch.feature_dropout, nn.Dropout1d,
         nn.Dropout2d, nn.Dropout3d)  # fmt: skip
_dropout("qir.AlphaDropout", False, F.alpha_dropout, torch.alpha_dropout, nn.AlphaDropout)
_dropout("qir.FeatureAlphaDropout", False, F.feature_alpha_dropout, torch.feature_alpha_dropout,
         nn.FeatureAlphaDropout)  # fmt: skip
