"""The table of torch emissions: for each operator, the layer or function that computes it.

    @emits("Relu")
    def relu(node):
        return layer(nn.ReLU(), node.operands[0])

An emission reads attributes and literals now and leaves tensors to the call.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.backends import torch_modules as modules
from qir.errors import QirError
from qir.graph import Node, Value
from qir.types import ScalarType


@dataclass(frozen=True)
class Emission:
    """A call of `target`, a layer or a function, with arguments in which values stand for tensors.

    `owns` names the parameters and buffers of the layer and the weights that they are.
    """

    target: nn.Module | Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    owns: dict[str, Value] = field(default_factory=dict)


EMISSIONS: dict[str, Callable[[Node], Emission]] = {}


def emits(*ops: str) -> Callable[[Callable[[Node], Emission]], Callable[[Node], Emission]]:
    """Register the emission of operators. Raises QirError when one already has one."""

    def register(emission: Callable[[Node], Emission]) -> Callable[[Node], Emission]:
        for op in ops:
            if op in EMISSIONS:
                raise QirError(f"{op} already has a torch emission, {EMISSIONS[op].__name__}")
            EMISSIONS[op] = emission
        return emission

    return register


def layer(module: nn.Module, *args: Any, **owns: Value | None) -> Emission:
    """A call of a layer that owns the weights `owns`."""
    return Emission(module, args, {}, {name: value for name, value in owns.items() if value is not None})


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Emission:
    """A call of a function."""
    return Emission(function, args, kwargs)


def owned(node: Node, **names: int) -> bool:
    """Whether the layer's own weights are the operands, as `bias=2` says: each has the layer's path, or is left out."""
    operands = node.operands
    for name, port in names.items():
        value = operands[port] if port < len(operands) else None
        if value is not None and (value.weight is None or f"{node.module}.{name}" not in value.weight.paths):
            return False
    return node.module is not None


def optional(node: Node, port: int) -> Any:
    """Operand number `port`, None when it is left out."""
    operands = node.operands
    return operands[port] if port < len(operands) else None


def literal(node: Node, port: int) -> Any:
    """The Python value of an operand that must be a constant; None when it is left out. Raises QirError for others."""
    value = optional(node, port)
    if value is None:
        return None
    if value.weight is None:
        raise QirError(f"the torch backend needs operand {port} of {node.op} to be a constant", node)
    return value.weight.array.tolist()


def spatial(node: Node, name: str, otherwise: int) -> tuple[int, ...]:
    """A spatial attribute such as strides, filled in where it is left out."""
    rank = len(node.attr("kernel_shape") or node.operands[1].type.shape[2:])
    return tuple(node.attr(name) or (otherwise,) * rank)


def symmetric_pads(node: Node) -> tuple[int, ...] | None:
    """The padding on both sides of each axis, None when the sides differ."""
    if node.attr("auto_pad") not in ("NOTSET", "VALID"):
        raise QirError(f"the torch backend does not take auto_pad={node.attr('auto_pad')!r}", node)
    rank = len(node.attr("kernel_shape") or node.operands[1].type.shape[2:])
    pads = tuple(node.attr("pads") or (0,) * (2 * rank))
    return pads[:rank] if pads[:rank] == pads[rank:] else None


def padded(node: Node, fill: float) -> nn.Module:
    """A layer that pads the input as the node's pads say, which differ between the sides."""
    pads = node.attr("pads")
    rank = len(pads) // 2
    return modules.Pad([pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)], fill)


# -- elementwise -----------------------------------------------------------------------------------------------------


def _simple(op: str, make: Callable[[], nn.Module]) -> None:
    def emission(node: Node) -> Emission:
        return layer(make(), node.operands[0])

    emits(op)(emission)


for _op, _make in {
    "Relu": nn.ReLU, "Sigmoid": nn.Sigmoid, "Tanh": nn.Tanh, "HardSwish": nn.Hardswish, "Mish": nn.Mish,
    "Selu": nn.SELU, "Softsign": nn.Softsign,
}.items():  # fmt: skip
    _simple(_op, _make)


def _function(op: str, function: Callable[..., Any]) -> None:
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
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": operator.truediv, "MatMul": torch.matmul,
    "Equal": operator.eq, "Greater": operator.gt, "GreaterOrEqual": operator.ge, "Less": operator.lt,
    "LessOrEqual": operator.le, "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
    "Where": torch.where, "qir.FloorDivide": operator.floordiv, "PRelu": modules.prelu,
}.items():  # fmt: skip
    _function(_op, _torch)


@emits("Pow")
def power(node: Node) -> Emission:
    """torch.pow, which has exact shortcuts for small whole exponents given as numbers."""
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
    """torch.clamp."""
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


