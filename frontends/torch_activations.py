"""Lowerings of torch's activations."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.frontends.torch_lowerings import DTYPES, Builder, Unlowered, known, lowers
from qir.graph import Value
from qir.types import DTYPES as ONNX_DTYPES


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
        if rank is None:
            raise Unlowered("prelu with a slope for each channel needs the input's rank; give example inputs")
        slope = build("Reshape", slope, build.indices([-1] + [1] * (rank - 2)))
    return build("PRelu", input, slope)


def in_dtype(build: Builder, input: Value, dtype: Any) -> Value:
    """The tensor cast to a dtype, if one is given."""
    known(dtype is None or dtype in DTYPES, "a dtype that is computed")
    return input if dtype is None else build("Cast", input, to=ONNX_DTYPES[DTYPES[dtype]])


@lowers(F.softmax, nn.Softmax, torch.softmax, "Tensor.softmax")
def softmax(build: Builder, input: Value, dim: int | None = None, dtype: Any = None, _stacklevel: int = 3) -> Value:
    """Softmax along a stated axis."""
    known(isinstance(dim, int), "softmax without dim")
    return build("Softmax", in_dtype(build, input, dtype), axis=dim)


@lowers(F.log_softmax, nn.LogSoftmax, torch.log_softmax, "Tensor.log_softmax")
def log_softmax(build: Builder, input: Value, dim: int | None = None, dtype: Any = None, _stacklevel: int = 3) -> Value:
    """LogSoftmax along a stated axis."""
    known(isinstance(dim, int), "log_softmax without dim")
    return build("LogSoftmax", in_dtype(build, input, dtype), axis=dim)
