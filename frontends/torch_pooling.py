"""Lowerings of torch's pooling layers and functions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.frontends.torch_lowerings import Builder, Unlowered, known, lowers, numbers, unless
from qir.graph import Value


def strides_of(stride: Any, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """The steps of windows: as large as the windows where they are left out."""
    return kernel if stride is None or stride == [] else numbers(stride, len(kernel))


def max_pool(build: Builder, rank: int, input: Value, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
             ceil_mode: bool, return_indices: bool) -> Any:  # fmt: skip
    """MaxPool, or qir.MaxPoolWithPlaces with its two results."""
    kernel = numbers(kernel_size, rank)
    if return_indices:
        options = {"kernel_size": kernel, "stride": strides_of(stride, kernel), "padding": numbers(padding, rank),
                   "dilation": numbers(dilation, rank), "ceil_mode": ceil_mode}  # fmt: skip
        return tuple(build.several("qir.MaxPoolWithPlaces", 2, input, **options))
    return build(
        "MaxPool", input, kernel_shape=kernel, strides=strides_of(stride, kernel),
        pads=unless(0, numbers(padding, rank) * 2), dilations=unless(1, numbers(dilation, rank)),
        ceil_mode=int(ceil_mode),
    )  # fmt: skip


@lowers(F.max_pool1d, nn.MaxPool1d, torch.max_pool1d)
def max_pool1d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
    """MaxPool."""
    return max_pool(build, 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@lowers(F.max_pool2d, nn.MaxPool2d, torch.max_pool2d)
def max_pool2d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
    """MaxPool."""
    return max_pool(build, 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


@lowers(F.max_pool3d, nn.MaxPool3d, torch.max_pool3d)
def max_pool3d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
    """MaxPool."""
    return max_pool(build, 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _average_pool(build: Builder, rank: int, input: Value, kernel_size: Any, stride: Any, padding: Any,
                  ceil_mode: bool, count_include_pad: bool, divisor_override: int | None) -> Value:  # fmt: skip
    known(divisor_override is None, "average pooling with a divisor of its own")
    known(not ceil_mode, "average pooling with ceil_mode")
    kernel = numbers(kernel_size, rank)
    return build(
        "AveragePool", input, kernel_shape=kernel, strides=strides_of(stride, kernel),
        pads=unless(0, numbers(padding, rank) * 2), count_include_pad=int(count_include_pad),
    )  # fmt: skip


@lowers(F.avg_pool1d, nn.AvgPool1d)
def avg_pool1d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Value:  # fmt: skip
    """AveragePool."""
    return _average_pool(build, 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@lowers(F.avg_pool2d, nn.AvgPool2d)
def avg_pool2d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: Any = None) -> Value:  # fmt: skip
    """AveragePool."""
    return _average_pool(build, 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


@lowers(F.avg_pool3d, nn.AvgPool3d)
def avg_pool3d(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: Any = None) -> Value:  # fmt: skip
    """AveragePool."""
    return _average_pool(build, 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def sizes_of(output_size: Any, rank: int) -> tuple[int | None, ...]:
    """The size for each axis of adaptive pooling, None where it stays."""
    sizes = tuple(output_size) if isinstance(output_size, list | tuple) else (output_size,) * rank
    if len(sizes) != rank or not all(size is None or isinstance(size, int) for size in sizes):
        raise Unlowered("adaptive pooling to a computed size")
    return sizes


def _adaptive(build: Builder, rank: int, input: Value, output_size: Any) -> Value:
    return build("qir.AdaptiveAveragePool", input, output_size=sizes_of(output_size, rank))


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
