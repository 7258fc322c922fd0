"""Runs as files: a model, data, passes, a target and what to write, in a small TOML that `qir run` executes.

    qir-run = 1                                   # the number of the format
    model = "net.onnx"                            # or "package.module:function", which returns a torch module
    data = "images.npz"                           # or a folder, or "package.module:function", which yields batches
    target = "ort-x86-vnni"
    seed = 0
    threads = 1
    passes = ["fold-batch-norm", "insert-quantizers{per_channel=false}", "calibrate"]

    [outputs]
    onnx = "net.int8.onnx"

    [versions]                                    # of what it was written with
    onnx = "1.23.2"

    [hashes]                                      # of what it read
    model = "0123456789abcdef"

All but the first two lines may be left out; without `passes`, the run is that of `qir.quantize`. Files are named from
the folder of the TOML. What a run writes holds this text, with all passes, versions and hashes, so that it can be
written again: ONNX files in their metadata, JSON files under `qir-run`, pages at their end.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from html import escape, unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qir.errors import QirError
from qir.placement.options import DEFAULT_TARGET
from qir.runs.versions import versions

if TYPE_CHECKING:
    import onnx

FORMAT = 1
"""The number of the format."""

METADATA = "qir.run"
"""The key of the run in the metadata of an ONNX file."""

JSON_KEY = "qir-run"
"""The key of the run in a JSON file."""

OUTPUTS = {
    "onnx": ".onnx",
    "encodings": ".encodings",
    "graph": ".qir",
    "report": ".json",
    "certificate": ".json",
    "page": ".html",
    "latency": ".json",
}
"""What a run can write, and the ending of its name. All but `latency` are the same for every run, to the byte."""

STRINGS = ("model", "data", "target")
TABLES = ("outputs", "versions", "hashes")
KEYS = ("qir-run", *STRINGS, "seed", "threads", "passes", *TABLES)


@dataclass(frozen=True)
class Run:
    """A run. `passes` is None for those of `qir.quantize`; `hashes` are of what an earlier execution read."""

    model: str
    data: str | None = None
    target: str = DEFAULT_TARGET
    seed: int = 0
    threads: int = 1
    passes: tuple[str, ...] | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> Run:
        """The run in a TOML file. Raises QirError for what can not be read, and for what is no run."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise QirError(f"can not read {path}: {error}", help="give a TOML file") from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, where: str = "the run") -> Run:
        """The run that is written as `text`. Raises QirError, naming `where`, for what is none."""
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise QirError(f"{where} is no TOML: {error}", stage="run") from None
        _check(document, where)
        passes = document.get("passes")
        plain = {key: document[key] for key in (*STRINGS, "seed", "threads", *TABLES) if key in document}
        return cls(**plain, passes=None if passes is None else tuple(passes))

    def __str__(self) -> str:
        """The text that is read as this run."""
        lines = [f"qir-run = {FORMAT}", f"model = {_quoted(self.model)}"]
        lines += [] if self.data is None else [f"data = {_quoted(self.data)}"]
        lines += [f"target = {_quoted(self.target)}", f"seed = {self.seed}", f"threads = {self.threads}"]
        if self.passes is not None:
            lines += ["passes = [", *(f"  {_quoted(text)}," for text in self.passes), "]"]
        for name in TABLES:
            table: Mapping[str, str] = getattr(self, name)
            lines += ["", f"[{name}]", *(f"{_key(key)} = {_quoted(table[key])}" for key in table)] if table else []
        return "\n".join(lines) + "\n"

    def other_versions(self) -> list[str]:
        """What is installed in another version than the run names, each with both."""
        now = versions()
        return [f"{name} {now.get(name, 'not installed')} instead of {wanted}"
                for name, wanted in self.versions.items() if now.get(name) != wanted]  # fmt: skip


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quoted(name)


