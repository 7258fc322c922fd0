"""QuantizationSimModel: AIMET's interface on quantizers that are nodes of the graph."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import QuantizationDataType, QuantizationSimModel, QuantScheme
from qir.backends.onnx_qdq import session
from qir.backends.torch_quantizers import quantizers_of
from qir.errors import QirError

TARGET = "ort-x86-vnni"


class Net(nn.Module):
    """Convolutions, a residual sum, functionals, dropout, and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.drop = nn.Dropout(0.25)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv1(x)))
        x = F.relu(x + self.conv2(x))
        return self.fc(self.drop(x.mean((2, 3))))


class TwoInputs(nn.Module):
    """An input by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
        return self.fc(x) if scale is None else self.fc(x) * scale


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    made = Net()
    made.train()
    for _ in range(3):
        made(torch.randn(8, 3, 6, 6))
    return made.eval()


def batches(count: int = 3, seed: int = 1) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(4, 3, 6, 6, generator=random) for _ in range(count)]


def calibrated(model: nn.Module, scheme: Any = "tf", target: str | None = None, **given: Any) -> QuantizationSimModel:
    sim = QuantizationSimModel(model, batches(1)[0], scheme, target=target, **given)
    sim.compute_encodings(batches())
    return sim


PLACES = [None, TARGET]


@pytest.mark.parametrize("scheme", [*QuantScheme.__members__, "tf", "tf_enhanced", "percentile", *QuantScheme])
def test_every_scheme_simulates(model: nn.Module, scheme: Any) -> None:
    sim = calibrated(model, scheme)
    x = batches(1, seed=5)[0]
    apart = (sim.model(x) - model(x)).abs().max()
    assert 0 < apart < 0.2
    learned = any(name.endswith("scale") for name, _ in sim.model.named_parameters())
    assert learned == QuantScheme.of(scheme).learned


@pytest.mark.parametrize("target", PLACES)
def test_a_callback_and_an_iterable_give_the_same_encodings(model: nn.Module, target: str | None) -> None:
    sim = QuantizationSimModel(model, batches(1)[0], target=target)
    samples = [sample for batch in batches() for sample in batch.split(1)]
    seen: list[Any] = []

    def callback(found: nn.Module, data: list[Tensor]) -> None:
        seen.append((found.training, torch.is_grad_enabled()))
        for batch in data:
            found(batch)

    sim.compute_encodings(callback, samples)
    other = QuantizationSimModel(model, batches(1)[0], target=target)
    other.compute_encodings(iter(batches()))
    assert seen == [(False, False)]
    assert same_state(sim.model, other.model)


def same_state(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("target", PLACES)
@pytest.mark.parametrize("scheme", ["tf", "tf_enhanced"])
def test_encodings_do_not_depend_on_how_the_data_is_split(model: nn.Module, target: str | None, scheme: str) -> None:
    data = torch.cat(batches(4))
    shuffled = data[torch.randperm(len(data), generator=torch.Generator().manual_seed(3))]
    found = []
    for split in (data.split(16), data.split(5), data.split(1), shuffled.split(7)):
        sim = QuantizationSimModel(model, data[:1], scheme, target=target)
        sim.compute_encodings(split)
        found.append(sim.model)
    assert all(same_state(found[0], other) for other in found[1:])


def test_samples_that_depend_on_each_other_are_run_together() -> None:
    class Centred(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x - x.mean(0, keepdim=True))

    sim = QuantizationSimModel(Centred().eval(), torch.randn(4, 3), "tf")
    sim.compute_encodings([torch.randn(4, 3), torch.randn(4, 3)])
    assert float(dict(quantizers_of(sim.model))["module_relu.output_quantizer"].encoding.scale) > 0


def test_corrected_biases_keep_the_means_of_float(model: nn.Module) -> None:
    data = batches(6)
    sim = calibrated(model, default_param_bw=3)

    def error(found: nn.Module) -> float:
        with torch.no_grad():
            return float((torch.cat([found(x) - model(x) for x in data]).mean(0)).abs().max())

    before = error(sim.model)
    assert qir.correct_biases(sim, data) == ["conv1", "fc"]
    assert error(sim.model) < before / 3
    assert all(quantizer.enabled for _, quantizer in quantizers_of(sim.model))


def test_what_is_quantized_by_the_default_config(model: nn.Module) -> None:
    sim = QuantizationSimModel(model, batches(1)[0])
    paths = {path for path, _ in quantizers_of(sim.model)}
    assert {"x_quantizer", "conv1.weight_quantizer", "conv2.weight_quantizer", "fc.output_quantizer"} <= paths
    assert not any("bias" in path for path in paths)


def test_layers_show_their_quantizers(model: nn.Module) -> None:
    sim = calibrated(model, target=TARGET)
    layers = dict(sim.quant_wrappers())
    conv = layers["conv1"]
    assert set(conv.param_quantizers) == {"weight", "bias"}
    assert conv.input_quantizers[0] is dict(quantizers_of(sim.model))["x_quantizer"]
    assert layers["conv2"].input_quantizers[0] is layers["module_relu"].output_quantizers[0]
    table = str(sim)
    assert "conv1" in table
    assert "i8 symmetric narrow axis=0" in table
    assert "?" not in table


class Moving(nn.Module):
    """Layers that write what they read: pooling, dropout, and an embedding; and one that does not, on a float."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.drop, self.fc = nn.MaxPool1d(2), nn.Dropout(), nn.Linear(4, 4)
        self.embed, self.after = nn.Embedding(9, 8), nn.Dropout()

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.drop(self.pool(torch.sigmoid(self.embed(tokens))))
        return self.fc(x), self.after(torch.tanh(x))


