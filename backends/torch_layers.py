"""Emissions of operators with weights, of normalization, dropout and pooling."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from qir.backends import torch_modules as modules
from qir.backends.torch_emissions import (
    Emission,
    blank,
    call,
    emits,
    layer,
    literal,
    owned,
    padded,
    spatial,
    spatial_rank,
    symmetric_pads,
)
from qir.errors import QirError
from qir.graph import Node, Value


@emits("Conv")
def conv(node: Node) -> Emission:
    """nn.Conv1d, 2d or 3d when the weights are the layer's own; else F.conv with tensors."""
    x, weight, *bias = node.operands
    shape, rank, groups = weight.type.static, spatial_rank(node), node.attr("group")
    pads = symmetric_pads(node)
    options = {"stride": spatial(node, "strides", 1), "padding": pads, "dilation": spatial(node, "dilations", 1)}
    if pads is None or shape is None or not owned(node, weight=1, bias=2):
        padding = None if pads is not None else padded(node, 0.0)
        module = modules.Conv(rank, groups=groups, pad=padding, **{**options, "padding": pads or (0,) * rank})
        return layer(module, x, weight, *bias)
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    sizes = (shape[1] * groups, shape[0], shape[2:])
    own = blank(kind, *sizes, groups=groups, bias=bool(bias), **options)
    return layer(own, x, weight=weight, bias=bias[0] if bias else None)


@emits("qir.Linear")
def linear(node: Node) -> Emission:
    """nn.Linear when the weights are the layer's own."""
    x, weight, *bias = node.operands
    shape = weight.type.static
    if shape is None or not owned(node, weight=1, bias=2):
        return call(F.linear, x, weight, *bias)
    module = blank(nn.Linear, shape[1], shape[0], bias=bool(bias))
    return layer(module, x, weight=weight, bias=bias[0] if bias else None)


@emits("Gemm")
def gemm(node: Node) -> Emission:
    """nn.Linear where it is one; else a matrix product, scaled and turned as the attributes say."""
    plain = node.attr("alpha") == 1.0 and not node.attr("transA") and node.attr("beta") == 1.0
    bias = node.operand(2)
    if plain and node.attr("transB") and (bias is None or bias.type.rank == 1):
        return linear(node)
    attrs = [node.attr(name) for name in ("alpha", "beta", "transA", "transB")]
    return layer(modules.Gemm(*attrs), *node.operands)


@emits("Gather")
def gather(node: Node) -> Emission:
    """nn.Embedding for rows of a weight of the layer; else torch.index_select or F.embedding."""
    data, indices = node.operands
    axis = node.attr("axis")
    if axis == 0 and data.type.rank == 2 and owned(node, weight=0) and data.type.static:
        rows, size = data.type.static
        module = blank(nn.Embedding, rows, size)
        return layer(module, indices, weight=data)
    if indices.weight is not None and indices.type.rank == 1 and np.all(indices.array >= 0):
        return call(torch.index_select, data, axis, indices)
    return call(modules.gather, data, indices, axis)


@emits("BatchNormalization")
def batch_normalization(node: Node) -> Emission:
    """A batch norm layer that follows train() and eval(); the imported layer's class where there was one.

    Raises QirError for one that always trains.
    """
    if node.attr("training_mode"):
        raise QirError("this batch norm returns its statistics", node)
    x, scale, bias, mean, variance = node.operands
    momentum, epsilon = round(1.0 - node.attr("momentum"), 9), node.attr("epsilon")
    if isinstance(node.host, nn.modules.batchnorm._BatchNorm):
        momentum = node.host.momentum
    if not owned(node, weight=1, bias=2, running_mean=3, running_var=4):
        return layer(modules.BatchNorm(epsilon, momentum), *node.operands, _counter(mean))
    kinds = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    torchs = (kind for kind in type(node.host).__mro__ if kind.__module__ == nn.BatchNorm2d.__module__)
    known = next(torchs, None) or kinds.get(x.type.rank or 0, nn.BatchNorm2d)
    module = blank(known, scale.type.static[0], eps=epsilon, momentum=momentum)
    return layer(module, x, weight=scale, bias=bias, running_mean=mean, running_var=variance)


def _counter(mean: Value) -> Value | None:
    """The count of batches that torch keeps beside the running mean."""
    paths = mean.weight.paths if mean.weight is not None else ()
    wanted = [path.removesuffix("running_mean") + "num_batches_tracked" for path in paths]
    for value in mean.graph.nx:
        if isinstance(value, Value) and value.weight is not None and set(value.weight.paths) & set(wanted):
            return value
    return None


