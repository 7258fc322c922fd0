"""The commands that judge an integer model: what they print, write and return."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from qir.__main__ import main
from tests.model_table import Example
from tests.models import SMALL
from tests.quantizing import quantized
from tests.test_lint import EXAMPLES, has_gemm, planted


@pytest.fixture(scope="module")
def example() -> Example:
    return next(example for example in EXAMPLES if example.is_cnn and has_gemm(example))


@pytest.fixture(scope="module")
def good(example: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "net.onnx"
    quantized(example).save(path)
    return path


@pytest.fixture(scope="module")
def bad(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "net.onnx"
    onnx.save(planted(onnx.load(str(good)), "Gemm", 3.0), str(path))
    return path


def test_lint_of_a_model_on_integers(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(good)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    integer, _, total = line.rpartition(": ")[2].split()[:3]
    assert integer == total


def test_lint_names_what_is_wrong(bad: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(bad)]) == 1
    out = capsys.readouterr().out
    assert "wrong: the scale of its bias is not that of its input times that of its weight" in out
    assert main(["lint", str(bad), "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    assert [row["op"] for row in rows if row["wrong"]] == ["Gemm"]


def test_lint_says_why_an_operator_is_in_float(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    quantized(SMALL["arithmetic"]).save(tmp_path / "net.onnx")
    assert main(["lint", str(tmp_path / "net.onnx"), "--all"]) == 1
    out = capsys.readouterr().out
    assert "\nfloat: " in out
    assert "\ninteger: " in out


def test_certify_writes_a_page_and_json(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, data = tmp_path / "c.html", tmp_path / "c.json"
    assert main(["certify", str(good), "--report", str(page), "--json", str(data)]) == 0
    assert capsys.readouterr().out.startswith("holds on ")
    assert json.loads(data.read_text())["holds"] is True
    assert '<h1>net.onnx: <span class="yes">holds' in page.read_text()


def test_certify_with_data_and_labels(
    good: Path, bad: Path, example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [value.name for value in onnx.load(str(good)).graph.input]
    arrays = [value.numpy() for value in example.inputs(batch=6, seed=3)]
    np.savez(tmp_path / "x.npz", **dict(zip(names, arrays, strict=True)))
    np.save(tmp_path / "y.npy", np.zeros(6, np.int64))
    given = ["--data", str(tmp_path / "x.npz"), "--labels", str(tmp_path / "y.npy"), "--samples", "6"]
    assert main(["certify", str(good), *given]) == 0
    assert "accuracy, integer simulator" in capsys.readouterr().out
    assert main(["certify", str(bad), *given]) == 1
    out = capsys.readouterr().out
    assert out.startswith("DOES NOT HOLD")
    assert "the scale of its bias" in out


@pytest.mark.parametrize("command", ["lint", "certify"])
def test_what_is_no_model_is_refused(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"nothing")
    assert main([command, str(path)]) == 2
    assert capsys.readouterr().err.startswith("error")
    assert main([command, str(tmp_path / "absent.onnx")]) == 2


def test_labels_that_do_not_fit_are_refused(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "y.npy", np.zeros((2, 2)))
    report = tmp_path / "c.html"
    assert main(["certify", str(good), "--labels", str(tmp_path / "y.npy"), "--report", str(report)]) == 2
    assert "labels" in capsys.readouterr().err
    assert not report.exists()
