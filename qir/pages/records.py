"""What a page says of a graph, as plain data: a record for every input, operation and output, in topological order."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, ProductEncoding
from qir.errors import Loc
from qir.facts import is_quantizer
from qir.graph import Graph, Node, Value
from qir.quantizers import quantizer_of
from qir.text.encodings import write_encoding
from qir.text.printing import INLINE, attribute
from qir.traits import MovesData, Shapes, Views
from qir.types import ScalarType, TensorType, bit_width

LONGEST = 2000
"""A text with more characters is cut."""

MOST_SCALES = 512
"""So many scales of one encoding are listed at most."""

Data = dict[str, Any]


def cut(text: str) -> str:
    """The text, or its beginning and its length."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


def markup(text: str) -> str:
    """The text as HTML and XML take it: no characters that XML forbids, none that would be markup."""
    return escape(re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text))


class Table:
    """Rows that others refer to by number: each thing has one."""

    def __init__(self, describe: Callable[[Any], Any]) -> None:
        self.describe = describe
        self.rows: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, thing: Any) -> int:
        """The row of `thing`."""
        if thing not in self._numbers:
            self._numbers[thing] = -1
            row = self.describe(thing)
            self._numbers[thing] = len(self.rows)
            self.rows.append(row)
        return self._numbers[thing]


@dataclass
class Tables:
    """What the records of several graphs share: encodings and weights by identity, lines by their text."""

    encodings: Table = field(default_factory=lambda: Table(_encoding))
    weights: Table = field(default_factory=lambda: Table(_weight))
    lines: Table = field(default_factory=lambda: Table(_line))

    def data(self) -> Data:
        """All rows."""
        return {"encodings": self.encodings.rows, "weights": self.weights.rows, "lines": self.lines.rows}


def kind_of(node: Node) -> str:
    """How a node is drawn: `quantizer`, `integer`, `float`, `move` or `opaque`.

    A `quantizer` puts a tensor on a grid, or writes floats as narrow integers or those as floats. What is `integer`
    reads or writes narrow integers, or has quantizers around it so that a target may compute it with them; `move`
    computes with shapes or moves data.
    """
    if is_quantizer(node) or _converts(node):
        return "quantizer"
    if node.definition.opaque:
        return "opaque"
    values = [value for value in (*node.operands, *node.results) if value is not None]
    if any(_is_narrow(value) for value in values):
        return "integer"
    if any(node.definition.trait(kind) for kind in (Shapes, MovesData, Views)):
        return "move"
    if all(isinstance(value.type, ScalarType) for value in node.results):
        return "move"
    computed = [value for value in node.operands if value is not None and value.weight is None]
    if computed and all(quantizer_of(value) or _ends_kernel(node, value) for value in computed):
        return "integer"
    return "float"


def _ends_kernel(node: Node, value: Value) -> bool:
    """Whether `node` alone reads what was made of quantized tensors, and quantizers alone read what it makes of it."""
    before = value.node
    operands = [] if before is None else [operand for operand in before.operands if operand is not None]
    return (
        len(value.uses) == 1
        and bool(operands)
        and all(operand.weight is not None or quantizer_of(operand) for operand in operands)
        and all(is_quantizer(use.node) for result in node.results for use in result.uses)
        and any(result.uses for result in node.results)
    )


def _converts(node: Node) -> bool:
    """Whether its first result is narrow integers and its first operand floats, or the other way round."""
    ends = [values[0] for values in (node.operands, node.results) if values and values[0] is not None]
    return len(ends) == 2 and any(map(_is_narrow, ends)) and any(map(is_float, ends))


def _is_narrow(value: Value) -> bool:
    dtype = value.type.dtype if isinstance(value.type, TensorType) else None
    return dtype is not None and dtype[0] in "iu" and bit_width(dtype) <= 16


def is_float(value: Value) -> bool:
    """Whether it is a tensor of floats that are not narrower than 16 bits."""
    return isinstance(value.type, TensorType) and value.type.dtype in ("f16", "bf16", "f32", "f64")


