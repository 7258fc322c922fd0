"""Known defects of AIMET's QuantSim, placement and export (aimet.md, sections 7.2 and 7.4), each absent here.

Those of its calibration (7.3) are here, in test_calibration.py and in test_observers.py, those of its configs also in
test_aimet_config.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

import qir
from qir import QuantizationDataType, QuantizationSimModel, load_checkpoint, save_checkpoint
from qir.backends.onnx_qdq import session
from qir.backends.torch_observers import TorchHistogram
from qir.backends.torch_quantizers import quantizers_of
from qir.calibration.observers import Histogram
from qir.encodings.encoding import Encoding
from qir.errors import QirError


class Of(nn.Module):
    """A module with a forward of its own and layers."""

    def __init__(self, forward: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.does = forward

    def forward(self, x: Tensor, other: Tensor | None = None) -> Any:
        return self.does(self, x) if other is None else self.does(self, x, other)


def simulated(model: nn.Module, *inputs: Tensor, **given: Any) -> QuantizationSimModel:
    sim = QuantizationSimModel(model.eval(), inputs, "tf", **given)
    sim.compute_encodings([inputs])
    return sim


def grids(sim: QuantizationSimModel) -> dict[str, str]:
    return {path: quantizer.encoding.dtype for path, quantizer in quantizers_of(sim.model) if quantizer.enabled}


@pytest.fixture
def x() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def linear(i: int = 6, o: int = 6) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(i, o)


def test_23_tuples_inside_of_the_model(x: Tensor) -> None:
    def pair(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.a(x), self.b(x)

    inner = Of(pair, a=linear(), b=linear())

    def forward(self: Any, x: Tensor) -> Tensor:
        first, second = self.inner(x)
        return first * second

    sim = simulated(Of(forward, inner=inner), x)
    assert {"inner.a.output_quantizer", "inner.b.output_quantizer"} <= set(grids(sim))


def test_24_25_every_result_of_a_split_has_the_grid_of_what_is_split(x: Tensor) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        first, second = torch.split(torch.relu(self.a(x)), [2, 4], dim=1)
        return self.b(first) + self.c(second)

    model = Of(forward, a=linear(), b=linear(2), c=linear(4))
    sim = simulated(model, x, target="ort-x86-vnni")
    reads = {layer.name: layer.input_quantizers for layer in sim.layers()}
    first, second = reads["b"][0], reads["c"][0]
    assert first is not None
    assert second is not None
    assert first.encoding.scale == second.encoding.scale
    assert torch.isfinite(sim.model(x)).all()


def test_26_tensors_given_by_keyword_are_quantized(x: Tensor) -> None:
    def forward(self: Any, x: Tensor, other: Tensor) -> Tensor:
        return self.a(x) * other

    model = Of(forward, a=linear()).eval()
    sim = QuantizationSimModel(model, {"x": x, "other": x + 1}, "tf")
    assert {"x_quantizer", "other_quantizer"} <= set(grids(sim))


def test_27_operators_of_many_inputs(x: Tensor) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), x, self.b(x)], dim=1)

    sim = simulated(Of(forward, a=linear(), b=linear()), x, target="ort-x86-vnni")
    (concat,) = [layer for layer in sim.layers() if layer.op == "Concat"]
    assert len([each for each in concat.input_quantizers if each is not None]) == 3


def test_28_parameters_that_forward_reads_itself_are_quantized(x: Tensor) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return x @ self.table

    sim = simulated(Of(forward, table=nn.Parameter(torch.randn(6, 5))), x)
    assert any("table" in path for path in grids(sim))


def test_29_a_class_that_nobody_registered_is_no_error(x: Tensor) -> None:
    class Mine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    sim = simulated(nn.Sequential(linear(), Mine(), linear()), x)
    assert {"0.weight_quantizer", "2.weight_quantizer"} <= set(grids(sim))
    assert torch.isfinite(sim.model(x)).all()


@pytest.mark.parametrize("flag", ["strict_symmetric", "unsigned_symmetric"])
def test_31_32_strict_and_unsigned_symmetric_grids_are_simulated_and_trained(
    x: Tensor, tmp_path: Path, flag: str
) -> None:
    defaults = {
        "ops": {"is_output_quantized": "True", "is_symmetric": "True"},
        "params": {"is_quantized": "True"},
        flag: True,
    }
    config = tmp_path / "config.json"
    sections = {"params": {}, "op_type": {}, "supergroups": [], "model_input": {}, "model_output": {}}
    config.write_text(json.dumps({"defaults": defaults, **sections}))
    model = nn.Sequential(linear(), nn.ReLU(), linear()).eval()
    sim = QuantizationSimModel(model, x, "training_range_learning_with_tf_init", config_file=config)
    sim.compute_encodings([x])
    before = {name: value.clone() for name, value in sim.model.state_dict().items()}
    optimizer = torch.optim.SGD(sim.model.parameters(), lr=0.1)
    sim.model(x).square().mean().backward()
    optimizer.step()
    assert any(name.endswith("scale") and not torch.equal(value, before[name])
               for name, value in sim.model.state_dict().items())  # fmt: skip
    lows = {quantizer.encoding.low for _, quantizer in quantizers_of(sim.model)}
    assert (-127 in lows) if flag == "strict_symmetric" else (0 in lows)


def test_38_bf16_and_fp8_are_simulated(x: Tensor) -> None:
    model = nn.Sequential(linear(), nn.ReLU()).eval()
    sim = QuantizationSimModel(model, x, "tf", default_output_bw=8, default_param_bw=8,
                               default_data_type=QuantizationDataType.float)  # fmt: skip
    sim.compute_encodings([x])
    assert set(grids(sim).values()) == {"f8e4m3"}
    assert 0 < (sim.model(x) - model(x)).abs().max() < 0.5


def test_41_a_checkpoint_holds_no_code(x: Tensor, tmp_path: Path) -> None:
    sim = simulated(nn.Sequential(linear(), nn.ReLU()), x)
    save_checkpoint(sim, tmp_path / "sim.ckpt")
    data = (tmp_path / "sim.ckpt").read_bytes()
    assert not data.startswith((b"PK", b"\x80"))
    assert torch.equal(load_checkpoint(tmp_path / "sim.ckpt").model(x), sim.model(x))


@pytest.mark.parametrize("scheme", ["post_training_tf", "training_range_learning_with_tf_init"])
@pytest.mark.parametrize("training", [False, True])
def test_44_static_and_learned_grids_round_as_onnx(scheme: str, training: bool) -> None:
    sim = QuantizationSimModel(nn.Sequential(nn.Identity()), torch.zeros(1), scheme)
    sim.compute_encodings(lambda model, _: model(torch.tensor([-127.0, 128.0])))
    quantizer = next(quantizer for _, quantizer in quantizers_of(sim.model) if quantizer.enabled)
    ties = torch.arange(-126.5, 127.5)
    sim.model.train(training)
    assert quantizer.encoding.scale == 1.0
    node = onnx.helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    of_onnx = ReferenceEvaluator(node).run(None, {"x": ties.numpy(), "scale": np.float32(1), "zero": np.uint8(127)})[0]
    assert torch.equal(sim.model(ties).detach(), torch.from_numpy(of_onnx.astype(np.float32)) - 127)


def calls_of(work: Callable[[], object]) -> int:
    """How many functions Python calls."""
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("kind", [TorchHistogram, Histogram])
def test_48_observing_and_merging_loop_over_neither_channels_nor_bins(kind: type[Histogram]) -> None:
    def work(channels: int) -> None:
        encoding = Encoding("i8", symmetric=True, axis=0)
        narrow, wide = kind(encoding), kind(encoding)
        for seen, factor in ((narrow, 1), (wide, 100)):
            values = torch.linspace(-factor, factor, 64).repeat(channels, 1)
            seen.see(values if kind is TorchHistogram else values.numpy())
        narrow.merge(wide)
        assert narrow.counts is not None
        assert narrow.counts.sum(1).tolist() == [128] * channels

    work(4)
    assert calls_of(lambda: work(256)) <= calls_of(lambda: work(4)) + 20


@pytest.fixture
def exported(x: Tensor, tmp_path: Path) -> tuple[QuantizationSimModel, Path]:
    model = nn.Sequential(linear(), nn.ReLU(), nn.Unflatten(1, (2, 3)), nn.Flatten(), linear())
    sim = simulated(model, x)
    sim.export(tmp_path, "net", x)
    return sim, tmp_path


def test_51_52_every_quantized_tensor_of_the_file_has_an_entry(exported: tuple[QuantizationSimModel, Path]) -> None:
    sim, folder = exported
    document = json.loads((folder / "net.encodings").read_text())
    entries = {entry["name"] for section in ("activation_encodings", "param_encodings") for entry in document[section]}
    graph = onnx.load(str(folder / "net.onnx")).graph
    tensors = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    tensors |= {name for node in graph.node for name in node.output}
    assert entries <= tensors
    assert len(entries) == len(grids(sim))


def test_53_a_qdq_export_is_one_argument(x: Tensor, exported: tuple[QuantizationSimModel, Path]) -> None:
    sim, folder = exported
    for given in ({"format": "qdq"}, {"use_embedded_encodings": True}):
        sim.export(folder, "qdq", x, **given)
        model = onnx.load(str(folder / "qdq.onnx"))
        assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
        (values,) = session(model, optimize=False).run(None, {model.graph.input[0].name: x.numpy()})
        np.testing.assert_allclose(values, sim.model(x).detach().numpy(), atol=1e-5)


def test_54_exported_weights_are_not_rounded(exported: tuple[QuantizationSimModel, Path]) -> None:
    sim, folder = exported
    state = torch.load(folder / "net.pth", weights_only=True)
    assert torch.equal(state["0.weight"], sim.model.get_parameter("0.weight"))
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(folder / "net.onnx")).graph.initializer}
    assert np.array_equal(held["0.weight"], sim.model.get_parameter("0.weight").detach().numpy())


def test_55_56_no_dummy_input_any_batch_any_opset(x: Tensor, exported: tuple[QuantizationSimModel, Path]) -> None:
    sim, folder = exported
    sim.export(folder, "other", onnx_export_args={"opset_version": 17})
    model = onnx.load(str(folder / "other.onnx"))
    assert model.opset_import[0].version == 17
    (values,) = session(model).run(None, {model.graph.input[0].name: torch.cat([x, x, x]).numpy()})
    assert values.shape == (12, 6)


def test_55_what_export_does_not_know_is_refused(exported: tuple[QuantizationSimModel, Path]) -> None:
    sim, folder = exported
    with pytest.raises(QirError, match="knows no"):
        sim.export(folder, "other", onnx_export_args={"operator_export_type": 1})
    with pytest.raises(QirError, match="export_model=False"):
        sim.export(folder, "other", export_model=False)
    with pytest.raises(QirError, match="no version"):
        sim.export(folder, "other", version="9.9")
    assert not list(folder.glob("other*"))


def test_57_grids_for_each_channel_of_an_activation_are_written() -> None:
    graph = qir.parse(
        "graph @g(%x: f32[2,3]) {\n  %q = qir.Quantize %x {encoding=$e} : f32[2,3] [x_quantizer]\n"
        "  %y = Relu %q : f32[2,3] [act]\n  return %y\n"
        "  $e = u8 asymmetric axis=1 scale=[0.5, 0.25, 1.0] zero_point=[1, 2, 3]\n}\n"
    )
    from qir.encodings.apply import encodings_of
    from qir.encodings.file import encodings_document

    (entry,) = encodings_document(encodings_of(graph), "1.0.0")["activation_encodings"]
    assert entry["scale"] == [0.5, 0.25, 1.0]


def test_58_a_linear_layer_keeps_the_dequantized_weight_in_place(x: Tensor) -> None:
    sim = simulated(nn.Sequential(linear()), x, target="ort-x86-vnni")
    nodes = sim.quantized().onnx().graph.node
    gemm = next(node for node in nodes if node.op_type == "Gemm")
    producers = {node.output[0]: node.op_type for node in nodes}
    assert producers[gemm.input[1]] == "DequantizeLinear"
    assert "Transpose" not in producers.values()


def test_58_half_precision_is_written(x: Tensor, tmp_path: Path) -> None:
    model = nn.Sequential(linear(), nn.ReLU()).eval()
    sim = QuantizationSimModel(model, x, "tf", default_output_bw=16, default_param_bw=16,
                               default_data_type=QuantizationDataType.float)  # fmt: skip
    sim.compute_encodings([x])
    sim.export(tmp_path, "half", x)
    document = json.loads((tmp_path / "half.encodings").read_text())
    entries = document["activation_encodings"] + document["param_encodings"]
    assert {(entry["dtype"], entry["bw"]) for entry in entries} == {("FLOAT", 16)}
    casts = [node for node in sim.quantized().onnx().graph.node if node.op_type == "Cast"]
    assert onnx.TensorProto.FLOAT16 in {node.attribute[0].i for node in casts}
