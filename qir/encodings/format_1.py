"""Encodings files of version 1.0.0: a list of objects, scales and offsets as flat lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding
from qir.encodings.entry import Entry, low_power_factors, zero_steps
from qir.errors import QirError
from qir.json_documents import floats, integers, refuse

GRANULARITIES: Mapping[str, Any] = {
    "PER_TENSOR": "tensor", "PER_CHANNEL": "channel", "PER_BLOCK": "block", "LPBQ": "block",
}  # fmt: skip


def entries(document: Mapping[str, Any]) -> Iterator[Entry]:
    """The entries of a document that follows the schema."""
    for section in ("activation_encodings", "param_encodings"):
        for position, given in enumerate(document[section]):
            yield _entry(given, f"$.{section}[{position}]", section == "param_encodings")


def _entry(given: Mapping[str, Any], at: str, parameter: bool) -> Entry:
    name, bits, per = given["name"], given["bw"], GRANULARITIES[given["enc_type"]]
    if given["dtype"] == "FLOAT":
        return Entry(name, at, bits, "tensor", floating=True, parameter=parameter)
    if np.any(floats(given["zero_point_shift"], f"{at}.zero_point_shift") if given.get("zero_point_shift") else 0):
        refuse(f"{at}.zero_point_shift", "fractional zero points are not supported")
    scale, offset = floats(given["scale"], f"{at}.scale"), integers(given["offset"], f"{at}.offset")
    if scale.ndim != 1 or offset.ndim != 1:
        refuse(at, "scale and offset are flat lists")
    if per == "tensor" and scale.size != 1:
        refuse(at, f"a PER_TENSOR grid has one scale, not {scale.size}")
    if given["enc_type"] == "LPBQ":
        return _low_power(given, at, parameter, scale, offset)
    return Entry(name, at, bits, per, parameter=parameter, symmetric=given["is_sym"], scale=scale, zero=-offset,
                 block_size=given.get("block_size") if per == "block" else None)  # fmt: skip


def _low_power(given: Mapping[str, Any], at: str, parameter: bool, scale: np.ndarray, offset: np.ndarray) -> Entry:
    """A low-power grid: `bw` and `offset` are those of the integers times the scales of their blocks."""
    bits, scale_bits = given["compressed_bw"], given["bw"] - given["compressed_bw"]
    blocks = integers(given["per_block_int_scale"], f"{at}.per_block_int_scale")
    if not given["is_sym"] or np.any(offset != -(2 ** (given["bw"] - 1))):
        refuse(at, "a low-power grid is symmetric, with its zero in the middle of bw bits")
    if not 1 <= scale_bits <= 16 or np.any(blocks < 1) or np.any(blocks > 2**scale_bits):
        refuse(at, "per_block_int_scale holds integers from 1 to 2^(bw - compressed_bw)")
    return Entry(given["name"], at, bits, "block", parameter=parameter, symmetric=True, scale=blocks,
                 zero=np.array([2 ** (bits - 1)]), block_size=given["block_size"], scale_bits=scale_bits,
                 channel_scale=scale)  # fmt: skip


def document(
    activations: Mapping[str, Encoding], parameters: Mapping[str, Encoding], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The document of version 1.0.0."""
    return {
        "version": "1.0.0",
        "activation_encodings": [_described(name, encoding) for name, encoding in activations.items()],
        "param_encodings": [_described(name, encoding) for name, encoding in parameters.items()],
        **settings,
    }


def _described(name: str, encoding: Encoding) -> dict[str, Any]:
    if isinstance(encoding, FloatEncoding):
        if encoding.bits != 16:
            raise QirError(f"version 1.0.0 of encodings files has no place for the scale of an 8-bit float grid, "
                           f"which {name} has", stage="encodings", help="write version 2.0.0")  # fmt: skip
        return {"name": name, "bw": 16, "dtype": "FLOAT", "enc_type": "PER_TENSOR"}
    assert encoding.scale is not None
    made: dict[str, Any] = {"name": name, "bw": encoding.bits, "dtype": "INT", "is_sym": encoding.symmetric}
    if encoding.block_axis is None:
        made["enc_type"] = "PER_TENSOR" if encoding.axis is None else "PER_CHANNEL"
    else:
        made |= {"enc_type": "PER_BLOCK", "block_size": encoding.block_size}
    if isinstance(encoding, LowPowerEncoding):
        integers, channels = low_power_factors(encoding, name)
        bits = encoding.bits + encoding.scale_bits
        scale, offset = channels.reshape(-1), np.full(channels.size, -(2 ** (bits - 1)))
        made |= {"enc_type": "LPBQ", "bw": bits, "compressed_bw": encoding.bits,
                 "per_block_int_scale": integers.reshape(-1).tolist()}  # fmt: skip
    else:
        scale, offset = encoding.scale.reshape(-1), -zero_steps(encoding).reshape(-1)
    return made | {"offset": offset.tolist(), "scale": list(map(float, scale))}