def record(node: Node, names: Mapping[Value, str], tables: Tables) -> Data:
    """Everything about one operation."""
    encoding = node.attrs.get("encoding")
    is_grid = isinstance(encoding, Encoding)
    made: Data = {
        "name": names[node.result] if node.results else node.op,
        "op": node.op,
        "kind": kind_of(node),
        "path": node.module or node.scope,
        "attrs": [
            [name, cut(_shown(value))]
            for name, value in sorted(node.attrs.items())
            if not (is_grid and value is encoding)
        ],
        "reads": [None if value is None else _read(value, names, tables) for value in node.operands],
        "gives": [[names[value], str(value.type)] for value in node.results],
        "lines": [tables.lines.number(loc) for loc in node.locs],
    }
    if is_grid:
        made["encoding"] = tables.encodings.number(encoding)
    if node.definition.opaque:
        made["opaque"] = node.why_opaque or "nothing lowers it yet"
    return made


def border(value: Value, names: Mapping[Value, str], tables: Tables, kind: str) -> Data:
    """The record of an input or output of the graph."""
    read = [_read(value, names, tables)] if kind == "output" else []
    gives = [[names[value], str(value.type)]] if kind == "input" else []
    return {
        "name": names[value],
        "op": kind,
        "kind": kind,
        "path": "",
        "attrs": [],
        "reads": read,
        "gives": gives,
        "lines": [],
    }


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, Graph) else attribute(value)


def _read(value: Value, names: Mapping[Value, str], tables: Tables) -> Data:
    if value.weight is None:
        return {"name": names[value], "type": str(value.type)}
    if (constant := value.literal) is not None and np.size(constant) <= INLINE:
        return {"literal": cut(f"{constant!r}: {value.type}")}
    return {"name": names[value], "type": str(value.type), "weight": tables.weights.number(value.weight)}


def _line(loc: Loc) -> Data:
    """A line of the user's code; its text only if it is Python's, as a page is shared and a model may name any file."""
    text = cut(loc.source) if loc.file.endswith(".py") else ""
    return {"file": loc.file, "line": loc.line, "scope": loc.scope, "text": text}


def _weight(weight: Any) -> Data:
    found: Data = {"paths": list(weight.paths), "trainable": weight.trainable}
    if weight.data is None:
        return found
    array = np.asarray(weight.array)
    found |= {"elements": int(array.size), "bytes": int(array.nbytes)}
    if array.size and array.dtype.kind in "fiu":
        found |= {"low": finite(array.min()), "high": finite(array.max())}
    return found


def finite(number: Any) -> float | None:
    """The number as JSON has it: None for NaN and the infinities."""
    return float(number) if np.isfinite(float(number)) else None


def _encoding(encoding: Encoding) -> Data:
    found: Data = {
        "dtype": encoding.dtype,
        "calibrated": encoding.calibrated,
        "text": cut(write_encoding(encoding, None)),
    }
    if isinstance(encoding, ProductEncoding):
        found["scheme"] = "product of two grids"
    elif isinstance(encoding, FloatEncoding):
        found["scheme"] = "float"
    else:
        words = ["symmetric" if encoding.symmetric else "asymmetric", *["narrow"] * encoding.narrow]
        found["scheme"] = " ".join([*words, *["unsigned"] * encoding.unsigned])
    found["for"] = _granularity(encoding)
    if encoding.scale is not None:
        scale = encoding.scale.reshape(-1)
        found |= {"scales": [float(s) for s in scale[:MOST_SCALES]], "count": int(scale.size)}
        found |= {"scale_low": float(scale.min()), "scale_high": float(scale.max())}
        if encoding.zero_point is not None:
            zero = encoding.zero_point.reshape(-1).astype(np.float64)
            found["zero_points"] = [int(z) for z in zero[:MOST_SCALES]]
            found["low"] = finite(((encoding.low - zero) * scale).min())
            found["high"] = finite(((encoding.high - zero) * scale).max())
    return found


def _granularity(encoding: Encoding) -> str:
    if encoding.block_axis is not None:
        return f"blocks of {encoding.block_size} along axis {encoding.block_axis}"
    return "tensor" if encoding.axis is None else f"channel, axis {encoding.axis}"
