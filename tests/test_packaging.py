"""The wheel holds what the checkout holds, under one import name."""

from __future__ import annotations

import doctest
import importlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUP = PROJECT["tool"]["setuptools"]
FOLDERS = sorted(SETUP["package-dir"].values())


def test_every_package_is_listed() -> None:
    found = {
        ".".join([name, *init.parent.relative_to(ROOT / folder).parts])
        for name, folder in SETUP["package-dir"].items()
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert found == set(SETUP["packages"])


@pytest.mark.parametrize("folder", ["passes", "frontends", "backends"])
def test_a_bare_import_says_the_right_name(folder: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {folder}"], cwd=ROOT, capture_output=True, text=True)
    assert f"import this as qir.{folder}" in done.stderr


def test_data_files_are_listed() -> None:
    listed = {path for pattern in SETUP["package-data"]["qir"] for path in (ROOT / "qir").glob(pattern)}
    there = {p for p in (ROOT / "qir").rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert there == listed


def modules_with_examples() -> list[str]:
    return [
        ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts])
        for package, folder in SETUP["package-dir"].items()
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.stem.startswith("__") and ">>> " in path.read_text()
    ]


def test_docstring_examples_run() -> None:
    for name in modules_with_examples():
        assert doctest.testmod(importlib.import_module(name)).failed == 0, name


@pytest.mark.slow
def test_a_wheel_built_from_the_sources_has_every_module_and_one_top_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in [*FOLDERS, "tests", "pyproject.toml", "LICENSE", "README.md"]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    (source / "README.md").touch()
    build = "import setuptools.build_meta as b, sys; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = {"qir/" + str(p.relative_to(ROOT / "qir")) for p in (ROOT / "qir").rglob("*") if p.is_file()}
    wanted |= {f"qir/{folder}/{p.name}" for folder in FOLDERS if folder != "qir" for p in (ROOT / folder).glob("*.py")}
    assert held == {name for name in wanted if "__pycache__" not in name}
    code = "import qir.passes, qir.frontends, qir.backends; from qir.registry import known_passes; known_passes()"
    subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(wheel)!r}); {code}"], check=True)
