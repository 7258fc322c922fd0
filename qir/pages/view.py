"""Stages as one self-contained HTML page. Whatever a model is called, its text is data to the page and nothing else."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from qir.pages.layered import BEND, GAP
from qir.pages.modules import BOX, Drawing, Module, Port, drawings, modules_of
from qir.pages.records import Data, markup
from qir.pages.stages import Stage, Stages

FOLDER = Path(__file__).parent / "assets"

SCRIPTS = (
    "data.js",
    "place.js",
    "draw.js",
    "camera.js",
    "detail.js",
    "overview.js",
    "charts.js",
    "search.js",
    "tables.js",
    "main.js",
    "keys.js",
)
"""The page's script, in the order in which it is put together."""


def page(stages: Stages, title: str, extra: Mapping[str, object] | None = None) -> str:
    """The page: everything that it needs is in it, and nothing else runs in it or is loaded.

    `extra` has more of the page's data: `numbers` by the lasting number of an operation, `floats`.
    """
    sizes = {"box": BOX, "bend": BEND, "gap": GAP}
    data = {"title": title, **sizes, **stages.tables.data(), **_stages(stages.stages), **(extra or {})}
    script = "".join(_part(name) for name in SCRIPTS)
    style = _part("colors.css") + _part("page.css")
    parts = {
        "title": markup(title),
        "policy": f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": as_data(data),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _part("page.html"))


def as_data(data: object) -> str:
    """JSON that may stand inside a script element: no character of it can end the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _part(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _stages(stages: Sequence[Stage]) -> Data:
    """All stages; a record or drawing that several have is written once."""
    records: dict[str, int] = {}
    drawn: list[list[Data]] = []
    rows, before = list[Data](), None
    for stage in stages:
        if before is None or (stage.around, stage.reads) != (before.around, before.reads):
            drawn.append(_drawings(stage))
        leaves = [records.setdefault(json.dumps(leaf), len(records)) for leaf in stage.leaves]
        rows.append({
            "title": stage.title, "numerics": stage.numerics, "leaves": leaves, "same": stage.same_as,
            "changed": stage.changed, "notes": stage.notes, "drawing": len(drawn) - 1,
            "reads": [[read.source, *read.readers] for read in stage.reads],
        })  # fmt: skip
        before = stage
    return {"records": [json.loads(text) for text in records], "stages": rows, "drawings": drawn}


def _drawings(stage: Stage) -> list[Data]:
    """The drawings of all modules. Items are leaves from 0 on, modules from -1 down, or ports such as `i3` and `o3`."""
    found = drawings(modules_of(stage.around, stage.reads), stage.reads)
    number = {drawing.module: -1 - position for position, drawing in enumerate(found)}
    kinds = [leaf["kind"] for leaf in stage.leaves]
    return [_drawing(drawing, number, kinds) for drawing in found]


def _drawing(drawing: Drawing, number: Mapping[Module, int], kinds: Sequence[str]) -> Data:
    layers = drawing.layers
    leaves = list(drawing.module.leaves())
    own = [leaf for leaf in leaves if kinds[leaf] != "quantizer"] or leaves[:1]
    items = [
        f"{'i' if item.top else 'o'}{item.value}"
        if isinstance(item, Port)
        else item
        if isinstance(item, int)
        else number[item]
        for item in drawing.items
    ]
    nets = [
        [value, net.source, list(net.targets), trunk]
        for (value, net), trunk in zip(drawing.nets, layers.trunks, strict=True)
    ]
    return {"path": _joined(drawing.module.path), "main": own[0] if len(own) == 1 else None, "size": len(leaves),
            "items": items, "rows": layers.rows, "x": layers.x, "nets": nets}  # fmt: skip


def _joined(path: Sequence[str]) -> str:
    return ("/" if any("." in name for name in path) else ".").join(path)
