"""The files that a new pass begins with: the pass, its golden file and its test."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from qir.errors import QirError
from qir.files import write_all
from qir.registry import pass_names

PASS = Template('''"""Drops a negation of a negation."""

from __future__ import annotations

from dataclasses import dataclass

from qir import Graph, Pass, Value
from qir.patterns import Input, Match, Op
from qir.rewrite import Miss, Outcome, rewrite

X = Input()
INNER = Op("Neg", X)
OUTER = Op("Neg", INNER)


@dataclass(frozen=True)
class $kind(Pass, name="$name"):
    """Put x in the place of -(-x).

    graph @g(%x: f32[4]) {
      %inner = Neg %x : f32[4]
      %outer = Neg %inner : f32[4]
      return %outer
    }
    -->
    graph @g(%x: f32[4]) {
      return %x
    }
    """

    numerics = "exact"

    def run(self, graph: Graph) -> Outcome:
        """Rewrite every match of the pattern."""
        return rewrite(graph, {OUTER: rewritten})


def rewritten(found: Match, graph: Graph) -> Value | Miss:
    """What takes the place of the result of `found[OUTER]`; a `Miss("why")` leaves it, and `qir explain` shows why."""
    return found[X]
''')

GOLDEN = Template("""// pipeline: $name
// A negation of a negation goes; one that something else reads stays.
// ----
graph @before(%x: f32[4], %y: f32[4]) {
  %inner = Neg %x : f32[4]
  %outer = Neg %inner : f32[4]
  %read = Neg %y : f32[4]
  %again = Neg %read : f32[4]
  return %outer, %again, %read
}
// ----
graph @before(%x: f32[4], %y: f32[4]) {
  %read = Neg %y : f32[4]
  %again = Neg %read : f32[4]
  return %x, %again, %read
}
""")

TEST = Template('''"""$name does what its golden files and its docstring show.

`pytest -p qir.testing --update-golden` rewrites the golden files; read the difference.
"""

from pathlib import Path

import pytest
from qir.testing import check_docstring, check_golden

from $module import $kind

GOLDEN = sorted(Path(__file__).parent.glob("$module*.qir"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_golden_file(file: Path, pytestconfig: pytest.Config) -> None:
    check_golden(file, pytestconfig)


def test_docstring() -> None:
    check_docstring($kind)
''')


def new_pass(name: str, folder: Path) -> list[Path]:
    """Write the files of a pass called `name` to `folder`: the pass, its golden file, and its test, which passes.

    Raises QirError, and writes nothing, for a name that no pass can have, and where one of the files is there already.
    """
    module, kind = _names(name)
    texts = {
        folder / file: template.substitute(name=name, module=module, kind=kind)
        for file, template in ((f"{module}.py", PASS), (f"{module}.qir", GOLDEN), (f"test_{module}.py", TEST))
    }
    for path in texts:
        if path.exists() or path.is_symlink():
            raise QirError(f"{path} is there already", help="choose another name or folder; nothing was written")
    if find_spec(module) is not None:
        raise QirError(f"there is a Python module {module!r} already, which {module}.py would hide",
                       help="choose another name")  # fmt: skip
    write_all({path: _writer(text) for path, text in texts.items()})
    return list(texts)


def _writer(text: str) -> Callable[[Path], object]:
    return partial(Path.write_text, data=text, encoding="utf-8")


def _names(name: str) -> tuple[str, str]:
    """The module and the class of the pass. Raises QirError for a name that gives no usable ones, or that is taken."""
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        spelled = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name).lower()
        words = "-".join(re.findall(r"[a-z0-9]+", spelled)).lstrip("0123456789-")
        raise QirError(
            f"{name!r} is no name for a pass", help=f"write words in lower case: {words or 'fold-batch-norm'}"
        )
    if name in pass_names():
        raise QirError(f"there is a pass {name!r} already", help="`qir passes` lists them")
    module, kind = name.replace("-", "_"), "".join(word.capitalize() for word in name.split("-"))
    imported = [alias.name for node in ast.walk(ast.parse(PASS.template.replace("$", "")))
                if isinstance(node, ast.ImportFrom) for alias in node.names]  # fmt: skip
    if iskeyword(module) or kind in imported:
        raise QirError(f"{name!r} means something else in Python", help="choose a name of several words")
    return module, kind
