"""Lowerings of the functions of `keras.ops` that compute element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from qir.frontends.keras_dtypes import agreed, cast, dtype_of, floating, tensor
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import Lowering, known


def named(name: str, *spellings: Any) -> Callable[[Lowering], Lowering]:
    """Register a lowering that is made in a loop, under its own name."""

    def register(lowering: Lowering) -> Lowering:
        lowering.__name__ = name
        return lowers(*spellings)(lowering)

    return register


def _unary(name: str, op: str, *spellings: Any, floats: bool = True) -> None:
    def lowering(build: KerasBuilder, x: Any) -> Value:
        return build(op, floating(build, x) if floats else tensor(build, x))

    named(name, getattr(ops, name), *spellings)(lowering)


for _name, _op in (("arccos", "Acos"), ("arccosh", "Acosh"), ("arcsin", "Asin"), ("arcsinh", "Asinh"),
                   ("arctan", "Atan"), ("arctanh", "Atanh"), ("cos", "Cos"), ("cosh", "Cosh"), ("sin", "Sin"),
                   ("sinh", "Sinh"), ("tan", "Tan"), ("erf", "Erf"), ("erfc", "qir.Erfc"), ("exp2", "qir.Exp2"),
                   ("expm1", "qir.Expm1"), ("log", "Log"), ("log10", "qir.Log10"), ("log1p", "qir.Log1p"),
                   ("log2", "qir.Log2"), ("sqrt", "Sqrt"), ("rsqrt", "qir.Rsqrt"), ("reciprocal", "Reciprocal"),
                   ("sinc", "qir.Sinc"), ("deg2rad", "qir.DegreesToRadians"), ("rad2deg", "qir.RadiansToDegrees"),
                   ("isnan", "IsNaN"), ("isfinite", "qir.IsFinite"), ("isinf", "IsInf")):  # fmt: skip
    _unary(_name, _op)
_unary("abs", "Abs", ops.absolute, floats=False)
_unary("sign", "Sign", floats=False)
_unary("negative", "Neg", floats=False)
_unary("bitwise_not", "BitwiseNot", ops.bitwise_invert, floats=False)
_unary("fabs", "Abs")


for _name, _op in (("ceil", "Ceil"), ("floor", "Floor"), ("trunc", "qir.Trunc")):
    _unary(_name, _op)


@lowers(ops.round)
def round_half_even(build: KerasBuilder, x: Any, decimals: int = 0) -> Value:
    """Round, between products with a power of ten for decimals."""
    value = tensor(build, x)
    if decimals == 0:
        return build("Round", value) if _is_float(value) else value
    known(_is_float(value), "decimals of whole numbers")
    scale = 10.0 ** abs(decimals)
    scaled = build("Mul" if decimals > 0 else "Div", value, scale)
    return build("Div" if decimals > 0 else "Mul", build("Round", scaled), scale)


def _is_float(value: Value) -> bool:
    return str(dtype_of(value)).startswith(("float", "bfloat", "None"))


def _binary(name: str, op: str, *spellings: Any, floats: bool = False) -> None:
    def lowering(build: KerasBuilder, x1: Any, x2: Any) -> Value:
        return build(op, *agreed(build, x1, x2, also=(float,) if floats else ()))

    named(name, *(getattr(ops, each) for each in (name,) if hasattr(ops, each)), *spellings)(lowering)


for _name, _op in (("subtract", "Sub"), ("mod", "qir.Remainder"), ("floor_divide", "qir.FloorDiv"),
                   ("fmax", "qir.FMax"), ("fmin", "qir.FMin"),
                   ("equal", "Equal"), ("greater", "Greater"), ("greater_equal", "GreaterOrEqual"), ("less", "Less"),
                   ("less_equal", "LessOrEqual")):  # fmt: skip
    _binary(_name, _op)


def _of_bits(name: str, op: str, *spellings: Any) -> None:
    def lowering(build: KerasBuilder, x: Any, y: Any) -> Value:
        return build(op, *(cast(build, one, str(dtype_of(tensor(build, x)))) for one in (x, y)))

    named(name, getattr(ops, name), *spellings)(lowering)


for _name, _op in (("bitwise_and", "BitwiseAnd"), ("bitwise_or", "BitwiseOr"), ("bitwise_xor", "BitwiseXor")):
    _of_bits(_name, _op)
_of_bits("bitwise_left_shift", "qir.ShiftLeft", ops.left_shift)
_of_bits("bitwise_right_shift", "qir.ShiftRight", ops.right_shift)
for _name, _op in (("arctan2", "qir.Atan2"), ("logaddexp", "qir.LogAddExp"), ("logaddexp2", "qir.LogAddExp2"),
                   ("hypot", "qir.Hypot"), ("heaviside", "qir.Heaviside")):  # fmt: skip
    _binary(_name, _op, floats=True)


def _extreme(name: str, op: str) -> None:
    def lowering(build: KerasBuilder, x1: Any, x2: Any) -> Value:
        a, b = agreed(build, x1, x2)
        dtype = next(iter({dtype_of(value) for value in (a, b) if isinstance(dtype_of(value), str)}), None)
        return build(op, a, b) if dtype is None else build(op, cast(build, a, dtype), cast(build, b, dtype))

    named(name, getattr(ops, name))(lowering)


_extreme("maximum", "Max")
_extreme("minimum", "Min")


@lowers(ops.fmod)
def fmod(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Mod with the sign of the dividend."""
    return build("Mod", *agreed(build, x1, x2), fmod=1)


