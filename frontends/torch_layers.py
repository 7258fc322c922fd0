"""Lowerings of torch's layers and of `torch.nn.functional`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.attributes import TRAINING
from qir.frontends.torch_lowerings import Builder, Unlowered, known, lowers, numbers, unless
from qir.graph import Value

# -- activations -----------------------------------------------------------------------------------------------------


@lowers(torch.relu, F.relu, nn.ReLU, "Tensor.relu")
def relu(build: Builder, input: Value, inplace: bool = False) -> Value:
    """Relu."""
    return build("Relu", input)


@lowers(F.hardtanh, nn.Hardtanh)
def hardtanh(build: Builder, input: Value, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Value:
    """qir.HardTanh."""
    return build("qir.HardTanh", input, float(min_val), float(max_val))


@lowers(F.relu6, nn.ReLU6)
def relu6(build: Builder, input: Value, inplace: bool = False) -> Value:
    """qir.HardTanh between 0 and 6."""
    return build("qir.HardTanh", input, 0.0, 6.0)


@lowers(torch.sigmoid, F.sigmoid, nn.Sigmoid, "Tensor.sigmoid", torch.special.expit)
def sigmoid(build: Builder, input: Value) -> Value:
    """Sigmoid."""
    return build("Sigmoid", input)


@lowers(torch.tanh, F.tanh, nn.Tanh, "Tensor.tanh")
def tanh(build: Builder, input: Value) -> Value:
    """Tanh."""
    return build("Tanh", input)


@lowers(F.silu, nn.SiLU)
def silu(build: Builder, input: Value, inplace: bool = False) -> Value:
    """Swish."""
    return build("Swish", input)


@lowers(F.hardswish, nn.Hardswish)
def hardswish(build: Builder, input: Value, inplace: bool = False) -> Value:
    """HardSwish."""
    return build("HardSwish", input)


@lowers(F.hardsigmoid, nn.Hardsigmoid)
def hardsigmoid(build: Builder, input: Value, inplace: bool = False) -> Value:
    """HardSigmoid with slope 1/6, which is torch's."""
    return build("HardSigmoid", input, alpha=1 / 6, beta=0.5)


@lowers(F.gelu, nn.GELU)
def gelu(build: Builder, input: Value, approximate: str = "none") -> Value:
    """Gelu."""
    return build("Gelu", input, approximate=approximate)


@lowers(F.mish, nn.Mish)
def mish(build: Builder, input: Value, inplace: bool = False) -> Value:
    """Mish."""
    return build("Mish", input)


