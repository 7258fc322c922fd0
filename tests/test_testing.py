"""What `qir.testing` says of golden files and docstrings that do not hold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from qir.passes.lift_functionals import LiftFunctionals
from qir.testing import Mismatch, check_docstring, check_golden, golden_text

HEAD = "// pipeline: lift-functionals\n// A call gets a layer.\n"
BEFORE = "graph @g(%x: f32[4]) {\n  %y = Relu %x : f32[4]\n  return %y\n}\n"
AFTER = BEFORE.replace(": f32[4]\n  ret", ": f32[4] [module_y]\n  ret")
RULE = "// ----\n"
REFUSED = "// pipeline: insert-quantizers\n// It needs layers.\n// ----\n" + BEFORE
ERROR = RULE + "// error:\nneeds 'functionals-lifted'\nhelp: put 'lift-functionals' before it\n"


def config(update: bool = False) -> Any:
    return SimpleNamespace(getoption=lambda name, default: update)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "case.qir"
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", [HEAD + RULE + BEFORE + RULE + AFTER, REFUSED + ERROR])
def test_a_golden_file_that_holds(tmp_path: Path, text: str):
    check_golden(written(tmp_path, text), config())
    assert golden_text(text) == text


def test_a_difference_is_shown_and_nothing_is_written(tmp_path: Path):
    path = written(tmp_path, HEAD + RULE + BEFORE + RULE + BEFORE)
    with pytest.raises(Mismatch, match=r"(?s)case.qir:.*-  %y = Relu %x : f32\[4\]\n\+.*\[module_y\].*--update-golden"):
        check_golden(path, config())
    assert path.read_text().endswith(BEFORE)


@pytest.mark.parametrize("rest", ["", RULE + BEFORE])
def test_an_update_writes_what_the_pipeline_makes(tmp_path: Path, rest: str):
    path = written(tmp_path, HEAD + RULE + BEFORE + rest)
    check_golden(path, config(update=True))
    assert path.read_text() == HEAD + RULE + BEFORE + RULE + AFTER


def test_a_refusal_is_written_where_nothing_else_is_expected(tmp_path: Path):
    path = written(tmp_path, REFUSED)
    check_golden(path, config(update=True))
    assert "// error:\nerror[pipeline]: 'insert-quantizers' needs 'functionals-lifted'" in path.read_text()
    check_golden(path, config())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + RULE + BEFORE + ERROR, "the pipeline was to refuse this graph"),
        (REFUSED + ERROR.replace("needs", "wants"), "-needs|-wants 'functionals-lifted'"),
        ("graph @g() {\n}\n", "a golden file is"),
        ("// pipeline: lift-functionals\n" + RULE + BEFORE, "a sentence says what is promised"),
    ],
)
def test_a_golden_file_that_does_not_hold(tmp_path: Path, text: str, message: str):
    with pytest.raises(Mismatch, match=message):
        check_golden(written(tmp_path, text), config())


def documented(text: str) -> Any:
    return type("Documented", (LiftFunctionals,), {"__doc__": text})


def test_a_docstring_has_to_show_what_the_pass_does():
    check_docstring(LiftFunctionals)
    check_docstring(documented(f"Lift.\n\n{BEFORE}-->\n{AFTER}"))
    with pytest.raises(Mismatch, match="shows no 'graph"):
        check_docstring(documented("Lift."))
    with pytest.raises(Mismatch, match=r"(?s)-.*Relu %x : f32\[4\]\n.*\+.*\[module_y\]"):
        check_docstring(documented(f"Lift.\n\n{BEFORE}-->\n{BEFORE}"))
    with pytest.raises(Mismatch, match="shows what unroll-modules does"):
        check_docstring(documented(f"Lift.\n\n{BEFORE}--> unroll-modules\n{BEFORE}"))
