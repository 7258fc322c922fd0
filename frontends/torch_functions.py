"""Lowerings of torch's functions of tensors that work element by element."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.frontends import torch_activations  # noqa: F401  (some spellings below repeat its)
from qir.frontends.torch_computed import is_computed
from qir.frontends.torch_lowerings import Builder, Lowering, agreed, known, lowers
from qir.frontends.torch_tensors import clamp, div, floordiv, matmul, mul, power, sub
from qir.graph import Value
from qir.types import ScalarType


def spelled(names: str) -> list[Any]:
    """The functions of torch and the methods of Tensor with these names."""
    both = [(getattr(torch, name, None), f"Tensor.{name}" if hasattr(torch.Tensor, name) else None)
            for name in names.split()]  # fmt: skip
    return [spelling for pair in both for spelling in pair if spelling is not None]


def is_number(*values: Any) -> bool:
    """Whether these are Python numbers that are known."""
    return all(isinstance(value, int | float) for value in values)


def floating(*values: Any) -> None:
    """Raise Unlowered unless the tensors hold floats, or are of unknown dtype."""
    for value in values:
        dtype = value.type.dtype if isinstance(value, Value) else None
        known(dtype is None or (dtype[0] in "fb" and dtype != "bool"), "only lowered for floats")


def unary(op: str, *spellings: Any) -> Lowering:
    """Register the lowering of a function of one tensor of floats to one operator."""

    def lowering(build: Builder, input: Value) -> Value:
        floating(input)
        return build(op, input)

    lowering.__name__ = op.rpartition(".")[2].lower()
    return lowers(*spellings)(lowering)


for _op, _names in {
    "qir.Exp2": "exp2", "qir.Log2": "log2", "qir.Log10": "log10", "qir.Trunc": "trunc fix", "qir.Frac": "frac",
    "qir.Erfc": "erfc", "qir.RadiansToDegrees": "rad2deg", "qir.DegreesToRadians": "deg2rad", "qir.Sinc": "sinc",
    "IsInf": "isinf", "qir.IsFinite": "isfinite",
}.items():  # fmt: skip
    unary(_op, *spelled(_names))
unary("qir.LogSigmoid", F.logsigmoid, nn.LogSigmoid)
unary("qir.TanhShrink", F.tanhshrink, nn.Tanhshrink)


def _binary(op: str, *spellings: Any) -> Lowering:
    def lowering(build: Builder, input: Any, other: Any) -> Value:
        floating(input, other)
        known(isinstance(input, Value) or isinstance(other, Value), "no tensor")
        return build(op, *agreed(build, input, other))

    lowering.__name__ = op.rpartition(".")[2].lower()
    return lowers(*spellings)(lowering)


_binary("qir.Atan2", *spelled("atan2 arctan2"))
_binary("qir.Hypot", *spelled("hypot"))
_binary("qir.LogAddExp", *spelled("logaddexp"))
_binary("qir.XLogY", *spelled("xlogy"))


def _whole_or_float(*values: Any) -> None:
    types = [value.type for value in values if isinstance(value, Value)]
    known(any(not isinstance(type, ScalarType) for type in types), "arithmetic of Python numbers")
    known(all(type.dtype is not None and type.dtype != "bool" for type in types), "a dtype that is not known")


@lowers(operator.mod, operator.imod, *spelled("remainder"), "Tensor.__mod__")
def remainder(build: Builder, input: Any, other: Any) -> Value:
    """qir.Remainder, of Python numbers Mod."""
    if all(is_number(value) or is_computed(value) for value in (input, other)):
        return build("Mod", input, other)
    _whole_or_float(input, other)
    return build("qir.Remainder", *agreed(build, input, other))


@lowers(*spelled("fmod"))
def fmod(build: Builder, input: Any, other: Any) -> Value:
    """Mod of C."""
    _whole_or_float(input, other)
    return build("Mod", *agreed(build, input, other), fmod=1)


@lowers(*spelled("floor_divide"), "Tensor.__floordiv__")
def floor_divide(build: Builder, input: Any, other: Any) -> Value:
    """qir.FloorDiv of tensors; a whole-number division of Python numbers."""
    if not any(isinstance(v, Value) and not isinstance(v.type, ScalarType) for v in (input, other)):
        return floordiv(build, input, other)  # type: ignore[no-any-return]
    _whole_or_float(input, other)
    return build("qir.FloorDiv", *agreed(build, input, other))


@lowers(operator.ne, *spelled("ne not_equal"), "Tensor.__ne__")
def ne(build: Builder, input: Any, other: Any) -> Value:
    """Not and Equal."""
    return build("Not", build("Equal", *agreed(build, input, other)))


lowers("Tensor.ne_", "Tensor.not_equal_")(lowers.table["Tensor.eq_"])


def _bits(logical: str, whole: str, *spellings: Any) -> Lowering:
    def lowering(build: Builder, input: Any, other: Any) -> Value:
        values = [value for value in (input, other) if isinstance(value, Value)]
        dtypes = {value.type.dtype for value in values}
        known(len(dtypes) == 1 and None not in dtypes, "bits of different or unknown dtypes")
        known(not any(isinstance(value.type, ScalarType) for value in values), "bits of Python numbers")
        known(len(values) == 2 or "bool" not in dtypes, "bits of a boolean and a number")
        return build(logical if dtypes == {"bool"} else whole, input, other)

    lowering.__name__ = whole.lower()
    return lowers(*spellings)(lowering)


_bits("And", "BitwiseAnd", operator.and_, operator.iand, *spelled("bitwise_and"), "Tensor.__and__", "Tensor.__rand__")
_bits("Or", "BitwiseOr", operator.or_, operator.ior, *spelled("bitwise_or"), "Tensor.__or__", "Tensor.__ror__")
_bits("Xor", "BitwiseXor", operator.xor, operator.ixor, *spelled("bitwise_xor"), "Tensor.__xor__", "Tensor.__rxor__")


@lowers(operator.invert, *spelled("bitwise_not"), "Tensor.__invert__")
def bitwise_not(build: Builder, input: Value) -> Value:
    """Not, or for whole numbers BitwiseNot."""
    known(input.type.dtype is not None and not isinstance(input.type, ScalarType), "bits of an unknown dtype")
    return build("Not" if input.type.dtype == "bool" else "BitwiseNot", input)


lowers("Tensor.__mul__", "Tensor.__rmul__")(mul)
lowers("Tensor.__sub__")(sub)
lowers("Tensor.__truediv__", "Tensor.__div__")(div)
lowers("Tensor.__pow__")(power)
lowers("Tensor.__neg__")(lowers.table[torch.neg])
lowers("Tensor.__abs__")(lowers.table[torch.abs])
lowers("Tensor.prelu")(lowers.table[F.prelu])
lowers("Tensor.mv", torch.mv, "Tensor.dot", torch.dot)(matmul)
for _name in ("eq", "gt", "ge", "lt", "le"):
    lowers(f"Tensor.__{_name}__")(lowers.table[getattr(torch, _name)])


@lowers("Tensor.__rsub__")
def reflected_sub(build: Builder, input: Any, other: Any) -> Value:
    """Sub the other way round."""
    return sub(build, other, input)  # type: ignore[no-any-return]


@lowers("Tensor.__rtruediv__", "Tensor.__rdiv__")
def reflected_div(build: Builder, input: Any, other: Any) -> Value:
    """Div the other way round; of a tensor, which torch computes so, the product with the reciprocal."""
    if not isinstance(other, Value) or isinstance(other.type, ScalarType):
        return div(build, other, input)  # type: ignore[no-any-return]
    floating(input)
    return build("Mul", *agreed(build, build("Reciprocal", input), other))


@lowers("Tensor.__rmod__")
def reflected_remainder(build: Builder, input: Any, other: Any) -> Value:
    """qir.Remainder the other way round."""
    return remainder(build, other, input)  # type: ignore[no-any-return]


@lowers("Tensor.__rfloordiv__")
def reflected_floor_divide(build: Builder, input: Any, other: Any) -> Value:
    """qir.FloorDiv the other way round."""
    return floor_divide(build, other, input)  # type: ignore[no-any-return]


@lowers("Tensor.__rpow__")
def reflected_power(build: Builder, input: Any, other: Any) -> Value:
    """Pow the other way round."""
    return power(build, other, input)  # type: ignore[no-any-return]


@lowers("Tensor.__rmatmul__")
def reflected_matmul(build: Builder, input: Value, other: Value) -> Value:
    """MatMul the other way round."""
    return build("MatMul", other, input)


@lowers(*spelled("clamp_min"))
def clamp_min(build: Builder, input: Value, min: Any) -> Value:
    """Clip from below."""
    return clamp(build, input, min=min)  # type: ignore[no-any-return]


@lowers(*spelled("clamp_max"))
def clamp_max(build: Builder, input: Value, max: Any) -> Value:
    """Clip from above."""
    return clamp(build, input, max=max)  # type: ignore[no-any-return]


@lowers(*spelled("lerp"))
def lerp(build: Builder, input: Value, end: Value, weight: Any) -> Value:
    """qir.Lerp with a number as weight."""
    known(is_number(weight), "a computed weight")
    floating(input, end)
    return build("qir.Lerp", input, end, weight=weight)


@lowers(*spelled("addcmul"))
def addcmul(build: Builder, input: Value, tensor1: Value, tensor2: Value, *, value: Any = 1) -> Value:
    """qir.AddCMul."""
    known(is_number(value), "a computed factor")
    floating(input, tensor1, tensor2)
    return build("qir.AddCMul", input, tensor1, tensor2, value=value)


@lowers(*spelled("addcdiv"))
def addcdiv(build: Builder, input: Value, tensor1: Value, tensor2: Value, *, value: Any = 1) -> Value:
    """qir.AddCDiv."""
    known(is_number(value), "a computed factor")
    floating(input, tensor1, tensor2)
    return build("qir.AddCDiv", input, tensor1, tensor2, value=value)


@lowers(*spelled("masked_fill"))
def masked_fill(build: Builder, input: Value, mask: Value, value: Any) -> Value:
    """Where, with a number as value."""
    known(is_number(value) and not isinstance(value, bool), "a computed value")
    if isinstance(value, float):
        floating(input)
    known(input.type.dtype not in ("bool", "c64", "c128"), "a number among booleans or complex numbers")
    return build("Where", mask, value, input)


@lowers(*spelled("logit"))
def logit(build: Builder, input: Value, eps: Any = None) -> Value:
    """qir.Logit."""
    known(eps is None, "a logit that clamps")
    floating(input)
    return build("qir.Logit", input)


@lowers(*spelled("clone"))
def clone(build: Builder, input: Value, *, memory_format: Any = torch.preserve_format) -> Value:
    """qir.Clone."""
    known(memory_format in (None, torch.preserve_format, torch.contiguous_format), "another memory format")
    if memory_format is torch.contiguous_format:
        return build("qir.Contiguous", build("qir.Clone", input))
    return build("qir.Clone", input)


@lowers(*spelled("detach"))
def detach(build: Builder, input: Value) -> Value:
    """qir.Detach."""
    return build("qir.Detach", input)


@lowers(*spelled("outer ger"))
def outer(build: Builder, input: Value, vec2: Value) -> Value:
    """Mul of a column and a row."""
    floating(input, vec2)
    return build("Mul", build("Reshape", input, build.indices([-1, 1])), vec2)


@lowers(*spelled("isposinf"))
def isposinf(build: Builder, input: Value) -> Value:
    """IsInf of positive numbers."""
    floating(input)
    return build("IsInf", input, detect_negative=0)


@lowers(*spelled("isneginf"))
def isneginf(build: Builder, input: Value) -> Value:
    """IsInf of negative numbers."""
    floating(input)
    return build("IsInf", input, detect_positive=0)


@lowers(*spelled("positive"), "Tensor.__pos__")
def positive(build: Builder, input: Value) -> Value:
    """The tensor itself."""
    floating(input)
    return input
