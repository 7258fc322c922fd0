"""Lowerings of torch's batch, layer and group norms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from qir.attributes import TRAINING
from qir.frontends.torch_indexing import whole
from qir.frontends.torch_lowerings import Builder, known, lowers
from qir.frontends.torch_more_layers import instance_norm
from qir.graph import Value
from qir.types import NUMPY


@lowers(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, F.batch_norm)
def batch_norm(build: Builder, input: Value, running_mean: Any, running_var: Any, weight: Any = None,
               bias: Any = None, training: Any = False, momentum: float | None = 0.1,
               eps: float = 1e-5) -> Value:  # fmt: skip
    """BatchNormalization that follows train() and eval(); else qir.FixedBatchNorm or qir.BatchNorm."""
    if running_mean is None and running_var is None:
        known(training is TRAINING or training is True, "a batch norm without statistics")
        return build("qir.BatchNorm", input, weight, bias, eps=eps)
    if training is False or (training == 0 and training is not TRAINING):
        return build("qir.FixedBatchNorm", input, running_mean, running_var, weight, bias, eps=eps)
    known(training is TRAINING, "a batch norm whose training flag does not follow the module's")
    known(momentum is not None, "a batch norm with a cumulative average")
    mean = build.value(running_mean)
    scale, offset = (_filled(build, mean, number) if given is None else given
                     for given, number in ((weight, 1), (bias, 0)))  # fmt: skip
    return build("BatchNormalization", input, scale, offset, mean, running_var, epsilon=eps,
                 momentum=1.0 - (momentum or 0))  # fmt: skip


def _filled(build: Builder, like: Value | None, number: int) -> Value:
    """A constant vector as long as another, whose size is known."""
    known(like is not None and like.type.static is not None, "statistics of unknown size")
    made: Value = build.value(np.full(like.type.static, number, NUMPY[like.type.dtype]))  # type: ignore
    return made


@lowers(torch.batch_norm)
def aten_batch_norm(build: Builder, input: Value, weight: Any, bias: Any, running_mean: Any, running_var: Any,
                    training: Any, momentum: float, eps: float, cudnn_enabled: bool) -> Value:  # fmt: skip
    """The batch norm with its arguments in another order."""
    return batch_norm(build, input, running_mean, running_var, weight, bias, training, momentum, eps)  # type: ignore[no-any-return]


@lowers(torch.instance_norm)
def aten_instance_norm(build: Builder, input: Value, weight: Any, bias: Any, running_mean: Any, running_var: Any,
                       use_input_stats: bool, momentum: float, eps: float, cudnn_enabled: bool) -> Value:  # fmt: skip
    """The instance norm with its arguments in another order."""
    return instance_norm(build, input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)  # type: ignore[no-any-return]


@lowers(F.layer_norm, nn.LayerNorm, torch.layer_norm)
def layer_norm(build: Builder, input: Value, normalized_shape: Any, weight: Any = None, bias: Any = None,
               eps: float = 1e-5, cudnn_enable: bool = True) -> Value:  # fmt: skip
    """LayerNormalization over the last axes, qir.LayerNorm without scale and offset."""
    shape = whole(tuple(normalized_shape) if isinstance(normalized_shape, list | tuple) else normalized_shape)
    if weight is None:
        known(bias is None, "a layer norm with an offset alone")
        return build("qir.LayerNorm", input, normalized_shape=shape, eps=eps)
    scale = build.value(weight)
    known(scale is not None and scale.type.static is not None, "a layer norm whose scale has an unknown shape")
    return build("LayerNormalization", input, scale, bias, axis=-len(shape), epsilon=eps)


@lowers(F.group_norm, nn.GroupNorm, torch.group_norm)
def group_norm(build: Builder, input: Value, num_groups: int, weight: Any = None, bias: Any = None,
               eps: float = 1e-5, cudnn_enabled: bool = True) -> Value:  # fmt: skip
    """GroupNormalization, qir.GroupNorm without scale and offset."""
    if weight is None and bias is None:
        return build("qir.GroupNorm", input, num_groups=num_groups, eps=eps)
    known(weight is not None and bias is not None, "a group norm with one of scale and offset")
    return build("GroupNormalization", input, weight, bias, num_groups=num_groups, epsilon=eps)
