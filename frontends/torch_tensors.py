"""Lowerings of torch's functions and methods on tensors: arithmetic, comparison, reduction, shapes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from qir.frontends.torch_lowerings import DTYPES, Builder, Unlowered, agreed, known, lowers
from qir.graph import Value
from qir.types import DTYPES as ONNX_DTYPES
from qir.types import ScalarType


def _unary(op: str, *spellings: Any) -> None:
    """Register the lowering of a function of one tensor to one operator."""

    def lowering(build: Builder, input: Value) -> Value:
        whole = (input.type.dtype or "f")[0] in "iu"
        return build(op, build("Cast", input, to=_default_float()) if whole and op in _FLOATING else input)

    lowering.__name__ = op.rpartition(".")[2].lower()
    lowers(*spellings)(lowering)


_FLOATING = {
    "Cos", "Cosh", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Erf", "Exp", "Log", "Reciprocal", "Sin", "Sinh",
    "Sqrt", "Tan", "qir.Rsqrt", "qir.Log1p", "qir.Expm1",
}  # fmt: skip
"""What torch computes of whole numbers in its default dtype."""


def _default_float() -> int:
    return ONNX_DTYPES[DTYPES[torch.get_default_dtype()]]


_OPERATORS = {"Abs": (operator.abs,), "Neg": (operator.neg,)}

for _op, _names in {
    "Abs": "abs absolute", "Ceil": "ceil", "Cos": "cos", "Cosh": "cosh", "Acos": "acos arccos",
    "Acosh": "acosh arccosh", "Asin": "asin arcsin", "Asinh": "asinh arcsinh", "Atan": "atan arctan",
    "Atanh": "atanh arctanh", "Erf": "erf", "Exp": "exp", "Floor": "floor", "Log": "log", "Neg": "neg negative",
    "Reciprocal": "reciprocal", "Round": "round", "Sign": "sign", "Sin": "sin", "Sinh": "sinh", "Sqrt": "sqrt",
    "Tan": "tan", "qir.Rsqrt": "rsqrt", "qir.Log1p": "log1p", "qir.Expm1": "expm1", "Not": "logical_not",
    "IsNaN": "isnan",
}.items():  # fmt: skip
    _spellings = [spelling for name in _names.split() for spelling in (getattr(torch, name), f"Tensor.{name}")]
    _unary(_op, *_spellings, *_OPERATORS.get(_op, ()))


# -- arithmetic ------------------------------------------------------------------------------------------------------


def _scaled(build: Builder, op: str, input: Any, other: Any, alpha: Any) -> Value:
    known(isinstance(alpha, int | float), "a computed alpha")
    if alpha == 1:
        return build(op, *agreed(build, input, other))
    known(isinstance(other, Value), "alpha with a number")
    return build("qir.ScaledAdd", input, other, alpha=float(alpha if op == "Add" else -alpha))


@lowers(operator.add, operator.iadd, torch.add, "Tensor.add", "Tensor.__add__", "Tensor.__radd__")
def add(build: Builder, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    """Add, or qir.ScaledAdd."""
    return _scaled(build, "Add", input, other, alpha)


@lowers(operator.sub, operator.isub, torch.sub, torch.subtract, "Tensor.sub", "Tensor.subtract")
def sub(build: Builder, input: Any, other: Any, *, alpha: Any = 1) -> Value:
    """Sub, or qir.ScaledAdd."""
    return _scaled(build, "Sub", input, other, alpha)


@lowers(torch.rsub)
def rsub(build: Builder, input: Any, other: Any, alpha: Any = 1) -> Value:
    """Sub the other way round."""
    known(alpha == 1, "rsub with alpha")
    return build("Sub", *agreed(build, other, input))


@lowers(operator.mul, operator.imul, torch.mul, torch.multiply, "Tensor.mul", "Tensor.multiply")
def mul(build: Builder, input: Any, other: Any) -> Value:
    """Mul."""
    return build("Mul", *agreed(build, input, other))


@lowers(operator.truediv, operator.itruediv, torch.div, torch.divide, torch.true_divide, "Tensor.div", "Tensor.divide",
        "Tensor.true_divide")  # fmt: skip
def div(build: Builder, input: Any, other: Any, *, rounding_mode: str | None = None) -> Value:
    """Div of tensors, of whole numbers as floats; rounded, qir.RoundedDiv."""
    values = [value for value in (input, other) if isinstance(value, Value)]
    known(any(not isinstance(value.type, ScalarType) for value in values), "division of Python numbers")
    if rounding_mode is not None:
        known(rounding_mode in ("floor", "trunc"), f"division with rounding_mode={rounding_mode!r}")
        known(all(value.type.dtype not in (None, "bool") for value in values), "division in an unknown dtype")
        return build("qir.RoundedDiv", *agreed(build, input, other), rounding_mode=rounding_mode)
    dtypes = [value.type.dtype for value in values if value.type.dtype and not isinstance(value.type, ScalarType)]
    if dtypes and not any(dtype[0] in "fc" or dtype == "bf16" for dtype in dtypes):
        known(len(dtypes) == sum(not isinstance(value.type, ScalarType) for value in values), "an unknown dtype")
        to = ONNX_DTYPES[DTYPES[torch.get_default_dtype()]]
        tensors = [isinstance(v, Value) and not isinstance(v.type, ScalarType) for v in (input, other)]
        input, other = (build("Cast", v, to=to) if tensor else v
                        for v, tensor in zip((input, other), tensors, strict=True))  # fmt: skip
    return build("Div", *agreed(build, input, other))


@lowers(operator.pow, operator.ipow, torch.pow, "Tensor.pow")
def power(build: Builder, input: Any, exponent: Any) -> Value:
    """Pow; of whole numbers with a float as exponent, in floats."""
    base = input.type.dtype if isinstance(input, Value) and not isinstance(input.type, ScalarType) else None
    if isinstance(exponent, float) and base is not None and base[0] not in "fc" and base != "bf16":
        input = build("Cast", input, to=ONNX_DTYPES[DTYPES[torch.get_default_dtype()]])
    if not isinstance(input, Value):
        known(exponent.type.dtype in (None, "f32"), "a power of a number in another dtype than f32")
    return build("Pow", input, exponent)


@lowers(torch.square, "Tensor.square")
def square(build: Builder, input: Value) -> Value:
    """Pow with 2."""
    return build("Pow", input, 2)


@lowers(torch.maximum, "Tensor.maximum")
def maximum(build: Builder, input: Value, other: Value) -> Value:
    """Max."""
    return build("Max", *agreed(build, input, other))


@lowers(torch.minimum, "Tensor.minimum")
def minimum(build: Builder, input: Value, other: Value) -> Value:
    """Min."""
    return build("Min", *agreed(build, input, other))


@lowers(torch.clamp, torch.clip, "Tensor.clamp", "Tensor.clip")
def clamp(build: Builder, input: Value, min: Any = None, max: Any = None) -> Value:
    """Clip, with numbers as limits."""
    known(all(limit is None or isinstance(limit, int | float) for limit in (min, max)), "clamp between tensors")
    known(isinstance(min, int | float) or isinstance(max, int | float), "clamp without limits")
    return build("Clip", input, min, max)


@lowers(operator.matmul, torch.matmul, torch.mm, torch.bmm, "Tensor.matmul", "Tensor.mm", "Tensor.bmm",
        "Tensor.__matmul__")  # fmt: skip
def matmul(build: Builder, input: Value, other: Value) -> Value:
    """MatMul."""
    return build("MatMul", input, other)


# -- comparison ------------------------------------------------------------------------------------------------------


def _binary(op: str, *spellings: Any) -> None:
    def lowering(build: Builder, input: Any, other: Any) -> Value:
        return build(op, *((input, other) if op in ("And", "Or", "Xor") else agreed(build, input, other)))

    lowering.__name__ = op.lower()
    lowers(*spellings)(lowering)


for _op, _names in {
    "Equal": "eq", "Greater": "gt greater", "GreaterOrEqual": "ge greater_equal", "Less": "lt less",
    "LessOrEqual": "le less_equal", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
}.items():  # fmt: skip
    _spellings = [spelling for name in _names.split() for spelling in (getattr(torch, name), f"Tensor.{name}")]
    _binary(_op, *_spellings, *([getattr(operator, _names.split()[0])] if hasattr(operator, _names.split()[0]) else []))


@lowers("Tensor.eq_", "Tensor.gt_", "Tensor.greater_", "Tensor.ge_", "Tensor.greater_equal_", "Tensor.lt_",
        "Tensor.less_", "Tensor.le_", "Tensor.less_equal_")  # fmt: skip
def compare_in_place(build: Builder, input: Any, other: Any) -> Value:
    """Not lowered: the tensor keeps its dtype."""
    raise Unlowered("a comparison in place")


@lowers(torch.where)
def where(build: Builder, condition: Value, input: Any = None, other: Any = None) -> Value:
    """Where."""
    known(input is not None and other is not None, "where with a condition alone")
    known(not isinstance(input, bool) or not isinstance(other, bool), "one of two truth values")
    if {type(input), type(other)} == {int, float}:
        input, other = float(input), float(other)
    return build("Where", condition, *agreed(build, input, other))


@lowers("Tensor.where")
def tensor_where(build: Builder, input: Value, condition: Value, other: Any) -> Value:
    """Where, called on the value for true."""
    return build("Where", condition, *agreed(build, input, other))


# -- shapes ----------------------------------------------------------------------------------------------------------


@lowers(torch.cat, torch.concat, torch.concatenate)
def cat(build: Builder, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Concat of tensors listed in the call."""
    known(isinstance(tensors, list | tuple), "a list of tensors that is computed")
    return build("Concat", *tensors, axis=dim)


