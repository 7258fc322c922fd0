"""Lowerings of torch's further functions of elements: signs, shifts, comparisons, and complex ones on real numbers."""

from __future__ import annotations

from typing import Any

import torch

from qir.frontends.torch_functions import floating, is_number, spelled
from qir.frontends.torch_lowerings import DTYPES, Builder, Lowering, agreed, composite, known, lowers
from qir.frontends.torch_tensors import matmul, transpose
from qir.graph import Value
from qir.types import DTYPES as ONNX_DTYPES
from qir.types import ScalarType


def _binary(op: str, *spellings: Any, floats: bool = True) -> Lowering:
    def lowering(build: Builder, input: Any, other: Any) -> Value:
        known(isinstance(input, Value) or isinstance(other, Value), "no tensor")
        if floats:
            floating(input, other)
        return build(op, *agreed(build, input, other))

    lowering.__name__ = op.rpartition(".")[2].lower()
    return lowers(*spellings)(lowering)


_binary("qir.CopySign", *spelled("copysign"))
_binary("qir.FMax", *spelled("fmax"), floats=False)
_binary("qir.FMin", *spelled("fmin"), floats=False)
_binary("qir.LogAddExp2", *spelled("logaddexp2"))


def real(input: Value) -> None:
    """Raise Unlowered unless the tensor is known to hold real numbers."""
    dtype = input.type.dtype
    known(dtype is not None and dtype[0] != "c" and not isinstance(input.type, ScalarType), "maybe complex numbers")


@lowers(*spelled("heaviside"))
def heaviside(build: Builder, input: Value, values: Value) -> Value:
    """qir.Heaviside."""
    return build("qir.Heaviside", input, values)


@lowers(*spelled("signbit"))
def signbit(build: Builder, input: Value) -> Value:
    """qir.SignBit."""
    real(input)
    known(input.type.dtype != "bool", "the sign of a boolean")
    return build("qir.SignBit", input)


composite("qir.NanToNum", spelled("nan_to_num"), lambda input, nan=None, posinf=None, neginf=None: (
    (input,), {"nan": nan, "posinf": posinf, "neginf": neginf}))  # fmt: skip
composite("qir.IsClose", spelled("isclose"), lambda input, other, rtol=1e-5, atol=1e-8, equal_nan=False: (
    (input, other), {"rtol": rtol, "atol": atol, "equal_nan": equal_nan}))  # fmt: skip


@lowers(*spelled("isreal"))
def isreal(build: Builder, input: Value) -> Value:
    """True for every element of a tensor of real numbers: Or of what is true and what is not."""
    real(input)
    truth = build("Cast", input, to=ONNX_DTYPES["bool"])
    return build("Or", truth, build("Not", truth))


@lowers(*spelled("ldexp"))
def ldexp(build: Builder, input: Value, other: Value) -> Value:
    """qir.LoadExponent."""
    floating(input)
    return build("qir.LoadExponent", input, other)


@lowers(*spelled("float_power"))
def float_power(build: Builder, input: Any, exponent: Any) -> Value:
    """Pow in f64."""
    wide = [build("Cast", value, to=ONNX_DTYPES["f64"]) if isinstance(value, Value) else value
            for value in (input, exponent)]  # fmt: skip
    for value in (input, exponent):
        known(is_number(value) or not isinstance(value.type, ScalarType), "a power of Python numbers")
    return build("Pow", *wide)


@lowers("Tensor.float_power_")
def float_power_in_place(build: Builder, input: Value, exponent: Any) -> Value:
    """Pow of f64, which torch asks for."""
    return float_power(build, input, exponent)  # type: ignore[no-any-return]


def _shift(op: str, reflected: bool, *spellings: Any) -> None:
    def lowering(build: Builder, input: Any, other: Any) -> Value:
        operands = (other, input) if reflected else (input, other)
        types = [value.type for value in operands if isinstance(value, Value)]
        whole = all(type.dtype is not None and type.dtype[0] == "i" for type in types)
        known(whole and not any(isinstance(type, ScalarType) for type in types), "bits of anything but signed integers")
        known(not any(isinstance(value, float) for value in operands), "bits of a float")
        return build(op, *agreed(build, *operands))

    lowering.__name__ = op.rpartition(".")[2].lower() + ("_reflected" if reflected else "")
    lowers(*spellings)(lowering)


def _operators(name: str) -> list[Any]:
    import operator

    return [getattr(operator, name), getattr(operator, f"i{name}")]


_shift("qir.ShiftLeft", False, *spelled("bitwise_left_shift"), *_operators("lshift"), "Tensor.__lshift__")
_shift("qir.ShiftRight", False, *spelled("bitwise_right_shift"), *_operators("rshift"), "Tensor.__rshift__")
_shift("qir.ShiftLeft", True, "Tensor.__rlshift__")
_shift("qir.ShiftRight", True, "Tensor.__rrshift__")


# -- functions of complex numbers, on real ones ------------------------------------------------------------------------


@lowers(*spelled("conj conj_physical resolve_conj resolve_neg"), torch.real)
def itself(build: Builder, input: Value) -> Value:
    """The tensor itself, when it holds real numbers."""
    real(input)
    return input


@lowers(*spelled("sgn"))
def sgn(build: Builder, input: Value) -> Value:
    """Sign of real numbers."""
    real(input)
    return build("Sign", input)


@lowers(*spelled("adjoint"))
def adjoint(build: Builder, input: Value) -> Value:
    """qir.SwapAxes of real matrices."""
    real(input)
    return transpose(build, input, -2, -1)  # type: ignore[no-any-return]


@lowers(*spelled("vdot"))
def vdot(build: Builder, input: Value, other: Value) -> Value:
    """MatMul of real vectors."""
    real(input)
    return matmul(build, input, other)  # type: ignore[no-any-return]


@lowers(*spelled("type_as"))
def type_as(build: Builder, input: Value, other: Value) -> Value:
    """Cast to a dtype that is known."""
    dtype = other.type.dtype
    known(dtype in DTYPES.values() and not isinstance(other.type, ScalarType), "a dtype that is not known")
    return build("Cast", input, to=ONNX_DTYPES[str(dtype)])


@lowers(*spelled("isin"))
def isin(build: Builder, elements: Any, test_elements: Any, *, assume_unique: bool = False,
         invert: bool = False) -> Value:  # fmt: skip
    """qir.IsIn."""
    known(all(isinstance(value, Value) for value in (elements, test_elements)), "a number")
    return build("qir.IsIn", elements, test_elements, assume_unique=assume_unique, invert=invert)