def grids_in(table: str) -> dict[str, str]:
    """The grid of the output of every layer, as the table has it."""
    found, layer = {}, ""
    for line in table.splitlines()[1:]:
        layer = line.split()[0] if not line.startswith(" ") else layer
        if "output 0" in line:
            found[layer] = line.partition("output 0")[2].strip()
    return found


@pytest.mark.parametrize("target", [None, TARGET])
def test_what_a_layer_only_moves_is_shown_on_the_grid_that_it_lies_on(target: str | None) -> None:
    torch.manual_seed(0)
    sim = QuantizationSimModel(Moving().eval(), torch.zeros(2, 5, dtype=torch.long), target=target)
    sim.compute_encodings([torch.arange(10).reshape(2, 5) % 9])
    grids = grids_in(str(sim))
    assert grids["module_sigmoid"].startswith("u8 asymmetric")
    assert grids["pool"] == grids["module_sigmoid"]


def test_what_is_moved_is_float_where_it_is_not_rounded() -> None:
    torch.manual_seed(0)
    tokens = torch.arange(10).reshape(2, 5) % 9
    sim = QuantizationSimModel(Moving().eval(), tokens)
    sim.compute_encodings([tokens])
    weight = next(line.partition("weight")[2].strip() for line in str(sim).splitlines() if line.startswith("embed"))
    assert grids_in(str(sim))["embed"] == weight
    layers = {layer.name: layer for layer in sim.layers()}
    assert layers["drop"].output_quantizers == [None]
    assert layers["drop"].output_grids == layers["module_sigmoid"].output_quantizers
    layers["module_sigmoid"].output_quantizers[0].enabled = False
    assert {grids_in(str(sim))[name] for name in ("pool", "drop")} == {"float"}


def test_widths_and_types(model: nn.Module) -> None:
    sim = calibrated(model, default_output_bw=16, default_param_bw=4)
    encodings = {path: quantizer.encoding for path, quantizer in quantizers_of(sim.model)}
    assert encodings["conv1.weight_quantizer"].dtype == "i4"
    assert encodings["x_quantizer"].dtype == "u16"
    half = QuantizationSimModel(
        model, batches(1)[0], default_output_bw=16, default_param_bw=16, default_data_type=QuantizationDataType.float
    )
    half.compute_encodings(batches())
    assert {quantizer.encoding.dtype for _, quantizer in quantizers_of(half.model)} == {"f16"}


