"""Exported simulators: every file there or none, the encodings complete, and the same model in each of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from torch import nn

import qir
from qir.backends.onnx_qdq import session
from qir.backends.torch_module import emit_torch
from qir.encodings.apply import apply_encodings
from qir.encodings.file import VERSIONS, read_encodings
from qir.errors import QirError
from qir.graph import Graph
from qir.quantizers import quantizers
from qir.simulation.export import export_simulation, float_state
from tests.comparing import tensors
from tests.models import SMALL
from tests.test_encodings_apply import quantized_everywhere, uncalibrated


def simulator(name: str) -> tuple[Graph, torch.fx.GraphModule]:
    graph = quantized_everywhere(SMALL[name])
    return graph, emit_torch(graph)


def ran(model: onnx.ModelProto, inputs: list[torch.Tensor]) -> list[np.ndarray]:
    running = session(model, optimize=False)
    feeds = {entry.name: x.numpy() for entry, x in zip(running.get_inputs(), inputs, strict=True)}
    return list(running.run(None, feeds))


EXPORTED = ["activations", "digits_net", "inverted_residual", "perceptron", "reused_layers", "sequence", "tied_head"]


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_quantized_tensor_of_the_onnx_file_has_an_entry(name: str, version: str, tmp_path: Path) -> None:
    graph, module = simulator(name)
    paths = export_simulation(graph, module, tmp_path, "net", version=version)
    assert sorted(path.name for path in paths) == ["net.encodings", "net.onnx", "net.pth", "net.safetensors",
                                                   "net_torch.encodings"]  # fmt: skip
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    model = onnx.load(str(tmp_path / "net.onnx"))
    file = read_encodings(tmp_path / "net.encodings")
    present = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    present |= {name for node in model.graph.node for name in node.output}
    named = {entry.name for entry in file.entries}
    assert named <= present
    asked = [
        node for node in quantizers(graph) if not (version.startswith("2") and node.attrs["encoding"].dtype == "f16")
    ]
    assert len(named) == len({node.attrs["encoding"] for node in asked})
    assert not any("Quantize" in node.op_type for node in model.graph.node)


@pytest.mark.parametrize("name", EXPORTED)
def test_all_files_hold_the_float_model(name: str, tmp_path: Path) -> None:
    graph, module = simulator(name)
    export_simulation(graph, module, tmp_path, "net")
    example = SMALL[name]
    model, inputs = qir.prepare_model(example.model(), example_inputs=example.inputs()), example.inputs()
    expected = [tensor.detach().numpy() for tensor in tensors(model(*inputs))]
    for given, wanted in zip(ran(onnx.load(str(tmp_path / "net.onnx")), inputs), expected, strict=True):
        np.testing.assert_allclose(given, wanted, rtol=1e-3, atol=1e-4)
    state = torch.load(tmp_path / "net.pth", weights_only=True)
    model.load_state_dict(state)
    assert all(np.array_equal(a.detach().numpy(), b) for a, b in zip(tensors(model(*inputs)), expected, strict=True))
    other = safetensors.torch.load_file(tmp_path / "net.safetensors")
    assert {key: value.tolist() for key, value in state.items()} == {
        key: value.tolist() for key, value in other.items()
    }


@pytest.mark.parametrize("file", ["net.encodings", "net_torch.encodings"])
@pytest.mark.parametrize("name", EXPORTED)
def test_exported_encodings_give_the_simulator_back(name: str, file: str, tmp_path: Path) -> None:
    graph, module = simulator(name)
    export_simulation(graph, module, tmp_path, "net", quantizer_args={"param_bitwidth": 8}, excluded_layers=["a"])
    twin = uncalibrated(graph)
    apply_encodings(twin, tmp_path / file)
    inputs = SMALL[name].inputs()
    with torch.no_grad():
        pairs = zip(tensors(module(*inputs)), tensors(emit_torch(twin)(*inputs)), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert json.loads((tmp_path / file).read_text())["quantizer_args"] == {"param_bitwidth": 8}


def trained_simulator() -> tuple[Graph, nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).eval()
    x = torch.randn(4, 3, 8, 8)
    quantized = qir.quantize(model, data=[x])
    module = quantized.simulator()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.9)
    return quantized.graph, module, x


def test_what_training_changed_is_exported(tmp_path: Path) -> None:
    graph, module, x = trained_simulator()
    export_simulation(graph, module, tmp_path, "net", format="qdq")
    assert not (tmp_path / "net.encodings").exists()
    (given,) = ran(onnx.load(str(tmp_path / "net.onnx")), [x])
    with torch.no_grad():
        np.testing.assert_allclose(given, module(x).numpy(), atol=0.05)
        assert np.abs(given).max() > 0.2
    state = torch.load(tmp_path / "net.pth", weights_only=True)
    assert state.keys() == {"0.weight", "0.bias", "3.weight", "3.bias"}
    assert torch.equal(state["0.weight"], module.state_dict()["0.weight"])
    assert list(state) == list(float_state(module))


def test_disabled_quantizers_have_no_entry(tmp_path: Path) -> None:
    graph, module, _ = trained_simulator()
    module.get_submodule("0.weight_quantizer").enabled = False
    export_simulation(graph, module, tmp_path, "net")
    assert "0.weight" not in {entry.name for entry in read_encodings(tmp_path / "net.encodings").entries}


def test_the_encodings_files_may_have_a_name_of_their_own(tmp_path: Path) -> None:
    graph, module, _ = trained_simulator()
    export_simulation(graph, module, tmp_path / "new" / "folder", "net", encodings_prefix="grids")
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert names == {"net.onnx", "net.pth", "net.safetensors", "grids.encodings", "grids_torch.encodings"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"version": "7"}, "no version"),
        ({"format": "pb"}, "no export format"),
        ({"quantizer_args": {"a": object()}}, "JSON"),
    ],
)
def test_a_refused_export_writes_nothing(options: dict[str, Any], word: str, tmp_path: Path) -> None:
    graph, module, _ = trained_simulator()
    with pytest.raises(QirError, match=word):
        export_simulation(graph, module, tmp_path, "net", **options)
    assert not list(tmp_path.iterdir())


def test_a_file_that_can_not_be_written_leaves_all_as_they_were(tmp_path: Path) -> None:
    graph, module, _ = trained_simulator()
    (tmp_path / "net.safetensors").mkdir()
    (tmp_path / "net.onnx").write_text("old")
    with pytest.raises(QirError, match="is a folder"):
        export_simulation(graph, module, tmp_path, "net")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.safetensors"]
    assert (tmp_path / "net.onnx").read_text() == "old"


def test_an_uncalibrated_simulator_is_not_exported(tmp_path: Path) -> None:
    graph = uncalibrated(quantized_everywhere(SMALL["perceptron"]))
    for format in ("encodings", "qdq"):
        with pytest.raises(QirError, match="not calibrated"):
            export_simulation(graph, emit_torch(graph), tmp_path, "net", format=format)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
