"""`qir analyze`: a model and data in, two files and a summary out; and AIMET's QuantAnalyzer."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qir
from qir.__main__ import main
from qir.analysis.results import read_analysis
from qir.backends.torch_quantizers import quantizers_of
from qir.errors import QirError
from qir.pages.analysis import has_plots
from qir.simulation.analyzer import CallbackFunc, QuantAnalyzer
from tests.models import SMALL
from tests.quantizing import quantized

METRIC = """
import numpy as np
from tests.models import SMALL

def model():
    return SMALL["perceptron"].model()

def data():
    for seed in range(20, 24):
        yield SMALL["perceptron"].inputs(batch=4, seed=seed)

def share(outputs, labels):
    return float(np.mean(outputs[0].argmax(-1) == labels))

def fails(outputs, labels):
    raise KeyError("nothing")

number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    example = SMALL["perceptron"]
    quantized(example).save(tmp_path / "net.onnx")
    x = np.concatenate([example.inputs(batch=4, seed=seed)[0].numpy() for seed in range(20, 24)])
    np.savez(tmp_path / "x.npz", x)
    np.save(tmp_path / "labels.npy", np.arange(16) % 4)
    (tmp_path / "analyzed_model.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "analyzed_model", raising=False)
    return tmp_path


def analyze(*arguments: str) -> int:
    return main(["analyze", *arguments, "-o", "out", "--jobs", "1"])


def test_a_quantized_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze("net.onnx", "--data", "x.npz", "--labels", "labels.npy") == 0
    out = capsys.readouterr().out
    assert "16 samples, 8 grids" in out
    assert "accuracy" in out
    found = read_analysis(folder / "out" / "analysis.json")
    assert (found.samples, found.metric) == (16, "accuracy")
    assert all(quantizer.name in out for quantizer in found.quantizers)
    names = {path.name for path in (folder / "out").iterdir()}
    assert names == {"analysis.json"} | ({"analysis.html"} if has_plots() else set())


def test_a_float_model_is_quantized_first(folder: Path) -> None:
    arguments = ("analyzed_model:model", "--data", "analyzed_model:data", "--labels", "labels.npy", "--samples", "8")
    assert analyze(*arguments, "--metric", "analyzed_model:share", "--param-bw", "4") == 0
    found = read_analysis(folder / "out" / "analysis.json")
    assert (found.samples, found.metric) == (8, "share")
    assert "insert-quantizers{target=ort-x86-vnni param_bw=4}" in found.pipeline
    assert {q.grid for q in found.quantizers if q.kind == "weight"} == {"i4 symmetric narrow axis=0"}
    whole = [SMALL["perceptron"].inputs(batch=4, seed=seed) for seed in range(20, 24)]
    given = qir.quantize(SMALL["perceptron"].model(), data=whole, insert="param_bw=4")
    labels = np.load(folder / "labels.npy")
    same = qir.analyze(given, whole, samples=8, labels=labels)
    assert [q.alone for q in same.quantizers] == [q.alone for q in found.quantizers]


def test_a_grid_that_does_not_fit_is_named_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import onnx
    from onnx import numpy_helper

    model = onnx.load("net.onnx")
    wrong = next(t for t in model.graph.initializer if t.name.endswith("scale") and not t.dims)
    wrong.CopyFrom(numpy_helper.from_array(np.asarray(8 * numpy_helper.to_array(wrong)), wrong.name))
    onnx.save(model, "bad.onnx")
    assert analyze("bad.onnx", "--data", "x.npz") == 0
    out = capsys.readouterr().out
    _, _, rest = out.partition("grids that do not fit what their tensors hold\n")
    assert rest.startswith("  input_quantizer: its steps are 8.0 times as wide as fits; a better grid gains 1")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.onnx", "--data", "x.npz"), "missing.onnx"),
        (("net.onnx", "--data", "missing.npz"), "missing.npz"),
        (("net.onnx", "--data", "x.npz", "--labels", "missing.npy"), "can not read labels from missing.npy"),
        (("net.onnx", "--data", "x.npz", "--metric", "analyzed_model:fails"), "the metric fails: KeyError: 'nothing'"),
        (("net.onnx", "--data", "x.npz", "--metric", "analyzed_model:number"), "is a int"),
        (("net.onnx", "--data", "x.npz", "--samples", "0"), "0 samples show nothing"),
        (("net.onnx", "--data", "x.npz", "--jobs", "0"), "0 processes"),
    ],
)
def test_what_is_refused(arguments: tuple[str, ...], message: str, folder: Path, capsys: Any) -> None:
    assert main(["analyze", *arguments, "-o", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out" / "analysis.json").exists()


# -- AIMET's names ---------------------------------------------------------------------------------------------------


def forward(model: Any, batches: list[Any]) -> None:
    with torch.no_grad():
        for batch in batches:
            model(*batch)


def score(model: Any, batches: list[Any]) -> float:
    return float(sum(model(*batch).square().sum() for batch in batches))


def test_quant_analyzer(tmp_path: Path) -> None:
    example = SMALL["perceptron"]
    batches = [example.inputs(batch=4, seed=seed) for seed in range(3)]
    model = example.model()
    analyzer = qir.QuantAnalyzer(model, batches[0], CallbackFunc(forward, batches), CallbackFunc(score, batches))
    found = analyzer.analyze("tf", default_param_bw=4, default_output_bw=8, results_dir=tmp_path, samples=8)
    assert found.samples == 8
    assert {q.grid.split()[0] for q in found.quantizers if q.kind == "weight"} == {"i4"}
    assert found.floating.score == pytest.approx(score(model, batches), rel=1e-6)
    enabled = json.loads((tmp_path / "per_layer_quant_enabled.json").read_text())
    disabled = json.loads((tmp_path / "per_layer_quant_disabled.json").read_text())
    assert enabled == {layer.name: layer.alone.score for layer in found.layers if layer.quantizers}
    assert disabled.keys() == enabled.keys()
    assert read_analysis(tmp_path / "analysis.json") == found

    sim = qir.QuantizationSimModel(model, batches[0], "tf", default_param_bw=4)
    sim.compute_encodings(forward, batches)
    (layer,) = (layer for layer in sim.layers() if layer.name == "0")
    on = {*layer.input_quantizers, *layer.output_quantizers, *layer.param_quantizers.values()}
    for _, quantizer in quantizers_of(sim.model):
        quantizer.enabled = quantizer in on
    assert enabled["0"] == pytest.approx(score(sim.model, batches), rel=1e-6)


def test_quant_analyzer_leaves_ignored_layers_in_float_and_takes_batches(tmp_path: Path) -> None:
    example = SMALL["perceptron"]
    batches = [example.inputs(batch=4, seed=seed) for seed in range(3)]
    model = example.model()
    callbacks = CallbackFunc(forward, batches), CallbackFunc(score, batches)
    analyzer = QuantAnalyzer(model, batches[0], *callbacks, modules_to_ignore=[model[0]])
    analyzer.enable_per_layer_mse_loss(iter(batches), 1)
    found = analyzer.analyze(results_dir=tmp_path)
    assert found.samples == 4
    assert not any(quantizer.name.startswith("0.") for quantizer in found.quantizers)
    with pytest.raises(QirError, match="a callback is a CallbackFunc"):
        QuantAnalyzer(model, batches[0], forward, callbacks[1])  # type: ignore[arg-type]
