"""Checkpoints: a simulator in one safetensors file, as graph text, tensors and settings. Nothing in it is executed.

The file's metadata holds the graph's text, with its encodings, and the settings as JSON; its tensors are the state of
the module and what else the graph needs. It is a weights file of that graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from qir.encodings.encoding import Encoding, ProductEncoding
from qir.errors import QirError
from qir.graph import Graph
from qir.json_documents import check_schema, parse_object
from qir.quantizers import quantizers, replace_encodings
from qir.text.parsing import parse
from qir.types import TensorType, parse_type, type_of
from qir.weights_file import WeightsFile, attach_weights, weight_arrays, write_tensors

FORMAT = "qir.checkpoint.1"


@dataclass(frozen=True)
class Checkpoint:
    """A graph with its weights, the state of the module that was emitted from it, and how the module is set.

    Names of `state` that mean one tensor hold the same array. `extra` is the caller's, of what JSON can hold.
    """

    graph: Graph
    state: Mapping[str, np.ndarray]
    module: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)


def write_checkpoint(path: str | Path, checkpoint: Checkpoint) -> None:
    """Write one file, whole or not at all. Raises QirError for extras that JSON has no place for."""
    arrays: dict[str, np.ndarray] = {}
    aliases: dict[str, str] = {}
    first: dict[int, str] = {}
    for key, array in checkpoint.state.items():
        if first.setdefault(id(array), key) == key:
            arrays[key] = array
        else:
            aliases[key] = first[id(array)]
    settings = {
        "types": {key: str(type_of(array)) for key, array in arrays.items()},
        "aliases": aliases,
        "module": dict(checkpoint.module),
        "extra": dict(checkpoint.extra),
    }
    try:
        text = json.dumps(settings, allow_nan=False)
        parse_object(text, str(path))
    except (TypeError, ValueError, RecursionError) as error:
        raise QirError(f"the settings of the checkpoint can not be written as JSON: {error}") from None
    metadata = {"format": FORMAT, "graph": str(checkpoint.graph), "settings": text}
    others = {key: array for key, array in weight_arrays(checkpoint.graph).items() if key not in checkpoint.state}
    write_tensors(Path(path), {**others, **arrays}, metadata)


def read_checkpoint(path: str | Path, graph: Graph | None = None) -> Checkpoint:
    """The checkpoint in a file; its arrays are mapped into memory.

    The graph is read from the file's text; with `graph`, the one that was saved, it is a copy of that, which also holds
    what text has no place for. Raises QirError for a file that is no checkpoint, is cut short or damaged, or holds
    another graph than `graph`.
    """
    path = Path(path)
    file = WeightsFile.open(path)
    metadata = file.metadata
    if metadata.get("format") != FORMAT or not all(isinstance(metadata.get(key), str) for key in ("graph", "settings")):
        raise QirError(f"{path} is no checkpoint", help="write one with save_checkpoint")
    settings = parse_object(metadata["settings"], str(path))
    check_schema(settings, "checkpoint")
    saved = _parsed(metadata["graph"], path)
    attach_weights(saved, path)
    state: dict[str, np.ndarray] = {}
    for key, text in settings["types"].items():
        state[key] = _array(file, key, text, path)
    for key, of in settings["aliases"].items():
        if of not in state or key in state:
            damaged(path, f"{key} stands for {of}")
        state[key] = state[of]
    return Checkpoint(
        saved if graph is None else _filled(graph, saved, path), state, settings["module"], settings["extra"]
    )


def _parsed(text: str, path: Path) -> Graph:
    try:
        return parse(text)
    except QirError as error:
        damaged(path, error.message)


def _array(file: WeightsFile, key: str, text: str, path: Path) -> np.ndarray:
    try:
        type = parse_type(text)
    except ValueError as error:
        damaged(path, str(error))
    if key not in file.header or key == "__metadata__" or not isinstance(type, TensorType) or type.static is None:
        damaged(path, f"it does not hold {key}")
    return file.array(key, type)


def damaged(path: str | Path, why: str) -> NoReturn:
    """Raise QirError for a file that is no checkpoint as they are written."""
    raise QirError(f"the checkpoint {path} is damaged: {why}", help="write it again with save_checkpoint")


def _filled(graph: Graph, saved: Graph, path: Path) -> Graph:
    """A copy of `graph` with the encodings and weights of `saved`, which is the same but for those."""
    copy = graph.copy()
    if _outline(copy) != _outline(saved):
        raise QirError(f"the checkpoint {path} is of another model, or of another placement of quantizers",
                       help="make the simulator as it was made for the checkpoint")  # fmt: skip
    for node, other in zip(quantizers(copy), quantizers(saved), strict=True):
        node.attrs["encoding"] = other.attrs["encoding"]
    for value, twin in zip(copy.weights(), saved.weights(), strict=True):
        if value.weight is not None and twin.weight is not None:
            value.weight = replace(twin.weight, known_digest=None)
    return copy


def _outline(graph: Graph) -> list[str]:
    """The lines of the graph's text without what training and calibration change: hashes, and numbers of encodings."""
    copy = graph.copy()
    old = {node.attrs["encoding"] for node in quantizers(copy)}
    old |= {factor for grid in old if isinstance(grid, ProductEncoding) for factor in (grid.input, grid.weight)}
    replace_encodings(copy, {grid: Encoding("u8") for grid in old if not isinstance(grid, ProductEncoding)})
    for value in copy.weights():
        if value.weight is not None and (value.weight.paths or value.weight.data is None):
            value.weight = replace(value.weight, data=None, known_digest="0" * 16)
    return str(copy).splitlines()