@emits("LayerNormalization")
def layer_normalization(node: Node) -> Emission:
    """nn.LayerNorm when the weights are the layer's own. Raises QirError when the statistics are asked for."""
    if len(node.results) > 1:
        raise QirError("torch returns no statistics of a layer norm", node)
    x, scale, *bias = node.operands
    shape, axis = scale.type.static, node.attr("axis")
    if shape is None or axis != -len(shape):
        raise QirError("the torch backend needs a layer norm over the axes of its scale", node)
    if not owned(node, weight=1, bias=2):
        return call(F.layer_norm, x, shape, scale, *bias, eps=node.attr("epsilon"))
    module = blank(nn.LayerNorm, shape, eps=node.attr("epsilon"), bias=bool(bias))
    return layer(module, x, weight=scale, bias=bias[0] if bias else None)


@emits("GroupNormalization")
def group_normalization(node: Node) -> Emission:
    """nn.GroupNorm when the weights are the layer's own."""
    x, scale, bias = node.operands
    groups, epsilon = node.attr("num_groups"), node.attr("epsilon")
    if scale.type.static is None or not owned(node, weight=1, bias=2):
        return call(F.group_norm, x, groups, scale, bias, eps=epsilon)
    module = blank(nn.GroupNorm, groups, scale.type.static[0], eps=epsilon)
    return layer(module, x, weight=scale, bias=bias)


@emits("Dropout")
def dropout(node: Node) -> Emission:
    """nn.Dropout. Raises QirError when the mask is asked for."""
    if len(node.results) > 1:
        raise QirError("torch returns no mask of a dropout", node)
    ratio = literal(node, 1)
    return layer(nn.Dropout(0.5 if ratio is None else ratio), node.operands[0])


@emits("qir.StochasticDepth")
def stochastic_depth(node: Node) -> Emission:
    """torchvision's stochastic depth."""
    return layer(modules.StochasticDepth(node.attr("p"), node.attr("mode")), node.operands[0])


@emits("qir.InTraining")
def in_training(node: Node) -> Emission:
    """What the call was imported from, when training. Raises QirError where a graph from text has lost it."""
    if not isinstance(node.host, nn.Module):
        raise QirError("what this layer does in training was not imported", node, help="import the model again")
    inner = node.host.inner if isinstance(node.host, modules.InTraining) else node.host
    return layer(modules.InTraining(deepcopy(inner)), node.operands[0])


def _check_pads(node: Node) -> None:
    """Raise QirError where torch refuses the padding."""
    kernel, pads = node.attr("kernel_shape"), node.attr("pads") or ()
    if any(2 * size > kernel[axis % len(kernel)] for axis, size in enumerate(pads)):
        raise QirError("torch pads by half a window at most", node)


@emits("MaxPool")
def max_pool(node: Node) -> Emission:
    """nn.MaxPool1d, 2d or 3d. Raises QirError when the indices are asked for, or for windows in the padding."""
    kernel, pads = node.attr("kernel_shape"), symmetric_pads(node)
    _check_pads(node)
    if len(node.results) > 1:
        raise QirError("the torch backend returns no indices of a pooling", node)
    kind: Any = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[len(kernel) - 1]
    module = kind(kernel, spatial(node, "strides", 1), pads or 0, spatial(node, "dilations", 1),
                  ceil_mode=bool(node.attr("ceil_mode")))  # fmt: skip
    if pads is None:
        module = nn.Sequential(padded(node, -torch.inf), module)
    # Where channels lie behind the other axes, torch numbers the places of 8-bit tensors with 8 bits.
    in_float = node.operands[0].type.dtype in ("u8", "i8")
    return layer(modules.InFloat(module) if in_float else module, node.operands[0])


@emits("AveragePool")
def average_pool(node: Node) -> Emission:
    """nn.AvgPool1d, 2d or 3d."""
    kernel, pads = node.attr("kernel_shape"), symmetric_pads(node)
    _check_pads(node)
    if pads is None or node.attr("ceil_mode") or any(step != 1 for step in spatial(node, "dilations", 1)):
        raise QirError("the torch backend takes average pooling with equal pads, floor and no dilation", node)
    kind: Any = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[len(kernel) - 1]
    module = kind(kernel, spatial(node, "strides", 1), pads, count_include_pad=bool(node.attr("count_include_pad")))
    return layer(module, node.operands[0])


@emits("qir.AdaptiveAveragePool", "GlobalAveragePool")
def adaptive_average_pool(node: Node) -> Emission:
    """nn.AdaptiveAvgPool1d, 2d or 3d."""
    if node.op == "GlobalAveragePool":
        rank = node.operands[0].type.rank
        if rank is None:
            raise QirError(
                "the torch backend needs the rank of what is pooled", node, help="import with example inputs"
            )
        output: tuple[int | None, ...] = (1,) * (rank - 2)
    else:
        output = node.attr("output_size")
    kind: Any = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[len(output) - 1]
    return layer(kind(output[0] if len(output) == 1 else tuple(output)), node.operands[0])