# -- weighted --------------------------------------------------------------------------------------------------------


@emits("Conv")
def conv(node: Node) -> Emission:
    """nn.Conv1d, 2d or 3d when the weights are the layer's own; else F.conv with tensors."""
    x, weight, *bias = node.operands
    shape = weight.type.static
    if shape is None:
        raise QirError("the torch backend needs the shape of the kernel", node)
    rank, groups = len(shape) - 2, node.attr("group")
    pads = symmetric_pads(node)
    options = {"stride": spatial(node, "strides", 1), "padding": pads, "dilation": spatial(node, "dilations", 1)}
    if pads is None or not owned(node, weight=1, bias=2):
        padding = None if pads is not None else padded(node, 0.0)
        module = modules.Conv(rank, groups=groups, pad=padding, **{**options, "padding": pads or (0,) * rank})
        return layer(module, x, weight, *bias)
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    sizes = (shape[1] * groups, shape[0], shape[2:])
    module = kind(*sizes, groups=groups, bias=bool(bias), device="meta", **options)
    return layer(module, x, weight=weight, bias=bias[0] if bias else None)


@emits("qir.Linear")
def linear(node: Node) -> Emission:
    """nn.Linear when the weights are the layer's own."""
    x, weight, *bias = node.operands
    shape = weight.type.static
    if shape is None or not owned(node, weight=1, bias=2):
        return call(F.linear, x, weight, *bias)
    module = nn.Linear(shape[1], shape[0], bias=bool(bias), device="meta")
    return layer(module, x, weight=weight, bias=bias[0] if bias else None)


@emits("Gemm")
def gemm(node: Node) -> Emission:
    """nn.Linear where it is one; else a matrix product, scaled and turned as the attributes say."""
    plain = node.attr("alpha") == 1.0 and not node.attr("transA") and node.attr("beta") == 1.0
    bias = optional(node, 2)
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
        module = nn.Embedding(*data.type.static, device="meta")
        return layer(module, indices, weight=data)
    if indices.type.rank == 1:
        return call(torch.index_select, data, axis, indices)
    return call(modules.gather, data, indices, axis)


# -- normalization and dropout ---------------------------------------------------------------------------------------


@emits("BatchNormalization")
def batch_normalization(node: Node) -> Emission:
    """A batch norm layer that follows train() and eval(); the imported layer's class where there was one."""
    x, scale, bias, mean, variance = node.operands
    momentum, epsilon = round(1.0 - node.attr("momentum"), 9), node.attr("epsilon")
    if isinstance(node.host, nn.modules.batchnorm._BatchNorm):
        momentum = node.host.momentum
    if not owned(node, weight=1, bias=2, running_mean=3, running_var=4):
        return layer(modules.BatchNorm(epsilon, momentum), *node.operands, _counter(mean))
    kinds = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
    known = type(node.host) if node.host is not None else kinds.get(x.type.rank or 0, nn.BatchNorm2d)
    module = known(scale.type.static[0], eps=epsilon, momentum=momentum, device="meta")
    return layer(module, x, weight=scale, bias=bias, running_mean=mean, running_var=variance,
                 num_batches_tracked=_counter(mean))  # fmt: skip


def _counter(mean: Value) -> Value | None:
    """The count of batches that torch keeps beside the running mean."""
    wanted = [path.removesuffix("running_mean") + "num_batches_tracked" for path in mean.weight.paths if mean.weight]
    for value in mean.graph.nx:
        if isinstance(value, Value) and value.weight is not None and set(value.weight.paths) & set(wanted):
            return value
    return None


@emits("LayerNormalization")
def layer_normalization(node: Node) -> Emission:
    """nn.LayerNorm when the weights are the layer's own."""
    x, scale, *bias = node.operands
    shape, axis = scale.type.static, node.attr("axis")
    if shape is None or axis != -len(shape):
        raise QirError("the torch backend needs a layer norm over the axes of its scale", node)
    if not owned(node, weight=1, bias=2):
        return call(F.layer_norm, x, shape, scale, *bias, eps=node.attr("epsilon"))
    module = nn.LayerNorm(shape, eps=node.attr("epsilon"), bias=bool(bias), device="meta")
    return layer(module, x, weight=scale, bias=bias[0] if bias else None)


@emits("GroupNormalization")
def group_normalization(node: Node) -> Emission:
    """nn.GroupNorm when the weights are the layer's own."""
    x, scale, bias = node.operands
    groups, epsilon = node.attr("num_groups"), node.attr("epsilon")
    if scale.type.static is None or not owned(node, weight=1, bias=2):
        return call(F.group_norm, x, groups, scale, bias, eps=epsilon)
    module = nn.GroupNorm(groups, scale.type.static[0], eps=epsilon, device="meta")
    return layer(module, x, weight=scale, bias=bias)


