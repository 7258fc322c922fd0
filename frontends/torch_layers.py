"""Lowerings of torch's layers with weights, of normalization and of dropout."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.attributes import TRAINING
from qir.frontends.torch_lowerings import Builder, known, lowers, numbers, unless
from qir.graph import Value


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
    kernel = build.value(weight)
    static = kernel.type.static if kernel is not None else None
    steps = numbers(dilation, rank)
    pads = _padded(padding, rank, None if static is None else static[2:], steps)
    strides = numbers(stride, rank)
    if padding_mode != "zeros":
        around = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
        input, pads = lowers.table[F.pad](build, input, around, padding_mode), (0,) * (2 * rank)
    attrs: dict[str, Any] = {
        "strides": strides if static is None else unless(1, strides),
        "pads": unless(0, pads),
        "dilations": unless(1, steps),
    }
    return build(
        "Conv", input, kernel, bias, kernel_shape=None if static is None else static[2:], group=groups, **attrs
    )


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


@lowers(F.dropout, nn.Dropout, torch.dropout)
def dropout(build: Builder, input: Value, p: float = 0.5, training: Any = True, inplace: bool = False) -> Value:
    """Dropout that follows train() and eval(); nothing when it is always off."""
    if training is False or (training == 0 and training is not TRAINING):
        return input
    known(training is TRAINING, "a dropout that is on in inference too")
    return build("Dropout", input, float(p))


@lowers("torchvision.ops.stochastic_depth.stochastic_depth", "torchvision.ops.stochastic_depth.StochasticDepth")
def stochastic_depth(build: Builder, input: Value, p: float, mode: str, training: Any = True) -> Value:
    """qir.StochasticDepth that follows train() and eval()."""
    if training is False:
        return input
    known(training is TRAINING, "stochastic depth that is on in inference too")
    return build("qir.StochasticDepth", input, p=p, mode=mode)


@lowers(nn.Identity)
def identity(build: Builder, input: Value) -> Value:
    """Identity."""
    return build("Identity", input)


@lowers("qir.backends.torch_modules.in_training")
def in_training(build: Builder, x: Value) -> Value:
    """qir.InTraining."""
    return build("qir.InTraining", x)


@lowers("qir.backends.torch_modules.inference_only")
def inference_only(build: Builder, reason: str) -> None:
    """The graph stands for the model in inference alone."""
    build.graph.inference_only = reason
