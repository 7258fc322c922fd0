"""Encodings files of versions 0.4.0 to 0.6.1: a list of grids for each tensor, one grid for each channel.

Also the two relatives of that form: `<prefix>_torch.encodings`, which names activations by layer, side and port, and
AdaRound's file, a flat object of parameters without a version. Grids that this version has no place for (blocks, 8-bit
floats) stand in `<prefix>_torch.encodings` as objects of version 2.1.0 without a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qir.encodings import format_2
from qir.encodings.encoding import Encoding, FloatEncoding
from qir.encodings.entry import Entry, Granularity, zero_steps
from qir.errors import QirError
from qir.json_documents import check_schema, floats, integers, member, refuse


def is_flat(document: Mapping[str, Any]) -> bool:
    """Whether this is an AdaRound file: parameters by name, at the top."""
    return bool(document) and all(isinstance(grids, list) for grids in document.values())


def flat_entries(document: Mapping[str, Any]) -> Iterator[Entry]:
    """The entries of an AdaRound file."""
    check_schema({"version": "0.6.1", "activation_encodings": {}, "param_encodings": dict(document)}, "encodings-0.6.1")
    yield from _parameters(document, "$")


def entries(document: Mapping[str, Any]) -> Iterator[Entry]:
    """The entries of a document that follows the schema."""
    for name, given in document["activation_encodings"].items():
        at = member("$.activation_encodings", name)
        if isinstance(given, list):
            yield _entry(name, given, at, parameter=False)
            continue
        for side, ports in given.items():
            for port, grids in ports.items():
                plain = isinstance(grids, list) or "output_dtype" in grids
                found = grids if plain else [grids]
                yield _entry(layer_port(name, side, port), found, member(member(at, side), port), parameter=False)
    yield from _parameters(document["param_encodings"], "$.param_encodings")


def layer_port(layer: str, side: str, port: int | str) -> str:
    """The name of an operand (`input`) or result (`output`) of a layer, in place of a tensor's name."""
    return f"{layer}:{side}:{port}"


def _parameters(grids: Mapping[str, Any], at: str) -> Iterator[Entry]:
    for name, given in grids.items():
        yield _entry(name, given, member(at, name), parameter=True)


def _entry(name: str, grids: Sequence[Mapping[str, Any]] | Mapping[str, Any], at: str, parameter: bool) -> Entry:
    if isinstance(grids, Mapping):
        return replace(format_2.entry({**grids, "name": name}, at), parameter=parameter)
    kinds = {(grid["bitwidth"], grid.get("dtype", "int"), str(grid.get("is_symmetric"))) for grid in grids}
    if len(kinds) > 1:
        refuse(at, "the channels of a tensor share bitwidth, dtype and is_symmetric")
    ((bits, kind, symmetric),) = kinds
    per: Granularity = "tensor" if len(grids) == 1 else "channel"
    if kind == "float":
        return Entry(name, at, bits, "tensor", floating=True, parameter=parameter)
    found = [_scale_and_offset(grid, f"{at}[{position}]") for position, grid in enumerate(grids)]
    known = [pair for pair in found if pair is not None]
    if len(known) not in (0, len(found)):
        refuse(at, "some channels have a scale and others none")
    return Entry(
        name, at, bits, per, parameter=parameter,
        symmetric=None if symmetric == "None" else symmetric == "True",
        scale=np.array([scale for scale, _ in known], np.float32) if known else None,
        zero=np.array([-offset for _, offset in known], np.int64) if known else None,
    )  # fmt: skip


def _scale_and_offset(grid: Mapping[str, Any], at: str) -> tuple[float, int] | None:
    """Scale and offset, computed from min and max where they are not given; None when neither is there."""
    if "scale" in grid and "offset" in grid:
        return float(floats(grid["scale"], f"{at}.scale")), int(integers(grid["offset"], f"{at}.offset"))
    if "min" not in grid or "max" not in grid:
        if {"scale", "offset", "min", "max"} & set(grid):
            refuse(at, "half of a grid", "give scale and offset, or min and max")
        return None
    low, high = float(floats(grid["min"], f"{at}.min")), float(floats(grid["max"], f"{at}.max"))
    strict = str(grid.get("is_symmetric")) == "True" and low == -high
    scale = (high - low) / (2 ** grid["bitwidth"] - 1 - strict)
    if not low <= 0 <= high or scale <= 0:
        refuse(at, "min and max do not enclose zero")
    return float(np.float32(scale)), int(np.rint(low / scale))


def document(
    activations: Mapping[str, Encoding], parameters: Mapping[str, Encoding], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The document of version 0.6.1."""
    return {
        "version": "0.6.1",
        "activation_encodings": {name: grids(name, encoding) for name, encoding in activations.items()},
        "param_encodings": {name: grids(name, encoding) for name, encoding in parameters.items()},
        **settings,
    }


def torch_document(
    activations: Mapping[tuple[str, str, int], Encoding],
    parameters: Mapping[str, Encoding],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The document of `<prefix>_torch.encodings`: activations by layer, `input` or `output`, and port."""
    layers: dict[str, dict[str, dict[str, Any]]] = {}
    for (layer, side, port), encoding in activations.items():
        made = _any_grids(layer_port(layer, side, port), encoding)
        single = isinstance(made, list) and len(made) == 1
        layers.setdefault(layer, {}).setdefault(side, {})[str(port)] = made[0] if single else made
    weights = {name: _any_grids(name, encoding) for name, encoding in parameters.items()}
    return document({}, {}, settings) | {"activation_encodings": layers, "param_encodings": weights}


def _any_grids(name: str, encoding: Encoding) -> Any:
    """The grids of one tensor, or the object of version 2.1.0 where they have no place here."""
    if encoding.block_axis is None and not (isinstance(encoding, FloatEncoding) and encoding.bits == 8):
        return grids(name, encoding)
    described = format_2.described(name, encoding, "2.1.0")
    return {key: value for key, value in described.items() if key != "name"}


def grids(name: str, encoding: Encoding) -> list[dict[str, Any]]:
    """The grids of one tensor. Raises QirError for those that the version has no place for."""
    if isinstance(encoding, FloatEncoding):
        if encoding.bits != 16:
            raise _no_place(name, "the scale of an 8-bit float grid", "2.0.0")
        return [{"bitwidth": 16, "dtype": "float"}]
    if encoding.block_axis is not None:
        raise _no_place(name, "a grid in blocks", "1.0.0")
    assert encoding.scale is not None
    steps = 2**encoding.bits - 1 - (encoding.symmetric and encoding.narrow)
    return [
        {
            "bitwidth": encoding.bits,
            "dtype": "int",
            "is_symmetric": str(encoding.symmetric),
            "max": float(scale) * (steps - int(zero)),
            "min": float(scale) * -int(zero),
            "offset": -int(zero),
            "scale": float(scale),
        }
        for scale, zero in zip(encoding.scale.reshape(-1), zero_steps(encoding).reshape(-1), strict=True)
    ]


def _no_place(name: str, what: str, version: str) -> QirError:
    return QirError(f"version 0.6.1 of encodings files has no place for {what}, which {name} has",
                    stage="encodings", help=f"write version {version}")  # fmt: skip
