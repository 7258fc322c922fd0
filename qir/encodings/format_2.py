"""Encodings files of versions 2.0.0 and 2.1.0: the inputs and attributes of ONNX's QuantizeLinear."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding
from qir.encodings.entry import Entry, low_power_factors
from qir.json_documents import floats, integers, refuse
from qir.types import bit_width, integer_range

FLOATS = {"f8e4m3": "float8e4m3fn", "f8e5m2": "float8e5m2", "f16": "float16", "bf16": "bfloat16"}
_INTEGER = re.compile(r"(u?)int([0-9]{1,2})")


def entries(document: Mapping[str, Any]) -> Iterator[Entry]:
    """The entries of a document that follows the schema."""
    for position, given in enumerate(document["encodings"]):
        yield entry(given, f"$.encodings[{position}]")


def entry(given: Mapping[str, Any], at: str) -> Entry:
    """The entry that one object, which follows the schema, stands for."""
    name, dtype, block_size = (
        given["name"],
        _dtype(given["output_dtype"], f"{at}.output_dtype"),
        given.get("block_size"),
    )
    if isinstance(given.get("y_scale"), Mapping):
        stated = given["y_scale"]
        return _low_power(given, at, dtype, stated["x"], stated["x_scale"], stated)
    if "per_block_int_scale" in given:
        return _low_power(given, at, dtype, given["per_block_int_scale"], given["per_channel_float_scale"], {})
    scale, axis = floats(given["y_scale"], f"{at}.y_scale"), given.get("axis")
    if block_size is None and (scale.ndim > 1 or (scale.ndim == 1 and axis is None and scale.size > 1)):
        refuse(at, "a list of scales needs an axis, and a list of lists a block_size, too")
    if block_size is not None and axis is None:
        refuse(at, "blocks need an axis")
    per: Any = "block" if block_size is not None else "tensor" if axis is None else "channel"
    floating = dtype in FLOATS
    return Entry(name, at, bit_width(dtype), per, floating=floating, dtype=dtype, scale=scale,
                 zero=None if floating else _zero(given, dtype, at), axis=axis if per == "channel" else None,
                 block_axis=axis if per == "block" else None, block_size=block_size)  # fmt: skip


def _dtype(text: str, at: str) -> str:
    match = _INTEGER.fullmatch(text)
    if match is not None and (2 <= int(match[2]) <= 16 or text == "int32"):
        return f"{match[1] or 'i'}{int(match[2])}"
    for dtype, name in FLOATS.items():
        if text == name:
            return dtype
    refuse(at, f"{text[:40]!r} is no dtype of a grid", f"grids are int2 to int16, uint2 to uint16, int32, "
                                                       f"{', '.join(FLOATS.values())}")  # fmt: skip


def _zero(given: Mapping[str, Any], dtype: str, at: str) -> np.ndarray:
    """The zero points, counted from the lowest integer of the dtype."""
    stated = given.get("y_zero_point")
    zero = np.zeros((), np.int64) if stated is None else integers(stated, f"{at}.y_zero_point")
    return np.asarray(zero - integer_range(dtype)[0])


def _low_power(given: Mapping[str, Any], at: str, dtype: str, x: Any, x_scale: Any, stated: Mapping[str, Any]) -> Entry:
    """A grid whose scales are integers of blocks times a float of each channel."""
    blocks, channels = integers(x, f"{at}: integer scales"), floats(x_scale, f"{at}: channel scales")
    if stated.get("block_size") is not None or np.any(integers(stated.get("x_zero_point", 0), f"{at}.y_scale")):
        refuse(f"{at}.y_scale", "scales of scales have neither blocks nor zero points here")
    if "float" in stated.get("input_dtype", "") or np.any(blocks < 1) or np.any(blocks > 2**16):
        refuse(f"{at}.y_scale", "the scales of blocks are integers from 1 to 65536")
    if given.get("axis") is None or given.get("block_size") is None or dtype in FLOATS:
        refuse(at, "a low-power grid is one of integers, and has an axis and a block_size")
    channel = stated.get("axis")
    if channel is None and channels.ndim == blocks.ndim and np.max(channels.shape) > 1:
        channel = int(np.argmax(channels.shape))
    scale_bits = max(bit_width(dtype), int(np.max(blocks) - 1).bit_length())
    return Entry(given["name"], at, bit_width(dtype), "block", dtype=dtype, symmetric=True, scale=blocks,
                 zero=_zero(given, dtype, at), axis=channel, block_axis=given["axis"],
                 block_size=given["block_size"], scale_bits=min(scale_bits, 16), channel_scale=channels)  # fmt: skip


def document(
    activations: Mapping[str, Encoding],
    parameters: Mapping[str, Encoding],
    settings: Mapping[str, Any],
    version: str,
) -> dict[str, Any]:
    """The document of version 2.0.0 or 2.1.0; 16-bit float tensors have no entry there."""
    found = {**activations, **parameters}
    listed = [(name, e) for name, e in found.items() if not (isinstance(e, FloatEncoding) and e.bits == 16)]
    objects = [described(name, encoding, version) for name, encoding in listed]
    return {"producer": _producer(), "version": version, "encodings": objects, **settings}


def _producer() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as version_of

    try:
        return {"package": "qir", "version": version_of("qir")}
    except PackageNotFoundError:  # a checkout that nobody installed
        return {"package": "qir", "version": "unknown"}


def described(name: str, encoding: Encoding, version: str) -> dict[str, Any]:
    """The object for one calibrated encoding."""
    assert encoding.scale is not None
    made: dict[str, Any] = {"name": name, "output_dtype": _dtype_name(encoding)}
    if isinstance(encoding, LowPowerEncoding):
        blocks, channels = low_power_factors(encoding, name)
        if version == "2.0.0":
            made |= {"per_block_int_scale": blocks.tolist(), "per_channel_float_scale": _plain(channels)}
        else:
            axis = {} if encoding.axis is None else {"axis": encoding.axis}
            flat = channels.reshape(()) if encoding.axis is None else channels.reshape(-1)
            made["y_scale"] = {"x": blocks.tolist(), "x_scale": _plain(flat), **axis}
    else:
        made["y_scale"] = _plain(encoding.scale)
    if encoding.zero_point is not None and np.any(encoding.zero_point):
        made["y_zero_point"] = encoding.zero_point.astype(np.int64).tolist()
    axis_stated = encoding.axis if encoding.block_axis is None else encoding.block_axis
    made |= {} if axis_stated is None else {"axis": axis_stated}
    return made | ({} if encoding.block_size is None else {"block_size": encoding.block_size})


def _dtype_name(encoding: Encoding) -> str:
    if isinstance(encoding, FloatEncoding):
        return FLOATS[encoding.dtype]
    return f"{'u' if encoding.dtype[0] == 'u' else ''}int{encoding.bits}"


def _plain(scale: np.ndarray) -> Any:
    """The numbers as Python floats: each prints as the shortest text that reads as the same double."""
    return scale.astype(np.float64).tolist()
