"""Tables of embeddings are stored in integers, which are looked up and then dequantized."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

import qir
from qir import QuantizationSimModel
from qir.backends.onnx_qdq import emit_onnx, executed_operators
from qir.backends.torch_module import emit_torch
from qir.frontends.onnx_model import import_onnx
from qir.passes.fold_qdq import FoldQdq
from qir.quantizers import quantizers
from tests.quantizing import disagreements, equal_values, shipped, simulated

ROWS, FEATURES = 50, 16
TOKENS = torch.arange(24).reshape(4, 6) % ROWS


class Language(nn.Module):
    """A small language model, whose last layer may read the table of its first."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Embedding(ROWS, FEATURES), nn.LayerNorm(FEATURES)
        self.head = nn.Linear(FEATURES, ROWS, bias=False)
        self.register_buffer("places", torch.randn(8, FEATURES))
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        places = self.places[tokens % 8]
        return self.head(self.norm(self.embed(tokens)) + places)


def quantized(*, tied: bool = False, insert: str = "") -> qir.Quantized:
    return qir.quantize(Language(tied=tied).eval(), data=[TOKENS], insert=insert)


def stored(model: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """The dtype and the number of elements of every large initializer."""
    return {tensor.name: (tensor.data_type, int(np.prod(tensor.dims))) for tensor in model.graph.initializer
            if np.prod(tensor.dims) > 100}  # fmt: skip


def same_as_simulated(found: qir.Quantized, tokens: Tensor) -> bool:
    ran, computed = shipped(found.onnx(), [tokens]), simulated(found.simulator("integer"), [tokens])
    count, of = equal_values(ran, computed)
    return count == of


def test_a_table_is_stored_in_integers_and_those_are_looked_up() -> None:
    found = quantized()
    model = found.onnx()
    table = ROWS * FEATURES
    assert stored(model) == {
        "embed.weight_quantized": (TensorProto.INT8, table),
        "head.weight_transposed_quantized": (TensorProto.INT8, table),
        "places": (TensorProto.FLOAT, 8 * FEATURES),
    }
    [lookup, places] = [node for node in model.graph.node if node.op_type == "Gather"]
    assert (lookup.input[0], places.input[0]) == ("embed.weight_quantized", "places")
    assert sorted(each.integer for each in executed_operators(model) if each.op == "Gather") == [False, True]
    assert disagreements(model) == []


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("insert", ["", "per_channel=false", "param_bw=4"])
def test_what_is_looked_up_is_what_the_simulators_look_up(tied: bool, insert: str) -> None:
    found = quantized(tied=tied, insert=insert)
    values = found.simulator()(TOKENS), found.simulator("integer")(TOKENS)
    torch.testing.assert_close(*values, atol=0.05, rtol=0)
    node = next(node for node in found.graph.nodes() if node.op == "Gather")
    table = node.operands[0].node
    values_of = table.attrs["encoding"].dequantize(table.attrs["encoding"].quantize(table.operands[0].array))
    rows = found.qdq_graph()
    rows.outputs, rows.structure = [next(v for v in _results(rows) if v.hint == node.result.hint)], None
    expected = values_of[TOKENS.numpy()]
    for run in (emit_torch(_prepared(rows)), lambda x: torch.from_numpy(_ran(rows, x))):
        np.testing.assert_array_equal(run(TOKENS).numpy(), expected)


def _results(graph: qir.Graph) -> list[qir.Value]:
    return [result for node in graph.nodes() for result in node.results]


def _prepared(graph: qir.Graph) -> qir.Graph:
    copy = graph.copy()
    for node in reversed(copy.nodes()):
        copy.erase_dead(node)
    return qir.Pipeline.parse("lift-functionals,unroll-modules").run(copy)


def _ran(graph: qir.Graph, tokens: Tensor) -> np.ndarray:
    return shipped(emit_onnx(_prepared(graph)), [tokens])[0]


def test_a_tied_table_has_a_grid_for_features_here_and_for_outputs_there() -> None:
    found = quantized(tied=True)
    grids = {str(node.operands[0].type): node.attrs["encoding"].axis for node in quantizers(found.graph)
             if node.operands[0].weight is not None}  # fmt: skip
    assert grids == {f"f32[{ROWS},{FEATURES}]": 1, f"f32[{FEATURES},{ROWS}]": 1}
    assert [kind for kind, _ in stored(found.onnx()).values()].count(TensorProto.INT8) == 2


def test_the_whole_model_runs_as_it_is_simulated_where_no_float_operator_stands_between() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Embedding(ROWS, FEATURES), nn.Embedding(ROWS, FEATURES)
            self.head = nn.Linear(FEATURES, 5)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.first(tokens) + self.second(tokens))

    torch.manual_seed(0)
    found = qir.quantize(Sum().eval(), data=[TOKENS])
    assert same_as_simulated(found, TOKENS.flip(0))