@pytest.mark.parametrize("target", PLACES)
def test_excluded_layers_stay_in_float(model: nn.Module, target: str | None) -> None:
    sim = QuantizationSimModel(model, batches(1)[0], target=target)
    sim.exclude_layers_from_quantization([sim.model.conv1, "fc"])
    sim.compute_encodings(batches())
    enabled = {path for path, quantizer in quantizers_of(sim.model) if quantizer.enabled}
    assert not any(path.startswith(("conv1.", "fc.")) for path in enabled)
    assert "conv2.weight_quantizer" in enabled
    sim.model(batches(1)[0])
    graph = sim.quantized().graph
    assert "conv1.weight_quantizer" not in {node.module for node in graph.nodes()}


def test_everything_excluded_is_the_model(model: nn.Module) -> None:
    sim = QuantizationSimModel(model, batches(1)[0])
    sim.exclude_layers_from_quantization([sim.model])
    for _, quantizer in quantizers_of(sim.model):
        quantizer.enabled = False
    x = batches(1)[0]
    assert torch.equal(sim.model(x), model(x))


def test_training_flags_and_dropout_follow_the_model(model: nn.Module) -> None:
    model.train()
    model.norm.eval()
    sim = QuantizationSimModel(model, batches(1)[0])
    assert sim.model.training
    assert not sim.model.norm.training
    assert sim.model.drop.training


@pytest.mark.parametrize("in_place", [False, True])
def test_in_place_shares_parameters(model: nn.Module, in_place: bool) -> None:
    sim = calibrated(model, in_place=in_place)
    with torch.no_grad():
        sim.model.conv1.weight.zero_()
    assert bool((model.conv1.weight == 0).all()) == in_place