@lowers(torch.stack)
def stack(build: Builder, tensors: Sequence[Value], dim: int = 0) -> Value:
    """Concat along a new axis."""
    known(isinstance(tensors, list | tuple), "a list of tensors that is computed")
    return build("Concat", *(build("Unsqueeze", tensor, build.indices([dim])) for tensor in tensors), axis=dim)


@lowers(torch.flatten, "Tensor.flatten", nn.Flatten)
def flatten(build: Builder, input: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    """Flatten to a matrix, or a Reshape that joins the last axes."""
    if end_dim != -1 or start_dim < 0:
        return build("qir.JoinAxes", input, start=start_dim, end=end_dim)
    if start_dim == 1:
        return build("Flatten", input, axis=1)
    return build("Reshape", input, build.indices([0] * start_dim + [-1]))


@lowers(torch.reshape, "Tensor.reshape", "Tensor.view")
def reshape(build: Builder, input: Value, *shape: Any) -> Value:
    """Reshape to numbers, qir.View where some are computed."""
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple | torch.Size) else shape
    known(all(isinstance(s, int | Value) for s in sizes), "a view as another dtype, or to a computed shape")
    if all(isinstance(size, int) for size in sizes):
        return build("Reshape", input, build.indices(sizes), allowzero=int(0 in sizes))
    copied = tuple(0 if _is_size_of(input, axis, size) else size for axis, size in enumerate(sizes))
    if 0 not in sizes and all(isinstance(size, int) for size in copied):
        return build("Reshape", input, build.indices(copied))
    computed = [size for size in sizes if isinstance(size, Value)]
    known(all(isinstance(size.type, ScalarType) for size in computed), "a view to sizes that are tensors")
    return build("qir.View", input, *computed, shape=tuple(s if isinstance(s, int) else None for s in sizes))