def test_every_feature_has_its_own_grid_and_loses_no_more_than_half_a_step() -> None:
    found = quantized()
    [table] = [node for node in quantizers(found.graph) if node.module == "embed.weight_quantizer"]
    scale, weight = table.attrs["encoding"].scale, table.operands[0].array
    assert scale.shape == (FEATURES,)
    values = table.attrs["encoding"].dequantize(table.attrs["encoding"].quantize(weight))
    assert np.all(np.abs(values - weight) <= scale * 0.5001)


def test_a_table_trains_in_the_simulator_and_is_written_as_it_is_then() -> None:
    simulator = QuantizationSimModel(Language(tied=False).eval(), TOKENS, target="ort-x86-vnni")
    simulator.compute_encodings([TOKENS])
    weight, looked_up = (line.split()[-7:] for line in str(simulator).splitlines()[1:3])
    assert (weight[1:5], looked_up) == (["i8", "symmetric", "narrow", "axis=1"], ["output", "0", "float"])
    before = simulator.model.embed.weight.detach().clone()
    simulator.model(TOKENS).square().sum().backward()
    with torch.no_grad():
        simulator.model.embed.weight -= 0.01 * simulator.model.embed.weight.grad
    assert not torch.equal(simulator.model.embed.weight, before)
    ran = shipped(simulator.quantized().onnx(), [TOKENS])
    np.testing.assert_allclose(ran[0], simulator.model(TOKENS).detach().numpy(), atol=0.2)


def test_a_config_quantizes_tables_with_one_scale_and_its_file_looks_up_integers(tmp_path: Path) -> None:
    simulator = QuantizationSimModel(Language(tied=False).eval(), TOKENS)
    simulator.compute_encodings([TOKENS])
    simulator.export(tmp_path, "net", format="qdq")
    model = onnx.load(tmp_path / "net.onnx")
    [lookup] = [node for node in model.graph.node if node.op_type == "Gather" and node.input[0] != "places"]
    tables = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert tables[lookup.input[0]].dtype == np.int8
    [dequantize] = [node for node in model.graph.node if node.input[0] == lookup.output[0]]
    assert (dequantize.op_type, tables[dequantize.input[1]].ndim) == ("DequantizeLinear", 0)


def test_a_file_with_tables_is_read_and_written_again() -> None:
    model = quantized().onnx()
    graph = import_onnx(model)
    FoldQdq().run(graph)
    assert [node.op for node in graph.nodes() if "Linear" in node.op] == []
    legal = qir.Pipeline.parse("legalize-onnx,gather-integers").run(graph)
    np.testing.assert_array_equal(shipped(emit_onnx(legal), [TOKENS])[0], shipped(model, [TOKENS])[0])
    assert set(stored(emit_onnx(legal)).values()) == set(stored(model).values())


def test_a_profile_without_tables_leaves_them_in_float(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text('extends = "ort-x86-vnni"\n[operators]\ntables = []\n')
    found = qir.quantize(Language(tied=False).eval(), data=[TOKENS], target=str(profile))
    assert stored(found.onnx())["embed.weight"] == (TensorProto.FLOAT, ROWS * FEATURES)
    assert any("weight of Gather stays in float" in reason.reason for reason in found.why("embed.weight"))


def test_a_table_of_one_number_for_each_row_has_one_scale() -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias, self.fc = nn.Parameter(torch.randn(ROWS)), nn.Linear(6, 6)

        def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
            return self.fc(x) + self.bias[tokens]

    torch.manual_seed(0)
    batch = [TOKENS, torch.randn(4, 6)]
    found = qir.quantize(Biased().eval(), data=[batch])
    [table] = [node for node in quantizers(found.graph) if node.module == "bias_quantizer"]
    assert table.attrs["encoding"].axis is None
    count, of = equal_values(shipped(found.onnx(), batch), simulated(found.simulator("integer"), batch))
    assert count == of
