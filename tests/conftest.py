"""Collects golden/*.qir: what a pipeline makes of a graph, or why it refuses.

    // pipeline: lift-functionals,unroll-modules
    // One sentence: what is promised.
    // ----
    graph @before(...) { ... }
    // ----
    graph @after(...) { ... }

The pipeline is composed for the graph before, so the facts that it holds need no pass. In the place of the last part a
refusal has `// error:` and below it lines, each of which stands in the message. `pytest --update-golden` rewrites
the last part.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("KERAS_HOME", str(Path(tempfile.gettempdir()) / "qir-keras"))

MARK = "// ----\n"
ERROR = "// error:\n"


class Mismatch(Exception):
    """The pipeline did not do what the file says."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite what the golden files expect")


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    return GoldenFile.from_parent(parent, path=file_path) if file_path.suffix == ".qir" else None


class GoldenFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        yield Golden.from_parent(self, name=self.path.stem)


class Golden(pytest.Item):
    def runtest(self) -> None:
        head, before, expected = split(self.path.read_text())
        if expected.startswith(ERROR) or (not expected and refuses(head, before)):
            actual = self.refusal(head, before, expected)
        else:
            actual = transformed(head, before)
        if self.config.getoption("--update-golden"):
            self.path.write_text(MARK.join([head, before, actual]))
        elif actual != expected:
            lines = difflib.unified_diff(expected.splitlines(True), actual.splitlines(True), "expected", "actual")
            raise Mismatch(f"{''.join(lines)}\npytest --update-golden rewrites the file")

    def refusal(self, head: str, before: str, expected: str) -> str:
        """What the last part should be: `expected` if each of its lines stands in the error."""
        from qir import QirError

        try:
            transformed(head, before)
        except QirError as error:
            said = [line.strip() for line in str(error).splitlines()]
        else:
            raise Mismatch(f"the pipeline was to refuse this graph, with:\n{expected}")
        wanted = [line.strip() for line in expected.removeprefix(ERROR).splitlines()]
        if wanted and all(any(line in part for part in said) for line in wanted):
            return expected
        return ERROR + "".join(f"{line}\n" for line in said)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return str(excinfo.value) if excinfo.errisinstance(Mismatch) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.path.name


def split(text: str) -> tuple[str, str, str]:
    """Header, graph before, and what is expected of it (nothing in a new file)."""
    head, *parts = text.split(MARK)
    if not head.startswith("// pipeline:") or len(parts) not in (1, 2):
        raise Mismatch("a golden file is '// pipeline: …' and a sentence, '// ----', a graph, '// ----', a graph")
    if len(head.splitlines()) < 2:
        raise Mismatch("below '// pipeline: …' a sentence says what is promised")
    return head, parts[0], parts[1] if len(parts) == 2 else ""


def refuses(head: str, before: str) -> bool:
    from qir import QirError

    try:
        transformed(head, before)
    except QirError:
        return True
    return False


def transformed(head: str, before: str) -> str:
    """The text of the graph after the pipeline; both graphs are verified and survive printing and parsing."""
    from qir.pipeline import Pipeline
    from qir.watch import Verify

    graph = checked(before)
    pipeline = Pipeline.parse(head.splitlines()[0].removeprefix("// pipeline:").strip(), given=graph)
    pipeline.run(graph, watch=[Verify()])
    text = f"{graph}\n"
    checked(text)
    return text


def checked(text: str) -> Any:
    """The graph that `text` is; it is valid and prints to what reads as itself."""
    from qir import parse
    from qir.verify import verify

    graph = parse(text)
    verify(graph)
    if parse(str(graph)) != graph:
        raise Mismatch(f"printing what was parsed changed it:\n{graph}")
    return graph
