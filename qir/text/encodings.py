"""Encodings as text, both ways: `u8 asymmetric scale=0.5 zero_point=3`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding, ProductEncoding
from qir.errors import QirError
from qir.text.lexer import WORD, Line, quoted
from qir.text.literals import number
from qir.types import NUMPY, storage

_NUMBERS = ("axis", "block_axis", "block_size", "scale_bits")
_FLAGS = ("symmetric", "asymmetric", "narrow", "unsigned")
_FORMATS = ("f16", "bf16", "f8e4m3", "f8e5m2")


def write_encoding(encoding: Encoding, names: Mapping[Encoding, str] | None) -> str:
    """`encoding` as `read_encoding` takes it; `names` holds the factors of products, which None leaves out."""
    if isinstance(encoding, ProductEncoding) and names is not None:
        return f"{encoding.dtype} product ${quoted(names[encoding.input])} ${quoted(names[encoding.weight])}"
    words = [encoding.dtype]
    if not isinstance(encoding, FloatEncoding):
        words += ["symmetric" if encoding.symmetric else "asymmetric"]
        words += ["narrow"] * encoding.narrow + ["unsigned"] * encoding.unsigned
    given = {name: getattr(encoding, name, None) for name in _NUMBERS}
    words += [f"{name}={value}" for name, value in given.items() if value is not None]
    for name in ("scale", "zero_point"):
        if (array := getattr(encoding, name)) is not None:
            words.append(f"{name}={_numbers(array)}")
    return " ".join(words)


def grid_text(encoding: Encoding) -> str:
    """What kind of grid an encoding is, without its numbers: `u8 asymmetric`, `i32 product`."""
    if isinstance(encoding, ProductEncoding):
        return f"{encoding.dtype} product"
    return write_encoding(replace(encoding, scale=None, zero_point=None), None)


def _numbers(array: np.ndarray) -> str:
    return number(array[()]) if array.ndim == 0 else f"[{', '.join(map(_numbers, array))}]"


def read_encoding(line: Line, value: Callable[[Line], Any], named: Callable[[Line], Encoding]) -> Encoding:
    """The encoding that stands here; `named` reads the name of another, behind its `$`."""
    start = line.skip()
    dtype = line.name(WORD, "a dtype")
    try:
        return _product(line, dtype, start, named) if line.accept("product") else _grid(line, dtype, start, value)
    except QirError as error:
        if error.stage is not None:
            raise
        line.fail(error.message, start, len(dtype), error.help)


def _product(line: Line, dtype: str, start: int, named: Callable[[Line], Encoding]) -> Encoding:
    factors = []
    for _ in range(2):
        line.expect("$")
        factors.append(named(line))
    if dtype != "i32":
        line.fail("a product is an i32 grid of two grids that are none", start, line.at - start)
    product = ProductEncoding(dtype, input=factors[0], weight=factors[1])
    if product.scale is not None and product.scale.ndim > 1:
        line.fail("the factors of a product have one scale, or one for each channel", start, line.at - start)
    return product


def _grid(line: Line, dtype: str, start: int, value: Callable[[Line], Any]) -> Encoding:
    options = _options(line, value)
    arrays: dict[str, Any] = {name: options.pop(name) for name in ("scale", "zero_point") if name in options}
    flags = {name: options.pop(name) for name in _FLAGS if name in options}
    if any(flag is not True for flag in flags.values()) or any(type(n) is not int for n in options.values()):
        line.fail("an encoding is a dtype, flags, and an axis and sizes that are numbers", start, line.at - start)
    if dtype in _FORMATS:
        if flags or "zero_point" in arrays or "scale_bits" in options:
            line.fail("a float grid has no more than an axis and a scale", start, line.at - start)
        return _filled(line, start, FloatEncoding(dtype, **options), arrays)
    if len(arrays) == 1:
        line.fail("an encoding is a dtype, and a scale with a zero_point or neither", start, line.at - start)
    flags.pop("asymmetric", None)
    kind = LowPowerEncoding if "scale_bits" in options else Encoding
    return _filled(line, start, kind(dtype, **flags, **options), arrays)


def _options(line: Line, value: Callable[[Line], Any]) -> dict[str, Any]:
    known = (*_FLAGS, *_NUMBERS, "scale", "zero_point")
    options: dict[str, Any] = {}
    while option := line.take(WORD):
        if option not in known:
            at = line.at - len(option)
            line.fail(f"an encoding has no {option!r}", at, len(option), f"it has: {', '.join(known)}")
        options[option] = value(line) if line.accept("=") else True
    return options


def _filled(line: Line, start: int, empty: Encoding, given: dict[str, Any]) -> Encoding:
    """The encoding with the arrays that are given."""
    if not given:
        return empty
    scale = _array(given.get("scale"), np.float32)
    zero = _array(given["zero_point"], NUMPY[storage(empty.dtype)]) if "zero_point" in given else None
    if (
        scale is None
        or not np.all(scale > 0)
        or ("zero_point" in given and (zero is None or zero.shape != scale.shape))
    ):
        line.fail("scales are positive, and there is one zero_point for each", start, line.at - start)
    if not _fits(empty, scale.ndim):
        line.fail("an encoding has a list of scales if it has an axis, else one number", start, line.at - start)
    return replace(empty, scale=scale, zero_point=zero)


def _fits(encoding: Encoding, rank: int) -> bool:
    """Whether scales of so many axes may belong to the encoding."""
    if encoding.block_axis is None:
        return rank == (encoding.axis is not None)
    return rank > max(encoding.block_axis, encoding.axis or 0)


def _array(given: Any, dtype: Any) -> np.ndarray | None:
    """A number, or a nest of lists of numbers, as an array of this dtype; None when it does not fit."""
    try:
        with np.errstate(all="ignore"):
            exact = np.array(given)
            if exact.dtype.kind not in "iuf":
                return None
            array = exact.astype(np.float64).astype(dtype)
    except (ValueError, OverflowError):
        return None
    if np.dtype(dtype) != np.float32 and not np.array_equal(array.astype(np.float64), exact.astype(np.float64)):
        return None
    return array