@emits("Dropout")
def dropout(node: Node) -> Emission:
    """nn.Dropout."""
    ratio = literal(node, 1)
    return layer(nn.Dropout(0.5 if ratio is None else ratio), node.operands[0])


@emits("qir.StochasticDepth")
def stochastic_depth(node: Node) -> Emission:
    """torchvision's stochastic depth."""
    return layer(modules.StochasticDepth(node.attr("p"), node.attr("mode")), node.operands[0])


# -- pooling ---------------------------------------------------------------------------------------------------------


@emits("MaxPool")
def max_pool(node: Node) -> Emission:
    """nn.MaxPool1d, 2d or 3d."""
    kernel, pads = node.attr("kernel_shape"), symmetric_pads(node)
    kind: Any = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[len(kernel) - 1]
    module = kind(kernel, spatial(node, "strides", 1), pads or 0, spatial(node, "dilations", 1),
                  ceil_mode=bool(node.attr("ceil_mode")))  # fmt: skip
    return layer(module if pads is not None else nn.Sequential(padded(node, -torch.inf), module), node.operands[0])


@emits("AveragePool")
def average_pool(node: Node) -> Emission:
    """nn.AvgPool1d, 2d or 3d."""
    kernel, pads = node.attr("kernel_shape"), symmetric_pads(node)
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


# -- reductions, shapes and data movement ----------------------------------------------------------------------------


@emits("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
def reduction(node: Node) -> Emission:
    """torch.mean, sum, amax or amin."""
    functions = {"ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin}
    axes = literal(node, 1)
    if axes is None and node.attr("keepdims"):
        raise QirError(f"the torch backend needs {node.op} to state its axes", node)
    if axes is None:
        return call(functions[node.op], node.operands[0])
    return call(functions[node.op], node.operands[0], dim=tuple(axes), keepdim=bool(node.attr("keepdims")))


@emits("Concat")
def concat(node: Node) -> Emission:
    """torch.cat."""
    return call(torch.cat, list(node.operands), dim=node.attr("axis"))


@emits("Flatten")
def flatten(node: Node) -> Emission:
    """torch.flatten to a matrix."""
    if node.attr("axis") != 1:
        return call(modules.flatten, node.operands[0], node.attr("axis"))
    return call(torch.flatten, node.operands[0], 1)


@emits("Reshape")
def reshape(node: Node) -> Emission:
    """torch.reshape; a 0 that copies a size is looked up."""
    shape = literal(node, 1)
    if 0 in shape and not node.attr("allowzero"):
        return call(modules.reshape, node.operands[0], tuple(shape))
    return call(torch.reshape, node.operands[0], tuple(shape))


@emits("qir.View")
def view(node: Node) -> Emission:
    """torch.reshape to sizes some of which are computed."""
    x, *sizes = node.operands
    computed = iter(sizes)
    return call(torch.reshape, x, tuple(next(computed) if size is None else size for size in node.attr("shape")))


@emits("Transpose")
def transpose(node: Node) -> Emission:
    """torch.permute."""
    perm = node.attr("perm")
    return call(torch.permute, node.operands[0], perm) if perm else call(torch.t, node.operands[0])


@emits("qir.SwapAxes")
def swap_axes(node: Node) -> Emission:
    """torch.transpose."""
    return call(torch.transpose, node.operands[0], node.attr("axis0"), node.attr("axis1"))


@emits("Unsqueeze", "Squeeze")
def squeeze(node: Node) -> Emission:
    """torch.unsqueeze or torch.squeeze."""
    axes: Sequence[int] | None = literal(node, 1)
    if node.op == "Squeeze":
        return call(torch.squeeze, node.operands[0], *([] if axes is None else [tuple(axes)]))
    if len(axes or ()) == 1:
        return call(torch.unsqueeze, node.operands[0], (axes or [0])[0])
    return call(modules.unsqueeze, node.operands[0], tuple(sorted(axes or ())))


@emits("qir.AxisSize")
def axis_size(node: Node) -> Emission:
    """Tensor.size."""
    return call(torch.Tensor.size, node.operands[0], node.attr("axis"))


@emits("Identity")
def identity(node: Node) -> Emission:
    """nn.Identity when it is a layer."""
    return layer(nn.Identity(), node.operands[0]) if node.module else call(modules.same, node.operands[0])


@emits("qir.Quantize")
def quantize(node: Node) -> Emission:
    """A quantizer of the float simulator."""
    return layer(modules.Quantizer(node.attr("encoding")), node.operands[0])


def is_number(value: Value) -> bool:
    """Whether a value is a Python number in the emitted code."""
    return isinstance(value.type, ScalarType)