@lowers(ops.add)
def add(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Add, or Or of booleans."""
    a, b = agreed(build, x1, x2)
    return build("Or" if a.type.dtype == b.type.dtype == "bool" else "Add", a, b)


@lowers(ops.multiply)
def multiply(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Mul, or And of booleans."""
    a, b = agreed(build, x1, x2)
    return build("And" if a.type.dtype == b.type.dtype == "bool" else "Mul", a, b)


@lowers(ops.divide, ops.true_divide)
def divide(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Div of floats."""
    return build("Div", *agreed(build, x1, x2, also=(float,)))


@lowers(ops.divide_no_nan)
def divide_no_nan(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Div, and 0 where the divisor is 0."""
    a, b = agreed(build, x1, x2, also=(float,))
    return build("Where", build("Equal", b, 0.0), 0.0, build("Div", a, b))


@lowers(ops.power)
def power(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Pow."""
    return build("Pow", *agreed(build, x1, x2))


@lowers(ops.square)
def square(build: KerasBuilder, x: Any) -> Value:
    """x * x."""
    value = tensor(build, x)
    value = cast(build, value, "int32") if value.type.dtype == "bool" else value
    return build("Mul", value, value)


@lowers(ops.cbrt)
def cbrt(build: KerasBuilder, x: Any) -> Value:
    """The power of 1/3 of |x|, with the sign of x."""
    value = floating(build, x)
    return build("Mul", build("Sign", value), build("Pow", build("Abs", value), 1 / 3))


@lowers(ops.not_equal)
def not_equal(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Not of Equal."""
    return build("Not", build("Equal", *agreed(build, x1, x2)))


def _logical(name: str, op: str) -> None:
    def lowering(build: KerasBuilder, x1: Any, x2: Any) -> Value:
        return build(op, cast(build, x1, "bool"), cast(build, x2, "bool"))

    named(name, getattr(ops, name))(lowering)


for _name, _op in (("logical_and", "And"), ("logical_or", "Or"), ("logical_xor", "Xor")):
    _logical(_name, _op)


@lowers(ops.logical_not)
def logical_not(build: KerasBuilder, x: Any) -> Value:
    """Not."""
    return build("Not", cast(build, x, "bool"))


@lowers(ops.isposinf)
def isposinf(build: KerasBuilder, x: Any) -> Value:
    """IsInf of positive numbers."""
    return build("IsInf", floating(build, x), detect_negative=0)


@lowers(ops.isneginf)
def isneginf(build: KerasBuilder, x: Any) -> Value:
    """IsInf of negative numbers."""
    return build("IsInf", floating(build, x), detect_positive=0)


@lowers(ops.signbit)
def signbit(build: KerasBuilder, x: Any) -> Value:
    """qir.SignBit."""
    value = tensor(build, x)
    return build("qir.SignBit", value) if _is_float(value) else build("Less", value, 0)


@lowers(ops.isclose)
def isclose(build: KerasBuilder, x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8,
            equal_nan: bool = False) -> Value:  # fmt: skip
    """qir.IsClose."""
    a, b = agreed(build, x1, x2)
    return build("qir.IsClose", a, b, rtol=float(rtol), atol=float(atol), equal_nan=equal_nan)


@lowers(ops.ldexp)
def ldexp(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """qir.LoadExponent."""
    return build("qir.LoadExponent", floating(build, x1), tensor(build, x2))


@lowers(ops.nan_to_num)
def nan_to_num(build: KerasBuilder, x: Any, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Value:
    """qir.NanToNum."""
    value = tensor(build, x)
    return build("qir.NanToNum", value, nan=float(nan), posinf=posinf, neginf=neginf) if _is_float(value) else value


@lowers(ops.clip)
def clip(build: KerasBuilder, x: Any, x_min: Any, x_max: Any) -> Value:
    """Clip by numbers, Max and Min of tensors."""
    x_min, x_max = (limit.item() if isinstance(limit, np.generic) else limit for limit in (x_min, x_max))
    if all(limit is None or isinstance(limit, int | float) for limit in (x_min, x_max)):
        value = cast(build, x, "int32") if dtype_of(tensor(build, x)) == "bool" else tensor(build, x)
        return build("Clip", value, x_min, x_max)
    value = tensor(build, x)
    if x_min is not None:
        value = build("Max", *agreed(build, value, x_min))
    return value if x_max is None else build("Min", *agreed(build, value, x_max))


@lowers(ops.where)
def where(build: KerasBuilder, condition: Any, x1: Any = None, x2: Any = None) -> Value:
    """Where."""
    known(x1 is not None and x2 is not None, "places of what is true, whose number is not known")
    return build("Where", cast(build, condition, "bool"), *agreed(build, x1, x2))


@lowers(ops.cast)
def cast_to(build: KerasBuilder, x: Any, dtype: Any) -> Value:
    """Cast."""
    return cast(build, x, keras.backend.standardize_dtype(dtype))


@lowers(ops.copy, ops.conj, ops.conjugate, ops.real)
def copy(build: KerasBuilder, x: Any) -> Value:
    """Identity; of real numbers, their conjugate and real part too."""
    value = tensor(build, x)
    known(not str(dtype_of(value)).startswith("complex"), "complex numbers")
    return build("Identity", value)


@lowers(ops.stop_gradient)
def stop_gradient(build: KerasBuilder, variable: Any) -> Value:
    """qir.Detach."""
    return build("qir.Detach", tensor(build, variable))


@lowers(ops.angle)
def angle(build: KerasBuilder, x: Any) -> Value:
    """qir.RealAngle."""
    known(not str(dtype_of(tensor(build, x))).startswith("complex"), "complex numbers")
    return build("qir.RealAngle", floating(build, x))


@lowers(ops.imag)
def imag(build: KerasBuilder, x: Any) -> Value:
    """Zeros, of real numbers."""
    value = tensor(build, x)
    known(not str(dtype_of(value)).startswith("complex"), "complex numbers")
    return build("qir.FullLike", value, value=0.0)


@lowers(ops.isreal)
def isreal(build: KerasBuilder, x: Any) -> Value:
    """True, of real numbers."""
    value = tensor(build, x)
    known(not str(dtype_of(value)).startswith("complex"), "complex numbers")
    return (
        build("Equal", value, value)
        if not _is_float(value)
        else build("Or", build("IsNaN", value), build("Equal", value, value))
    )