def _is_size_of(input: Value, axis: int, size: Any) -> bool:
    """Whether `size` is `input.size(axis)`, which a Reshape copies for a 0."""
    node = size.node if isinstance(size, Value) else None
    return node is not None and node.op == "qir.AxisSize" and node.operands == [input] and node.attr("axis") == axis


@lowers(torch.permute, "Tensor.permute")
def permute(build: Builder, input: Value, *dims: Any) -> Value:
    """Transpose."""
    axes = tuple(dims[0]) if len(dims) == 1 and isinstance(dims[0], list | tuple) else dims
    known(all(isinstance(axis, int) for axis in axes), "computed axes")
    return build("Transpose", input, perm=tuple(axis % len(axes) for axis in axes))


@lowers(torch.transpose, torch.swapaxes, torch.swapdims, "Tensor.transpose", "Tensor.swapaxes", "Tensor.swapdims")
def transpose(build: Builder, input: Value, dim0: int, dim1: int) -> Value:
    """qir.SwapAxes."""
    return build("qir.SwapAxes", input, axis0=dim0, axis1=dim1)


@lowers(torch.t, "Tensor.t")
def t(build: Builder, input: Value) -> Value:
    """Transpose of a matrix."""
    known(input.type.rank in (None, 2), "t of a vector")
    return build("Transpose", input, perm=(1, 0))


@lowers(torch.unsqueeze, "Tensor.unsqueeze")
def unsqueeze(build: Builder, input: Value, dim: int) -> Value:
    """Unsqueeze."""
    return build("Unsqueeze", input, build.indices([dim]))


@lowers(torch.squeeze, "Tensor.squeeze")
def squeeze(build: Builder, input: Value, dim: Any = None) -> Value:
    """Squeeze of an axis that is known to have one element."""
    known(isinstance(dim, int) and input.type.rank is not None, "squeeze of axes that may have more than one element")
    known(input.type.shape is not None and input.type.shape[dim] == 1, "squeeze of an axis of unknown size")
    return build("Squeeze", input, build.indices([dim]))


@lowers("Tensor.contiguous")
def contiguous(build: Builder, input: Value, memory_format: Any = torch.contiguous_format) -> Value:
    """qir.Contiguous."""
    known(memory_format is torch.contiguous_format, "another memory format")
    return build("qir.Contiguous", input)


@lowers("Tensor.size")
def size(build: Builder, input: Value, dim: int | None = None) -> Value:
    """qir.AxisSize."""
    if not isinstance(dim, int):
        raise Unlowered("the whole shape")
    return build("qir.AxisSize", input, axis=dim)


@lowers(operator.floordiv)
def floordiv(build: Builder, a: Any, b: Any) -> Value:
    """Whole-number division of Python numbers."""
    scalars = [v for v in (a, b) if isinstance(v, Value) and v.type == ScalarType("int")]
    known(len(scalars) + sum(isinstance(v, int) for v in (a, b)) == 2, "floor division of tensors")
    return build("qir.FloorDivide", a, b)