@lowers(F.leaky_relu, nn.LeakyReLU)
def leaky_relu(build: Builder, input: Value, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    """LeakyRelu."""
    return build("LeakyRelu", input, alpha=negative_slope)


@lowers(F.elu, nn.ELU)
def elu(build: Builder, input: Value, alpha: float = 1.0, inplace: bool = False) -> Value:
    """Elu."""
    return build("Elu", input, alpha=alpha)


@lowers(F.selu, nn.SELU, torch.selu)
def selu(build: Builder, input: Value, inplace: bool = False) -> Value:
    """Selu."""
    return build("Selu", input)


@lowers(F.softsign, nn.Softsign)
def softsign(build: Builder, input: Value) -> Value:
    """Softsign."""
    return build("Softsign", input)


@lowers(F.prelu, nn.PReLU, torch.prelu)
def prelu(build: Builder, input: Value, weight: Any) -> Value:
    """PRelu; several slopes only where the rank is known, to line them up with axis 1."""
    slope = build.value(weight)
    size = slope.type.static if slope is not None else None
    known(size is not None, "the shape of the slopes is not known")
    if size != (1,):
        rank = input.type.rank
        known(rank is not None, "prelu with a slope for each channel needs the input's rank; give example inputs")
        slope = build("Reshape", slope, build.indices([-1] + [1] * (rank - 2)))
    return build("PRelu", input, slope)


@lowers(F.softmax, nn.Softmax, torch.softmax, "Tensor.softmax")
def softmax(
    build: Builder, input: Value, dim: int | None = None, dtype: Any = None, _stacklevel: int = 3
) -> Value:
    """Softmax along a stated axis."""
    known(dim is not None and dtype is None, "softmax without dim, or with dtype")
    return build("Softmax", input, axis=dim)


@lowers(F.log_softmax, nn.LogSoftmax, torch.log_softmax, "Tensor.log_softmax")
def log_softmax(
    build: Builder, input: Value, dim: int | None = None, dtype: Any = None, _stacklevel: int = 3
) -> Value:
    """LogSoftmax along a stated axis."""
    known(dim is not None and dtype is None, "log_softmax without dim, or with dtype")
    return build("LogSoftmax", input, axis=dim)


# -- convolutions and matrix products --------------------------------------------------------------------------------


def _padded(padding: Any, rank: int, kernel: tuple[int, ...] | None, dilation: tuple[int, ...]) -> tuple[int, ...]:
    """ONNX's pads (all beginnings, then all ends) for torch's padding."""
    if padding == "valid":
        return (0,) * (2 * rank)
    if padding == "same":
        known(kernel is not None, "padding='same' with a kernel of unknown size")
        total = [d * (k - 1) for d, k in zip(dilation, kernel or (), strict=True)]
        return (*(t // 2 for t in total), *(t - t // 2 for t in total))
    return numbers(padding, rank) * 2


def _conv(build: Builder, rank: int, input: Value, weight: Any, bias: Any, stride: Any, padding: Any,
          dilation: Any, groups: int, padding_mode: str) -> Value:  # fmt: skip
    known(padding_mode == "zeros", f"padding_mode={padding_mode!r}")
    kernel = build.value(weight)
    static = kernel.type.static if kernel is not None else None
    steps = numbers(dilation, rank)
    pads = _padded(padding, rank, None if static is None else static[2:], steps)
    attrs = {"strides": unless(1, numbers(stride, rank)), "pads": unless(0, pads), "dilations": unless(1, steps)}
    return build("Conv", input, kernel, bias, kernel_shape=None if static is None else static[2:], group=groups, **attrs)


@lowers(F.conv1d, nn.Conv1d)
def conv1d(build: Builder, input: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
           dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros") -> Value:  # fmt: skip
    """Conv."""
    return _conv(build, 1, input, weight, bias, stride, padding, dilation, groups, padding_mode)


@lowers(F.conv2d, nn.Conv2d)
def conv2d(build: Builder, input: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
           dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros") -> Value:  # fmt: skip
    """Conv."""
    return _conv(build, 2, input, weight, bias, stride, padding, dilation, groups, padding_mode)


@lowers(F.conv3d, nn.Conv3d)
def conv3d(build: Builder, input: Value, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
           dilation: Any = 1, groups: int = 1, padding_mode: str = "zeros") -> Value:  # fmt: skip
    """Conv."""
    return _conv(build, 3, input, weight, bias, stride, padding, dilation, groups, padding_mode)


@lowers(F.linear, nn.Linear)
def linear(build: Builder, input: Value, weight: Any, bias: Any = None) -> Value:
    """qir.Linear."""
    return build("qir.Linear", input, weight, bias)


@lowers(F.embedding, nn.Embedding)
def embedding(build: Builder, input: Value, weight: Any, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Value:  # fmt: skip
    """Gather of rows."""
    known(
        padding_idx is None and max_norm is None and not scale_grad_by_freq and not sparse,
        "an embedding with padding_idx, max_norm, scale_grad_by_freq or sparse trains differently from a Gather",
    )
    return build("Gather", weight, input)


# -- normalization and dropout ---------------------------------------------------------------------------------------


@lowers(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, F.batch_norm)
def batch_norm(build: Builder, input: Value, running_mean: Any, running_var: Any, weight: Any = None,
               bias: Any = None, training: Any = False, momentum: float | None = 0.1, eps: float = 1e-5) -> Value:  # fmt: skip
    """BatchNormalization that follows train() and eval()."""
    known(training is TRAINING, "a batch norm whose training flag does not follow the module's")
    known(running_mean is not None and weight is not None, "a batch norm without statistics or without scale")
    known(momentum is not None, "a batch norm with a cumulative average")
    return build(
        "BatchNormalization", input, weight, bias, running_mean, running_var, epsilon=eps, momentum=1.0 - (momentum or 0)
    )


@lowers(F.layer_norm, nn.LayerNorm, torch.layer_norm)
def layer_norm(build: Builder, input: Value, normalized_shape: Any, weight: Any = None, bias: Any = None,
               eps: float = 1e-5, cudnn_enable: bool = True) -> Value:  # fmt: skip
    """LayerNormalization over the last axes."""
    known(weight is not None, "a layer norm without scale")
    shape = numbers(normalized_shape, 1) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    return build("LayerNormalization", input, weight, bias, axis=-len(shape), epsilon=eps)


@lowers(F.group_norm, nn.GroupNorm, torch.group_norm)
def group_norm(build: Builder, input: Value, num_groups: int, weight: Any = None, bias: Any = None,
               eps: float = 1e-5, cudnn_enabled: bool = True) -> Value:  # fmt: skip
    """GroupNormalization."""
    known(weight is not None and bias is not None, "a group norm without scale and offset")
    return build("GroupNormalization", input, weight, bias, num_groups=num_groups, epsilon=eps)


@lowers(F.dropout, nn.Dropout, torch.dropout)
def dropout(build: Builder, input: Value, p: float = 0.5, training: Any = True, inplace: bool = False) -> Value:
    """Dropout that follows train() and eval(); nothing when it is always off."""
    if training is False or training == 0 and training is not TRAINING:
        return input
    known(training is TRAINING, "a dropout that is on in inference too")
    return build("Dropout", input, float(p))


@lowers("torchvision.ops.stochastic_depth.stochastic_depth")
def stochastic_depth(build: Builder, input: Value, p: float, mode: str, training: Any = True) -> Value:
    """qir.StochasticDepth that follows train() and eval()."""
    if training is False:
        return input
    known(training is TRAINING, "stochastic depth that is on in inference too")
    return build("qir.StochasticDepth", input, p=p, mode=mode)


# -- pooling and resizing --------------------------------------------------------------------------------------------


def _max_pool(build: Builder, rank: int, input: Value, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
              ceil_mode: bool, return_indices: bool) -> Value:  # fmt: skip
    known(not return_indices, "max pooling that returns indices")
    kernel = numbers(kernel_size, rank)
    return build(
        "MaxPool", input, kernel_shape=kernel, strides=numbers(stride, rank) if stride not in (None, []) else kernel,
        pads=unless(0, numbers(padding, rank) * 2), dilations=unless(1, numbers(dilation, rank)), ceil_mode=int(ceil_mode),
    )  # fmt: skip


@lowers(F.max_pool1d, nn.MaxPool1d, torch.max_pool1d)
def max_pool1d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Value:  # fmt: skip
    """MaxPool."""
    return _max_pool(build, 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@lowers(F.max_pool2d, nn.MaxPool2d, torch.max_pool2d)
def max_pool2d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Value:  # fmt: skip
    """MaxPool."""
    return _max_pool(build, 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@lowers(F.max_pool3d, nn.MaxPool3d, torch.max_pool3d)
def max_pool3d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Value:  # fmt: skip
    """MaxPool."""
    return _max_pool(build, 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _average_pool(build: Builder, rank: int, input: Value, kernel_size: Any, stride: Any, padding: Any,
                  ceil_mode: bool, count_include_pad: bool, divisor_override: int | None) -> Value:  # fmt: skip
    known(divisor_override is None, "average pooling with a divisor of its own")
    known(not ceil_mode, "average pooling with ceil_mode")
    kernel = numbers(kernel_size, rank)
    return build(
        "AveragePool", input, kernel_shape=kernel, strides=numbers(stride, rank) if stride not in (None, []) else kernel,
        pads=unless(0, numbers(padding, rank) * 2), count_include_pad=int(count_include_pad),
    )  # fmt: skip


@lowers(F.avg_pool1d, nn.AvgPool1d)
def avg_pool1d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Value:  # fmt: skip
    """AveragePool."""
    return _average_pool(build, 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@lowers(F.avg_pool2d, nn.AvgPool2d)
def avg_pool2d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None) -> Value:  # fmt: skip
    """AveragePool."""
    return _average_pool(build, 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@lowers(F.avg_pool3d, nn.AvgPool3d)
def avg_pool3d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True, divisor_override: Any = None) -> Value:  # fmt: skip
    """AveragePool."""
    return _average_pool(build, 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def _adaptive(build: Builder, rank: int, input: Value, output_size: Any) -> Value:
    sizes = tuple(output_size) if isinstance(output_size, list | tuple) else (output_size,) * rank
    if len(sizes) != rank or not all(size is None or isinstance(size, int) for size in sizes):
        raise Unlowered("adaptive pooling to a computed size")
    return build("qir.AdaptiveAveragePool", input, output_size=sizes)


@lowers(F.adaptive_avg_pool1d, nn.AdaptiveAvgPool1d)
def adaptive_avg_pool1d(build: Builder, input: Value, output_size: Any) -> Value:
    """qir.AdaptiveAveragePool."""
    return _adaptive(build, 1, input, output_size)


@lowers(F.adaptive_avg_pool2d, nn.AdaptiveAvgPool2d)
def adaptive_avg_pool2d(build: Builder, input: Value, output_size: Any) -> Value:
    """qir.AdaptiveAveragePool."""
    return _adaptive(build, 2, input, output_size)


@lowers(F.adaptive_avg_pool3d, nn.AdaptiveAvgPool3d)
def adaptive_avg_pool3d(build: Builder, input: Value, output_size: Any) -> Value:
    """qir.AdaptiveAveragePool."""
    return _adaptive(build, 3, input, output_size)


@lowers(nn.Identity)
def identity(build: Builder, input: Value) -> Value:
    """Identity."""
    return build("Identity", input)