@pytest.mark.parametrize("scheme", ["tf", "training_range_learning_with_tf_init"])
@pytest.mark.parametrize("target", PLACES)
def test_training_then_shipping(model: nn.Module, scheme: str, target: str | None) -> None:
    sim = calibrated(model, scheme, target=target)
    before = {name: value.clone() for name, value in sim.model.state_dict().items()}
    optimizer = torch.optim.SGD(sim.model.parameters(), lr=0.05)
    sim.model.train()
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(sim.model(batches(1)[0]), torch.tensor([0, 1, 2, 3]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    sim.model.eval()
    moved = {name for name, value in sim.model.state_dict().items() if not torch.equal(value, before[name])}
    assert "conv1.weight" in moved
    assert any(name.endswith("grid.scale") for name in moved) == (scheme != "tf")
    shipped = sim.quantized()
    x = batches(1, seed=9)[0]
    running = session(shipped.onnx(), optimize=False)
    (values,) = running.run(None, {running.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(values, sim.model(x).detach().numpy(), atol=0.02)
    if target is not None:
        (integers,) = session(shipped.onnx()).run(None, {running.get_inputs()[0].name: x.numpy()})
        assert np.array_equal(integers, shipped.simulator("integer")(x).detach().numpy())


@pytest.mark.parametrize("scheme", ["tf", "training_range_learning_with_tf_init"])
def test_the_simulator_is_an_ordinary_module(model: nn.Module, scheme: str) -> None:
    sim = calibrated(model, scheme)
    x = batches(1)[0]
    twin = copy.deepcopy(sim.model)
    assert torch.equal(twin(x), sim.model(x))
    with torch.autocast("cpu", torch.bfloat16):
        loss = sim.model(x).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in sim.model.parameters() if p.requires_grad)
    other = QuantizationSimModel(model, x, scheme)
    other.compute_encodings(batches(1, seed=30))
    other.model.load_state_dict(sim.model.state_dict())
    assert torch.equal(other.model(x), sim.model(x))


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["tf", "training_range_learning_with_tf_init"])
def test_it_compiles_without_a_graph_break(model: nn.Module, scheme: str) -> None:
    sim = calibrated(model, scheme)
    x = batches(1)[0]
    compiled = torch.compile(sim.model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), sim.model(x), atol=1e-5, rtol=0)
    compiled(x).sum().backward()


def test_models_with_keywords_and_graphs() -> None:
    model = TwoInputs().eval()
    sim = QuantizationSimModel(model, {"x": torch.randn(3, 4), "scale": torch.randn(3, 1)}, "tf")
    sim.compute_encodings([{"x": torch.randn(3, 4), "scale": torch.randn(3, 1)}])
    assert sim.model(x=torch.randn(3, 4), scale=torch.ones(3, 1)).shape == (3, 4)
    graph = qir.import_model(model, [torch.randn(2, 4)])
    of_graph = QuantizationSimModel(graph, None, "tf", target=TARGET)
    of_graph.compute_encodings([torch.randn(2, 4)])
    assert of_graph.model(torch.randn(2, 4)).shape == (2, 4)


def test_loaded_encodings_give_bit_equal_outputs(model: nn.Module) -> None:
    sim = calibrated(model)
    found = sim.encodings()
    other = QuantizationSimModel(model, batches(1)[0])
    other.load_encodings(found)
    x = batches(1, seed=4)[0]
    assert torch.equal(other.model(x), sim.model(x))


def test_frozen_parameters_keep_their_encodings(model: nn.Module) -> None:
    coarse = calibrated(model, "tf")
    for _, quantizer in quantizers_of(coarse.model):
        encoding = quantizer.encoding
        quantizer.set_encoding(encoding.with_range(np.float32(-9) * np.ones(()), np.float32(9) * np.ones(())))
    sim = QuantizationSimModel(model, batches(1)[0], "tf")
    sim.set_and_freeze_param_encodings(coarse.encodings())
    sim.compute_encodings(batches())
    scales = {path: float(quantizer.encoding.scale) for path, quantizer in quantizers_of(sim.model)}
    assert scales["conv1.weight_quantizer"] == pytest.approx(9 / 127)
    assert scales["x_quantizer"] < 9 / 255


def test_partial_and_frozen_loading(model: nn.Module) -> None:
    sim = calibrated(model)
    found = sim.encodings()
    found["activation_encodings"].pop()
    other = QuantizationSimModel(model, batches(1)[0])
    other.load_encodings(found, partial=False, allow_overwrite=False)
    enabled = [quantizer.enabled for _, quantizer in quantizers_of(other.model)]
    assert enabled.count(False) == 1
    before = {path: quantizer.encoding.scale for path, quantizer in quantizers_of(other.model)}
    other.compute_encodings(batches(1, seed=8))
    for path, quantizer in quantizers_of(other.model):
        assert before[path] is None or np.array_equal(before[path], quantizer.encoding.scale)


def refusals(model: nn.Module) -> Iterator[tuple[str, Any]]:
    x = batches(1)[0]
    yield "no quantization scheme", lambda: QuantizationSimModel(model, x, "best")
    yield "no rounding mode", lambda: QuantizationSimModel(model, x, rounding_mode="stochastic")
    yield "both a config", lambda: QuantizationSimModel(model, x, config_file="default_config", target=TARGET)
    yield "bits", lambda: QuantizationSimModel(model, x, default_output_bw=33)
    yield "holds quantizers already", lambda: QuantizationSimModel(calibrated(model).model, x)
    yield "percentile of 20", lambda: calibrated(model, "percentile").set_percentile_value(20)
    yield "not calibrated", lambda: QuantizationSimModel(model, x).model(x)
    yield "has no layer", lambda: QuantizationSimModel(model, x).exclude_layers_from_quantization(["nothing"])
    yield "has no layer", lambda: QuantizationSimModel(model, x).exclude_layers_from_quantization([nn.ReLU()])
    yield "never|no data", lambda: QuantizationSimModel(model, x).compute_encodings([])
    yield "NaN", lambda: QuantizationSimModel(model, x).compute_encodings([x * float("nan")])
    yield "infinit", lambda: QuantizationSimModel(model, x).compute_encodings([x * float("inf")])


@pytest.mark.parametrize("index", range(12))
def test_bad_input_is_refused(model: nn.Module, index: int) -> None:
    message, act = list(refusals(model))[index]
    with pytest.raises(QirError, match=message):
        act()


def test_there_are_no_more_refusals(model: nn.Module) -> None:
    assert len(list(refusals(model))) == 12
