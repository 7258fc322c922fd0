"""`qir replay`: a recorded run is run again, step by step as in its log, and the first step that differs is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from qir.__main__ import main

MODEL = """
<ir_version: 8, opset_import: ["": 21]>
net (float[n,3,8,8] x) => (float[n,4] y)
<float[4,3,3,3] w = {%s}, float[4] gamma = {1, 2, 3, 4}, float[4] zero = {0.1, 0, 0, 0}, float[4] one = {1, 1, 1, 1},
 int64[2] axes = {2, 3}>
{ [conv] a = Conv<pads = [1,1,1,1]>(x, w) [norm] b = BatchNormalization(a, gamma, zero, zero, one)
  [act] c = Relu(b) [mean] y = ReduceMean<keepdims = 0>(c, axes) }
"""
PASSES = "fold-batch-norm,reduce-mean-to-pool,legalize-onnx"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with net.onnx, and run.qirlog of PASSES over it."""
    write_model(tmp_path / "net.onnx", 0)
    monkeypatch.chdir(tmp_path)
    assert main(["opt", "net.onnx", "-p", PASSES, "--record", "run.qirlog", "-o", "out.qir"]) == 0
    return tmp_path


def write_model(path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    weights = ", ".join(f"{value:.4f}" for value in random.standard_normal(108))
    onnx.save(parser.parse_model(MODEL % weights), str(path))


def replay(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    capsys.readouterr()
    assert main(["replay", "run.qirlog", *arguments]) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def change(number: int, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit line `number` (from 0) of the log."""
    lines = [json.loads(line) for line in Path("run.qirlog").read_text().splitlines()]
    edit(lines[number])
    Path("run.qirlog").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_run_is_replayed(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(capsys) == "run.qirlog: 5 steps, each as in the log\n"


def test_the_steps_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay(capsys, "--list").splitlines() == [
        "     1  fold-batch-norm: fold  --> norm",
        "     2  fold-batch-norm: end, 3 operations",
        "     3  reduce-mean-to-pool: mean_to_pool  --> mean",
        "     4  reduce-mean-to-pool: end, 4 operations",
        "     5  legalize-onnx: end, 4 operations",
    ]
    shown = replay(capsys, "--show", "3")
    assert shown.startswith("3  reduce-mean-to-pool: mean_to_pool  --> mean\n  - %y = ReduceMean %c")
    assert "  + %y_1 = GlobalAveragePool %c" in shown


def test_a_run_ends_at_a_step(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert "BatchNormalization" not in replay(capsys, "--to", "1")
    assert "ReduceMean" in replay(capsys, "--to", "2")
    assert "GlobalAveragePool" in replay(capsys, "--to", "3")
    replay(capsys, "--to", "5", "-o", "again.qir")
    assert Path("again.qir").read_text() == Path("out.qir").read_text()
    assert "there is no step 6" in replay(capsys, "--to", "6", code=2)


def test_the_first_rewrite_that_differs_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    change(3, lambda step: step["after"].__setitem__(0, step["after"][0].replace("Global", "Local")))
    message = replay(capsys, code=2)
    assert "error[replay of reduce-mean-to-pool]: step 3 differs from the log: mean_to_pool at mean" in message
    assert "  - %y_1 = LocalAveragePool" in message
    assert "  + %y_1 = GlobalAveragePool" in message


def test_what_a_pass_did_beside_its_rewrites_is_held_to_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    change(4, lambda step: step.update(graph="0123456789abcdef"))
    assert "step 4 differs from the log: the end of the pass" in replay(capsys, code=2)


def test_a_log_of_other_versions_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    change(0, lambda header: header["versions"].update(onnx="1.0.0"))
    assert replay(capsys) == "run.qirlog: 5 steps, each as in the log\n"
    change(1, lambda step: step.update(rule="bend"))
    assert f"help: the log was written with onnx 1.0.0, now {onnx.__version__}" in replay(capsys, code=2)


def test_more_steps_and_fewer_steps_are_differences(capsys: pytest.CaptureFixture[str]) -> None:
    change(0, lambda header: header.update(pipeline="fold-batch-norm,reduce-mean-to-pool"))
    assert "the run ends before step 5 of the log: legalize-onnx" in replay(capsys, code=2)
    change(0, lambda header: header.update(pipeline=f"{PASSES},infer-shapes"))
    assert "step 6 is not in the log" in replay(capsys, code=2)


def test_another_model_is_refused_and_the_same_elsewhere_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.onnx").rename("moved.onnx")
    assert "net.onnx" in replay(capsys, code=2)
    assert "each as in the log" in replay(capsys, "--model", "moved.onnx")
    write_model(Path("net.onnx"), 1)
    assert "this model is another than that of the log" in replay(capsys, code=2)
    change(0, lambda header: header.pop("model"))
    assert "does not say of which model" in replay(capsys, code=2)


def test_the_log_of_a_run_that_failed_is_replayed_to_where_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("run.qirlog").read_text().splitlines(keepends=True)
    Path("run.qirlog").write_text("".join(lines[:4]))
    assert replay(capsys, "--list").splitlines()[-1] == "the run did not come to its end"
    assert replay(capsys) == "run.qirlog: 3 steps, each as in the log\n"


def test_a_quantization_is_replayed_with_its_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    random = np.random.default_rng(0)
    np.save("data.npy", random.standard_normal((8, 3, 8, 8)).astype(np.float32))
    quantize = ["quantize", "net.onnx", "--data", "data.npy", "-o", "net.int8.onnx", "--record", "run.qirlog"]
    assert main(quantize) == 0
    assert "each as in the log" in replay(capsys)
    np.save("data.npy", random.standard_normal((8, 3, 8, 8)).astype(np.float32) * 2)
    message = replay(capsys, code=2)
    assert "differs from the log: the end of the pass" in message
    assert "replay of calibrate" in message
