"""For the tests of passes: golden files, and the graphs that docstrings show.

A golden file holds a pipeline, a sentence that says what is promised, a graph, and what the pipeline makes of it:

    // pipeline: lift-functionals,unroll-modules
    // One sentence: what is promised.
    // ----
    graph @before(...) { ... }
    // ----
    graph @after(...) { ... }

The pipeline is composed for the graph before, so the facts that it holds need no pass. In the place of the last part a
refusal has `// error:` and below it lines, each of which stands in the message. A new file may leave the last part out.

This module is a pytest plugin: `pytest -p qir.testing --update-golden` rewrites the last part of the golden files that
`check_golden` is called with. A conftest.py with `pytest_plugins = ["qir.testing"]` makes `-p qir.testing` unnecessary.
"""

from __future__ import annotations

import difflib
import inspect
import re
from pathlib import Path
from typing import Any

from qir.errors import QirError
from qir.files import write_text
from qir.graph import Graph
from qir.pipeline import Pass, Pipeline
from qir.text.parsing import parse
from qir.verify import verify
from qir.watch import Verify

MARK = "// ----\n"
ERROR = "// error:\n"
EXAMPLE = re.compile(r"^( *graph @.*?^ *\}) *\n\s*-->([^\n]*)\n( *graph @.*?^ *\})", re.MULTILINE | re.DOTALL)


class Mismatch(AssertionError):
    """The pipeline did not do what the file or the docstring says."""


def pytest_addoption(parser: Any) -> None:
    """The option `--update-golden`."""
    parser.addoption("--update-golden", action="store_true", help="rewrite what the golden files expect")


def check_golden(file: Path, config: Any) -> None:
    """Raise Mismatch, with a diff, unless the pipeline does what the golden file says.

    `config` is pytest's; under `--update-golden` the file is rewritten instead.
    """
    text = file.read_text(encoding="utf-8")
    actual = golden_text(text)
    if actual == text:
        return
    if config.getoption("--update-golden", default=False):
        write_text(file, actual)
        return
    lines = difflib.unified_diff(text.splitlines(True), actual.splitlines(True), "expected", "actual")
    raise Mismatch(f"{file.name}:\n{''.join(lines)}\npytest -p qir.testing --update-golden rewrites the file")


def golden_text(text: str) -> str:
    """What the golden file with this text should hold. Raises Mismatch where a refusal is expected and none comes."""
    head, before, expected = split_golden(text)
    try:
        actual = transformed(head, before)
    except QirError as error:
        if expected and not expected.startswith(ERROR):
            raise
        return MARK.join([head, before, _refusal(error, expected)])
    if expected.startswith(ERROR):
        raise Mismatch(f"the pipeline was to refuse this graph, with:\n{expected}")
    return MARK.join([head, before, actual])


def _refusal(error: QirError, expected: str) -> str:
    """What the last part should be: `expected` if each of its lines stands in the error."""
    said = [line.strip() for line in str(error).splitlines()]
    wanted = [line.strip() for line in expected.removeprefix(ERROR).splitlines()]
    if wanted and all(any(line in part for part in said) for line in wanted):
        return expected
    return ERROR + "".join(f"{line}\n" for line in said)


def split_golden(text: str) -> tuple[str, str, str]:
    """Header, graph before, and what is expected of it, which is nothing in a new file. Raises Mismatch for others."""
    head, *parts = text.split(MARK)
    if not head.startswith("// pipeline:") or len(parts) not in (1, 2):
        raise Mismatch("a golden file is '// pipeline: …' and a sentence, '// ----', a graph, '// ----', a graph")
    if len(head.splitlines()) < 2:
        raise Mismatch("below '// pipeline: …' a sentence says what is promised")
    return head, parts[0], parts[1] if len(parts) == 2 else ""


def transformed(head: str, before: str) -> str:
    """The text of the graph after the pipeline; both graphs are verified and survive printing and parsing."""
    graph = checked_graph(before)
    pipeline = Pipeline.parse(head.splitlines()[0].removeprefix("// pipeline:").strip(), given=graph)
    pipeline.run(graph, watch=[Verify()])
    text = f"{graph}\n"
    checked_graph(text)
    return text


def checked_graph(text: str) -> Graph:
    """The graph that `text` is; it is valid and prints to what reads as itself."""
    graph = parse(text)
    verify(graph)
    if parse(str(graph)) != graph:
        raise Mismatch(f"printing what was parsed changed it:\n{graph}")
    return graph


def check_docstring(kind: type[Pass]) -> None:
    """Raise Mismatch unless the pass does what its docstring shows.

    The docstring holds a whole graph, a line with `-->`, and the graph that the pass makes of it, both as graph text.
    The pass has its default options, or those that the line says: `--> load-encodings{file=x.encodings}`.
    """
    found = EXAMPLE.search(inspect.cleandoc(kind.__doc__ or ""))
    if found is None:
        raise Mismatch(f"the docstring of {kind.__name__} shows no 'graph @… {{…}}', '-->', 'graph @… {{…}}'")
    graph = checked_graph(found[1])
    step = Pipeline.parse(found[2], kind.needs).passes[0] if found[2].strip() else kind()
    if not isinstance(step, kind):
        raise Mismatch(f"the docstring of {kind.__name__} shows what {step.name} does")
    step.run(graph)
    verify(graph)
    actual, expected = f"{graph}\n", f"{checked_graph(found[3])}\n"
    if actual != expected:
        lines = difflib.unified_diff(expected.splitlines(True), actual.splitlines(True), "docstring", "actual")
        raise Mismatch(f"{kind.__name__}:\n{''.join(lines)}")