def _check(document: Mapping[str, Any], where: str) -> None:
    """Raise QirError unless the document is that of a run."""
    if document.get("qir-run") != FORMAT:
        raise _wrong(f"{where} does not begin with qir-run = {FORMAT}", "write it: it is the number of the format")
    _known(document, KEYS, where, "key")
    if "model" not in document:
        raise _wrong(f"{where} has no model", 'write model = "net.onnx", or model = "package.module:function"')
    for key in STRINGS:
        if not isinstance(document.get(key, ""), str):
            raise _wrong(f"{key} in {where} is no string", f'write {key} = "…"')
    for key, lowest, highest in (("seed", 0, 2**32 - 1), ("threads", 1, 1024)):
        number = document.get(key, lowest)
        if not isinstance(number, int) or isinstance(number, bool) or not lowest <= number <= highest:
            raise _wrong(f"{key} in {where} is {number!r}", f"write a number from {lowest} to {highest}")
    passes = document.get("passes", [])
    if not isinstance(passes, list) or not all(isinstance(text, str) for text in passes):
        raise _wrong(f"the passes in {where} are no list of strings", 'write passes = ["fold-batch-norm", "calibrate"]')
    for name in TABLES:
        table = document.get(name, {})
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise _wrong(f"{name} in {where} is no table of strings", f'write [{name}], and below it name = "…"')
    outputs = document.get("outputs", {})
    _known(outputs, tuple(OUTPUTS), where, "output")
    for key, name in outputs.items():
        if Path(name).suffix != OUTPUTS[key]:
            raise _wrong(f"the output {key} in {where} is {name!r}", f"let its name end in {OUTPUTS[key]}")
    if len(set(outputs.values())) < len(outputs):
        raise _wrong(f"two outputs in {where} have one name", "give each a name of its own")


def _known(table: Mapping[str, Any], known: tuple[str, ...], where: str, what: str) -> None:
    for key in table:
        if key not in known:
            near = get_close_matches(key, known, 1)
            help = f"did you mean {near[0]!r}?" if near else f"it may have: {', '.join(known)}"
            raise _wrong(f"{where} has the unknown {what} {key!r}", help)


def _wrong(message: str, help: str) -> QirError:
    return QirError(message, stage="run", help=help)


# -- runs in what they wrote -----------------------------------------------------------------------------------------


def in_page(page: str, run: Run) -> str:
    """The page with the run at its end."""
    shown = f'<details><summary>How this was made</summary><pre id="{JSON_KEY}">{escape(str(run))}</pre></details>'
    return page.replace("</body>", f"{shown}</body>", 1)


def embedded(path: str | Path) -> tuple[str, Run]:
    """Which output of a run the file is, and the run. Raises QirError for a file that holds none."""
    path = Path(path)
    try:
        text = _metadata(path) if path.suffix == ".onnx" else _written(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise QirError(f"can not read {path}: {error}", help="give a file that `qir run` wrote") from None
    if text is None:
        raise QirError(f"{path} does not say how it was made", stage="run",
                       help="give an ONNX file, a JSON file or a page that `qir run` wrote")  # fmt: skip
    run = Run.parse(text, f"the run in {path}")
    found = [key for key, name in run.outputs.items() if Path(name).name == path.name]
    if not found:
        names = ", ".join(run.outputs.values())
        raise QirError(f"the run in {path} writes no file of this name", stage="run", help=f"it writes {names}")
    return found[0], run


def _metadata(path: Path) -> str | None:
    """What the metadata of an ONNX file say; its external data are not read."""
    import onnx

    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's and the file system's errors share no base class
        raise QirError(f"can not read {path}: {error}", help="give a file that `qir run` wrote") from None
    return metadata_of(model)


def metadata_of(model: onnx.ModelProto) -> str | None:
    """The text of the run that made an ONNX model, where its metadata have one."""
    return next((entry.value for entry in model.metadata_props if entry.key == METADATA), None)


def _written(text: str) -> str | None:
    """What a JSON file or a page says."""
    page = re.search(rf'<pre id="{JSON_KEY}">(.*?)</pre>', text, re.DOTALL)
    if page:
        return unescape(page[1])
    try:
        document = json.loads(text)
    except ValueError:
        return None
    run = document.get(JSON_KEY) if isinstance(document, dict) else None
    return run if isinstance(run, str) else None
