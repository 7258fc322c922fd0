"""The pages are true: their Python runs, their commands print what is shown, their graphs are graphs.

The blocks of a page run in order, in one namespace, in a folder of their own:

* `python` runs. What it prints is shown in the `text` block right below it.
* `console` holds commands of `qir` and `pytest`, each behind `$ `, and everything that they print.
* `qir` is graph text as qir prints it, valid; with a first line `// pipeline: …` it is a golden file.
* A block whose first line is a comment with a file's name, or whose fence has a title, is that file. A
  `pyproject.toml` is installed with its entry points, as `pip install -e .` does it. A title with a folder is a file of
  this repository, and the block is what it holds.

`pytest tests/test_docs.py --update-golden` writes what is printed into the pages, to be read with git diff.
"""

from __future__ import annotations

import linecache
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from qir import onnx_traits, ops, registry
from qir.__main__ import main
from qir.frontends.torch_table import lowers
from qir.placement.targets import target_names
from qir.testing import checked_graph, golden_text
from tools.generated_pages import PAGES as GENERATED

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)(?: title=\"(.*?)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"(?:#|//) (?P<file>[\w.-]+\.(?:py|qir|toml))\n")
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*\n)", re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")


class Block(NamedTuple):
    """A fenced block: its language, the file that it is, its text, and where in the page that begins."""

    language: str
    file: str | None
    text: str
    start: int
    line: int


def blocks(text: str) -> Iterator[Block]:
    for found in FENCE.finditer(text):
        named = NAMED.match(found[3])
        file = found[2] or (named["file"] if named else None)
        yield Block(found[1], file, found[3], found.start(3), text.count("\n", 0, found.start()) + 2)


class Reader:
    """Does what the page says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "page"}
        self.printed = ""

    def follow(self, page: Path) -> Iterator[tuple[Block, str]]:
        """Every block of the page, and what its text should be."""
        for block in blocks(page.read_text()):
            assert not self.printed or block.language == "text", f"above line {block.line} something printed is missing"
            if block.file is not None and "/" in block.file:
                yield block, (ROOT / block.file).read_text()
                continue
            if block.file is not None:
                (self.folder / block.file).write_text(block.text)
            if block.language == "python" and block.file is None:
                self.run(block, page.name)
            elif block.language == "text":
                yield block, self.printed or block.text
                self.printed = ""
            elif block.language == "console":
                yield block, "".join(f"$ {command}{self.type(command)}" for command in COMMAND.findall(block.text))
            elif block.language == "qir":
                yield block, printed_graph(block.text)
            elif block.file == "pyproject.toml":
                install(self.folder)
        assert not self.printed, "the last thing printed is missing"

    def run(self, block: Block, page: str) -> None:
        out = StringIO()
        with redirect_stdout(out), redirect_stderr(StringIO()):
            exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), self.names)
        self.printed = out.getvalue()

    def type(self, command: str) -> str:
        """What a command prints."""
        program, *arguments = shlex.split(command.replace("\\\n", " "))
        if program == "pytest":
            return said_by_pytest(self.folder, arguments)
        assert program == "qir", f"a console block holds commands of qir and pytest, not of {program}"
        out = StringIO()
        with redirect_stdout(out), redirect_stderr(out):
            main(arguments)
        return out.getvalue()


def said_by_pytest(folder: Path, arguments: list[str]) -> str:
    """What pytest prints in the folder, with one time for all machines."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    return re.sub(r" in [\d.]+s( \([\d:]+\))?", " in 0.05s", done.stdout)


def printed_graph(text: str) -> str:
    """What a block of graph text should be."""
    if text.startswith("// pipeline:"):
        return golden_text(text)
    comments = [line for line in text.splitlines() if line.startswith("//")]
    return "\n".join([*comments, str(checked_graph(text))]) + "\n"


def install(folder: Path) -> None:
    """Put the metadata of the project in `folder` beside its modules."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    place = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project.get("entry-points", {}).items()
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in groups]
    (place / "entry_points.txt").write_text("\n".join(lines))
    registry._installed.cache_clear()


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A reader in an empty folder; what the page registers and imports is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_imported", dict(registry._imported))
    monkeypatch.setattr(onnx_traits, "TRAITS", dict(onnx_traits.TRAITS))
    monkeypatch.setattr(lowers, "table", dict(lowers.table))
    yield Reader(tmp_path)
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    registry._installed.cache_clear()
    ops.definition.cache_clear()
    linecache.clearcache()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_does_what_it_shows(page: Path, reader: Reader, request: pytest.FixtureRequest):
    update = request.config.getoption("--update-golden")
    followed = []
    for block, actual in reader.follow(page):
        assert update or block.text == actual, f"{page.name}:{block.line}"
        followed.append((block, actual))
    text = page.read_text()
    for block, actual in reversed(followed):
        text = text[: block.start] + actual + text[block.start + len(block.text) :]
    if update:
        page.write_text(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    text = re.sub("`[^`]*`", "", FENCE.sub("", page.read_text()))
    made = {ROOT / "docs" / "reference" / f"{name}.md" for name in GENERATED}
    links = {link: (page.parent / link).resolve() for link in LINK.findall(text)}
    assert not [link for link, path in links.items() if not path.exists() and path not in made]


def test_the_picture_shows_the_graphs_of_today():
    pytest.importorskip("torch")
    spec = spec_from_file_location("draw", ROOT / "tools" / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    draw = module_from_spec(spec)
    spec.loader.exec_module(draw)
    assert (ROOT / "docs" / "before_after.svg").read_text() == draw.picture(), "run python tools/draw.py"


def test_the_readme_lists_every_pass_and_every_target():
    text = (ROOT / "README.md").read_text()
    listed = re.findall(r"^\| `([a-z-]+)` \|", text, re.MULTILINE)
    assert set(registry.BUILT_IN) <= set(listed)
    for name in (*target_names(), "docs/index.md"):
        assert name in text, f"README.md does not mention {name}"


def test_no_page_names_a_folder_of_one_machine():
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:home|root|tmp|usr|work|opt)/", page.read_text()), page.name
