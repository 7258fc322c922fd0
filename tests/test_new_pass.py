"""`qir new-pass` writes a pass that works, its golden file and its test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from qir import QirError, registry
from qir.__main__ import main
from qir.cli.new_pass_files import new_pass
from qir.testing import check_docstring, check_golden


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; what is registered there is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_imported", dict(registry._imported))
    return tmp_path


def pytest_there(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_files_are_a_pass_that_does_what_they_show(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["new-pass", "try-this-8bit"]) == 0
    shown = capsys.readouterr().out
    for name in ("try_this_8bit.py", "try_this_8bit.qir", "test_try_this_8bit.py"):
        assert (folder / name).exists()
        assert f"wrote {name}" in shown
    __import__("try_this_8bit")
    check_docstring(sys.modules.pop("try_this_8bit").TryThis8bit)
    check_golden(folder / "try_this_8bit.qir", SimpleNamespace(getoption=lambda name, default: False))


@pytest.mark.slow
def test_the_written_test_passes_and_one_command_updates_the_golden_file(folder: Path):
    new_pass("try-this", folder)
    done = pytest_there(folder)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    golden = folder / "try_this.qir"
    expected = golden.read_text()
    golden.write_text(expected.rpartition("// ----\n")[0])
    assert "1 failed, 1 passed" in pytest_there(folder).stdout
    assert pytest_there(folder, "-p", "qir.testing", "--update-golden").returncode == 0
    assert golden.read_text() == expected


def test_nothing_is_overwritten(folder: Path):
    golden = folder / "try_this.qir"
    golden.write_text("mine")
    with pytest.raises(QirError, match="try_this.qir is there already"):
        new_pass("try-this", folder)
    assert [path.name for path in folder.iterdir()] == ["try_this.qir"]
    assert golden.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("TryThis", "no name for a pass\nhelp: .*: try-this"),
        ("try_this", "no name for a pass\nhelp: .*: try-this"),
        ("8bit-try", "no name for a pass\nhelp: .*: bit-try"),
        ("../try", "no name for a pass\nhelp: .*: try"),
        ("ö", "no name for a pass\nhelp: .*: fold-batch-norm"),
        ("", "no name for a pass"),
        ("calibrate", "there is a pass 'calibrate' already"),
        ("class", "means something else in Python"),
        ("match", "means something else in Python"),
        ("json", "there is a Python module 'json' already"),
    ],
)
def test_a_name_that_can_not_be_is_refused(folder: Path, name: str, message: str):
    with pytest.raises(QirError) as error:
        new_pass(name, folder)
    assert error.match(message)
    assert not list(folder.iterdir())


def test_a_folder_that_can_not_be_written_is_refused(folder: Path):
    (folder / "taken").write_text("a file")
    with pytest.raises(QirError, match="can not write"):
        new_pass("try-this", folder / "taken")
