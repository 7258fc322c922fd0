"""Composites in the domain `qir.` that work element by element: signs, numbers that are none, shifts, comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from qir.operators.functions import Writer, floats, floor_div, function, unary
from qir.traits import Elementwise, Unary
from qir.types import NUMPY

if TYPE_CHECKING:
    from qir.graph import Value


def _sign_bit(on: Writer, x: Value) -> Value:
    negative: Value = on.Less(x, 0)
    return on.Or(negative, on.Less(on.Reciprocal(x), 0)) if floats(x) else negative


def _copy_sign(on: Writer, a: Value, b: Value) -> Value:
    size = on.Abs(a)
    return on.Where(_sign_bit(on, on.tensor(b, a.type.dtype)), on.Neg(size), size)


def _of_numbers(op: str) -> Any:
    """The larger or smaller of two, where one that is no number does not count."""

    def write(on: Writer, a: Value, b: Value) -> Value:
        chosen = getattr(on, op)(a, b)
        if floats(a):
            chosen = on.Where(on.IsNaN(a), b, on.Where(on.IsNaN(b), a, chosen))
        return chosen  # type: ignore[no-any-return]

    return write


def _heaviside(on: Writer, x: Value, values: Value) -> Value:
    step = on.cast(on.Greater(x, 0), x.type.dtype or "f32")
    return on.Where(on.Equal(x, 0), values, step)


def _nan_to_num(on: Writer, x: Value, nan: float | None, posinf: float | None, neginf: float | None) -> Value:
    limits = ml_dtypes.finfo(NUMPY[x.type.dtype or "f32"])
    x = on.Where(on.IsInf(x, detect_negative=0), float(limits.max) if posinf is None else float(posinf), x)
    x = on.Where(on.IsInf(x, detect_positive=0), float(limits.min) if neginf is None else float(neginf), x)
    return on.Where(on.IsNaN(x), float(nan or 0), x)


def _log_add_exp2(on: Writer, a: Value, b: Value) -> Value:
    two = np.log(2.0).item()
    least = on.Exp(on.Mul(on.Neg(on.Abs(on.Sub(a, b))), two))
    return on.Add(on.Max(a, b), on.Div(on.Log(on.Add(least, 1.0)), two))


def _is_close(on: Writer, a: Value, b: Value, rtol: float, atol: float, equal_nan: bool) -> Value:
    if not floats(a):
        a, b = on.cast(a, "f64"), on.cast(b, "f64")
    apart = on.Abs(on.Sub(a, b))
    near = on.And(on.LessOrEqual(apart, on.Add(on.Mul(on.Abs(b), rtol), atol)), on.Not(on.IsInf(apart)))
    near = on.Or(on.Equal(a, b), near)
    return on.Or(near, on.And(on.IsNaN(a), on.IsNaN(b))) if equal_nan else near


def _power_of_two(on: Writer, a: Value, b: Value) -> Value:
    dtype = a.type.dtype or "i64"
    return on.cast(on.Pow(2.0, on.cast(on.tensor(b, dtype), "f64")), dtype)


def _shift_left(on: Writer, a: Value, b: Value) -> Value:
    return on.Mul(a, _power_of_two(on, a, b))


def _shift_right(on: Writer, a: Value, b: Value) -> Value:
    divisor = _power_of_two(on, a, b)
    return on.Div(on.Sub(a, on.Mod(a, divisor)), divisor)


def _rounded_div(on: Writer, a: Value, b: Value, rounding_mode: str) -> Value:
    if rounding_mode == "floor":
        return floor_div(on, a, b)
    quotient = on.Div(a, b)
    return on.Mul(on.Sign(quotient), on.Floor(on.Abs(quotient))) if floats(quotient) else quotient


unary("NanToNum", _nan_to_num, "x, with numbers in the places of NaN and the infinities: 0 and the dtype's limits.",
      nan=None, posinf=None, neginf=None)  # fmt: skip
function("SignBit", "x", _sign_bit, (Unary(),), None, "Whether x has a sign: -0.0 has one.")

for _name, _operands, _write, _doc in (
    ("CopySign", "a b", _copy_sign, "The size of a with the sign of b, which -0.0 has too."),
    ("FMax", "a b", _of_numbers("Max"), "The larger of a and b; the other one where one is NaN."),
    ("FMin", "a b", _of_numbers("Min"), "The smaller of a and b; the other one where one is NaN."),
    ("Heaviside", "x values", _heaviside, "0 for negative x, 1 for positive x, the value where x is 0."),
    ("LogAddExp2", "a b", _log_add_exp2, "log2(2 ** a + 2 ** b)."),
    ("LoadExponent", "x exponent", lambda on, x, exponent: on.Mul(x, on.Pow(2.0, on.cast(exponent, x.type.dtype))),
     "x * 2 ** exponent."),
    ("ShiftLeft", "a b", _shift_left, "a * 2 ** b of whole numbers, without the bits that do not fit."),
    ("ShiftRight", "a b", _shift_right, "a / 2 ** b of whole numbers, rounded down."),
):  # fmt: skip
    function(_name, _operands, _write, (Elementwise(),), None, _doc)

function("RoundedDiv", "a b", _rounded_div, (Elementwise(),), None, "a / b, rounded down or (`trunc`) towards 0.",
         rounding_mode="trunc")  # fmt: skip
function("IsClose", "a b", _is_close, (Elementwise(),), None, "Whether a and b differ by at most atol + rtol * |b|.",
         rtol=1e-5, atol=1e-8, equal_nan=False)  # fmt: skip
