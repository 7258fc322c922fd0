"""Emissions of elementwise operators."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn

from qir.backends import torch_modules as modules
from qir.backends.torch_emissions import (
    Emission,
    call,
    emits,
    layer,
    literal,
)
from qir.backends.torch_quantizers import Quantizer
from qir.errors import QirError
from qir.graph import Node
from qir.types import TensorType


def _simple(op: str, make: Callable[[], nn.Module]) -> None:
    def emission(node: Node) -> Emission:
        return layer(make(), node.operands[0])

    emits(op)(emission)


for _op, _make in {
    "Relu": nn.ReLU, "Sigmoid": nn.Sigmoid, "Tanh": nn.Tanh, "HardSwish": nn.Hardswish, "Mish": nn.Mish,
    "Softsign": nn.Softsign,
}.items():  # fmt: skip
    _simple(_op, _make)


def _function(op: str, function: Any) -> None:
    def emission(node: Node) -> Emission:
        return call(function, *node.operands)

    emits(op)(emission)


for _op, _torch in {
    "Abs": torch.abs, "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh, "Acos": torch.acos,
    "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh, "Atan": torch.atan, "Atanh": torch.atanh,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "Log": torch.log, "Neg": torch.neg,
    "Reciprocal": torch.reciprocal, "Round": torch.round, "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh,
    "Sqrt": torch.sqrt, "Tan": torch.tan, "Not": torch.logical_not, "IsNaN": torch.isnan, "qir.Rsqrt": torch.rsqrt,
    "qir.Log1p": torch.log1p, "qir.Expm1": torch.expm1,
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "MatMul": torch.matmul,
    "Equal": operator.eq, "Greater": operator.gt, "GreaterOrEqual": operator.ge, "Less": operator.lt,
    "LessOrEqual": operator.le, "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
    "Where": torch.where, "qir.FloorDivide": operator.floordiv,
}.items():  # fmt: skip
    _function(_op, _torch)


@emits("Div")
def divide(node: Node) -> Emission:
    """A true division. Raises QirError for integers, whose quotient is an integer in ONNX."""
    type = node.result.type
    if isinstance(type, TensorType) and type.dtype is not None and type.dtype[0] in "iu":
        raise QirError("torch divides integers in floating point", node)
    return call(operator.truediv, *node.operands)


@emits("PRelu")
def prelu(node: Node) -> Emission:
    """F.prelu. Raises QirError unless there is one slope, or one for each channel."""
    x, slope = node.operands
    size, rank = slope.type.static, x.type.rank
    if size is None or (prod(size) != 1 and (rank is None or len(size) != rank - 1 or any(s != 1 for s in size[1:]))):
        raise QirError("torch takes one slope, or one for each channel", node)
    return call(modules.prelu, x, slope)


@emits("Selu")
def selu(node: Node) -> Emission:
    """nn.SELU. Raises QirError for other constants than its own."""
    if node.attrs:
        raise QirError("torch has no SELU with other constants", node)
    return layer(nn.SELU(), node.operands[0])


@emits("Pow")
def power(node: Node) -> Emission:
    """torch.pow, which has exact shortcuts for small whole exponents given as numbers.

    Raises QirError for an integer to the power of another dtype, whose result torch makes of that dtype.
    """
    x, exponent = (value.type for value in node.operands)
    mixed = isinstance(x, TensorType) and isinstance(exponent, TensorType) and x.dtype != exponent.dtype
    if mixed and x.dtype is not None and x.dtype[0] in "iu":
        raise QirError("torch takes the dtype of the exponent", node)
    return call(torch.pow, *node.operands)


@emits("Max", "Min")
def extreme(node: Node) -> Emission:
    """torch.maximum or torch.minimum, of any number of tensors."""
    function = torch.maximum if node.op == "Max" else torch.minimum
    if len(node.operands) == 2:
        return call(function, *node.operands)
    return call(modules.Folded(function), *node.operands)


@emits("qir.ScaledAdd")
def scaled_add(node: Node) -> Emission:
    """torch.add with alpha."""
    return call(torch.add, *node.operands, alpha=node.attr("alpha"))


@emits("Clip")
def clip(node: Node) -> Emission:
    """torch.clamp. Raises QirError without limits."""
    if all(value is None for value in node.operands[1:]):
        raise QirError("torch clamps to a limit", node)
    return call(torch.clamp, node.operands[0], min=literal(node, 1), max=literal(node, 2))


@emits("qir.HardTanh")
def hard_tanh(node: Node) -> Emission:
    """nn.ReLU6 or nn.Hardtanh."""
    low, high = literal(node, 1), literal(node, 2)
    return layer(nn.ReLU6() if (low, high) == (0.0, 6.0) else nn.Hardtanh(low, high), node.operands[0])


@emits("Swish")
def swish(node: Node) -> Emission:
    """nn.SiLU; with a slope of its own, x * sigmoid(alpha * x)."""
    alpha = node.attr("alpha")
    return layer(nn.SiLU() if alpha == 1.0 else modules.Swish(alpha), node.operands[0])


@emits("Gelu")
def gelu(node: Node) -> Emission:
    """nn.GELU."""
    return layer(nn.GELU(node.attr("approximate")), node.operands[0])


@emits("HardSigmoid")
def hard_sigmoid(node: Node) -> Emission:
    """nn.Hardsigmoid for its slope, else a clamp."""
    alpha, beta = node.attr("alpha"), node.attr("beta")
    standard = math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5
    module = nn.Hardsigmoid() if standard else modules.HardSigmoid(alpha, beta)
    return layer(module, node.operands[0])


@emits("LeakyRelu")
def leaky_relu(node: Node) -> Emission:
    """nn.LeakyReLU."""
    return layer(nn.LeakyReLU(node.attr("alpha")), node.operands[0])


@emits("Elu")
def elu(node: Node) -> Emission:
    """nn.ELU."""
    return layer(nn.ELU(node.attr("alpha")), node.operands[0])


@emits("Softmax", "LogSoftmax")
def softmax(node: Node) -> Emission:
    """nn.Softmax or nn.LogSoftmax."""
    kind = nn.Softmax if node.op == "Softmax" else nn.LogSoftmax
    return layer(kind(node.attr("axis")), node.operands[0])


@emits("qir.Quantize")
def quantize(node: Node) -> Emission:
    """A quantizer."""
    return layer(Quantizer(node.attr("encoding"), node.module or node.result.hint), node.operands[0])
