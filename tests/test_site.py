"""The documentation site: complete, without warnings, and readable as files without a network."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser import chromium
from tools.generated_pages import PAGES as GENERATED

ROOT = Path(__file__).parent.parent


def pages_in(nav: object) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    parts = nav.values() if isinstance(nav, dict) else nav
    return {page for part in parts for page in pages_in(part)}


def test_every_page_is_in_the_navigation():
    config = pytest.importorskip("yaml").safe_load((ROOT / "mkdocs.yml").read_text())
    there = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert pages_in(config["nav"]) == there | {f"reference/{name}.md" for name in GENERATED}


def test_the_reference_has_every_public_name():
    pages = "".join((ROOT / "docs" / "reference" / name).read_text() for name in ("python.md", "graphs.md"))
    tree = ast.parse((ROOT / "qir" / "__init__.py").read_text())
    imported = {alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    public = {name for name in imported if name is not None and not name.startswith("_")}
    assert len(public) > 20
    assert {name for name in public if f"::: qir.{name}\n" not in pages} == set()


@pytest.mark.slow
def test_the_table_of_operators_comes_from_the_tables():
    pytest.importorskip("torch")
    pytest.importorskip("keras")
    from tools.operator_table import rows

    table = {row[0].strip("`"): row[1:] for row in rows(lambda operator: operator.name in ("Relu", "qir.Linear", "If"))}
    traits, torch, keras, in_torch, in_keras, in_onnx, targets = table["Relu"]
    assert traits == "Unary, Clamps"
    assert "torch.relu" in torch
    assert "keras.ops.relu" in keras
    assert in_torch.startswith("torch's own")
    assert in_keras == "a function"
    assert in_onnx == "opset 14"
    assert "qnn-htp" in targets
    assert table["qir.Linear"][5] == "expanded"
    assert table["If"][3] == "modules"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "tools/tree.py"], cwd=ROOT, check=True)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site: Path):
    for page in set(site.rglob("*.html")) - {site / "404.html"}:
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=\"?([^\" >]+)", page.read_text())
        assert loaded
        assert not [url for url in loaded if url.startswith(("http:", "https:", "//", "/"))], page.name


@pytest.mark.slow
def test_the_reference_has_docstrings_passes_and_commands(site: Path):
    assert "AIMET" in (site / "reference" / "python.html").read_text()
    assert 'id="fold-batch-norm"' in (site / "reference" / "passes.html").read_text()
    assert 'id="qir-new-pass"' in (site / "reference" / "commands.html").read_text()
    assert 'id="ort-x86-vnni"' in (site / "reference" / "targets.html").read_text()


@pytest.mark.slow
def test_the_search_answers_without_a_server(site: Path):
    with chromium() as running:
        page = running.new_page()
        page.goto(f"file://{site}/index.html?q=commutes")
        page.wait_for_selector(".md-search-result__item", state="attached")
