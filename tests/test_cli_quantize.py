"""`qir quantize`: a file and data in, an integer file and a summary out; everything else is one error and no file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from qir.__main__ import main
from qir.backends.onnx_qdq import executed_operators

MODEL = """
<ir_version: 8, opset_import: ["": 17]>
net (float[n,3,8,8] x) => (float[n,4] y)
<float[4,3,3,3] w = {%s}, float[4] b = {0.1, -0.2, 0.3, 0}>
{ [conv] a = Conv<pads = [1,1,1,1]>(x, w, b) [act] c = Relu(a) [pool] p = GlobalAveragePool(c) [flat] y = Flatten(p) }
"""
BUILD = """
import numpy as np, torch
from torch import nn

def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))

def data():
    for _ in range(3):
        yield torch.randn(2, 3, 8, 8)

def fails():
    raise KeyError("nothing")

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(0)
    weights = ", ".join(f"{value:.4f}" for value in random.standard_normal(108))
    onnx.save(parser.parse_model(MODEL % weights), str(tmp_path / "net.onnx"))
    np.savez(tmp_path / "calib.npz", x=random.standard_normal((40, 3, 8, 8)).astype(np.float32))
    np.savez(tmp_path / "unnamed.npz", random.standard_normal((5, 3, 8, 8)).astype(np.float32))
    (tmp_path / "batches").mkdir()
    for number in range(3):
        np.save(tmp_path / "batches" / f"{number}.npy", random.standard_normal((4, 3, 8, 8)).astype(np.float32))
    (tmp_path / "my_model.py").write_text(BUILD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_model", raising=False)
    return tmp_path


def quantize(*arguments: str) -> int:
    return main(["quantize", *arguments, "-o", "out.onnx"])


@pytest.mark.parametrize("data", ["calib.npz", "unnamed.npz", "batches"])
def test_an_onnx_file_becomes_an_integer_file(folder: Path, data: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantize("net.onnx", "--data", data, "--json", "s.json", "--report", "r.html") == 0
    out = capsys.readouterr().out
    assert "operators on integers" in out
    assert "3 of 3" in out
    summary = json.loads((folder / "s.json").read_text())
    assert summary["float_operators"] == 0
    assert summary["signal_to_noise"]["y"] > 20
    assert all(each.integer or each.converts for each in executed_operators(onnx.load("out.onnx")))
    assert "<h1>out.onnx: " in (folder / "r.html").read_text()


def test_a_torch_model_by_the_name_of_its_function(folder: Path) -> None:
    assert quantize("my_model:model", "--data", "my_model:data") == 0
    assert {"Conv", "Gemm"} <= {node.op_type for node in onnx.load("out.onnx").graph.node}


def test_excluded_layers_and_rules_stay_in_float(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantize("net.onnx", "--data", "calib.npz", "--exclude", "conv") == 0
    capsys.readouterr()
    assert main(["lint", "out.onnx"]) == 1
    assert "Conv" in capsys.readouterr().out
    (folder / "rules.toml").write_text('[[rule]]\nop = "Conv"\nweight = "i4"\n')
    assert quantize("net.onnx", "--data", "calib.npz", "--rules", "rules.toml") == 0
    types = {tensor.data_type for tensor in onnx.load("out.onnx").graph.initializer}
    assert onnx.TensorProto.INT4 in types


OPTIONS = ("--method sqnr", "--method percentile --percentile 99.9", "--no-per-channel", "--param-bw 4",
           "--target ort-x86-avx2", "--target qnn-htp --output-bw 16")  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
def test_options(folder: Path, options: str) -> None:
    assert quantize("net.onnx", "--data", "calib.npz", *options.split()) == 0


REFUSED = {
    "the output": ("net.onnx", "--data", "calib.npz", "-o", "out.txt"),
    "can not read": ("absent.onnx", "--data", "calib.npz"),
    "can not find": ("no_module:model", "--data", "calib.npz"),
    "fails: KeyError": ("my_model:fails", "--data", "calib.npz"),
    "is a int": ("my_model:number", "--data", "calib.npz"),
    "can not read calibration": ("net.onnx", "--data", "absent.npz"),
    "no target": ("net.onnx", "--data", "calib.npz", "--target", "toaster"),
    "rules": ("net.onnx", "--data", "calib.npz", "--rules", "absent.toml"),
    "NaN": ("net.onnx", "--data", "nan.npy"),
    "shape": ("net.onnx", "--data", "shape.npy"),
    "is f32 and the data": ("net.onnx", "--data", "dtype.npy"),
    "holds z": ("net.onnx", "--data", "names.npz"),
    "no calibration data": ("net.onnx", "--data", "empty"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_one_error_and_no_file(folder: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(folder / "nan.npy", np.full((2, 3, 8, 8), np.nan, np.float32))
    np.save(folder / "shape.npy", np.zeros((2, 3, 9), np.float32))
    np.save(folder / "dtype.npy", np.zeros((2, 3, 8, 8), np.float64))
    np.savez(folder / "names.npz", z=np.zeros((2, 3, 8, 8), np.float32))
    (folder / "empty").mkdir()
    given = REFUSED[message]
    output = [] if "-o" in given else ["-o", "out.onnx"]
    assert main(["quantize", *given, *output]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("error") == 1
    assert not (folder / "out.onnx").exists()
