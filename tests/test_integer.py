"""Quantized models: the integer simulator equals onnxruntime, and the file that is shipped is as it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

import qir
from qir.backends.onnx_qdq import executed_operators
from qir.facts import computes
from tests.comparing import tensors
from tests.model_table import Example
from tests.models import SMALL, TORCHVISION
from tests.quantizing import equal_values, quantized, shipped, simulated


def each(examples: Iterable[Example]) -> pytest.MarkDecorator:
    cases = [pytest.param(e, id=e.name, marks=pytest.mark.slow if e.name in TORCHVISION else ()) for e in examples]
    return pytest.mark.parametrize("example", cases)


CNNS = [example for example in [*SMALL.values(), *TORCHVISION.values()] if example.is_cnn]
PARTLY = ("arithmetic", "buffers", "dropout_order", "nested", "in_place")
WITH_FLOAT_PARTS = [SMALL[name] for name in PARTLY]
SAME_NAME = {"NhwcMaxPool": "MaxPool"}
ALWAYS_INTEGER = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "Add", "Mul", "MaxPool", "AveragePool",
                  "GlobalAveragePool", "Concat", "Sigmoid", "LeakyRelu"}  # fmt: skip


@each([*CNNS, *WITH_FLOAT_PARTS])
@pytest.mark.parametrize("batch", [1, 3])
def test_integer_simulator_equals_onnxruntime(example: Example, batch: int) -> None:
    quantization = quantized(example)
    inputs = example.inputs(batch, seed=70 + batch)
    expected = shipped(quantization.onnx(), inputs)
    equal, of = equal_values(simulated(quantization.simulator("integer"), inputs), expected)
    assert equal == of
    assert all(np.ptp(array) > 0 for array in expected)


def test_what_ends_in_float_operators_differs_in_their_last_digits_alone() -> None:
    example = SMALL["called_twice"]
    inputs = example.inputs(3, seed=73)
    expected = shipped(quantized(example).onnx(), inputs)
    for ours, theirs in zip(simulated(quantized(example).simulator("integer"), inputs), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@each(CNNS)
def test_cnn_runs_on_integers_from_end_to_end(example: Example) -> None:
    floats = {executed.op for executed in executed_operators(quantized(example).onnx()) if not executed.integer}
    conversions = {"QuantizeLinear", "DequantizeLinear"}
    assert floats - conversions == ({"BatchNormalization"} if example.name == "densenet121" else set())
    assert not floats & ALWAYS_INTEGER


@each([*CNNS, *WITH_FLOAT_PARTS])
def test_fused_operators_are_those_that_onnxruntime_runs(example: Example) -> None:
    quantization = quantized(example)
    running = executed_operators(quantization.onnx())
    theirs = Counter(SAME_NAME.get(executed.op, executed.op) for executed in running if executed.integer)
    nodes = quantization.integer_graph().nodes()
    ours = Counter(node.op.rpartition(".")[2] for node in nodes if node.result.type.dtype == "u8" or "Q" in node.op)
    del theirs["Transpose"]  # onnxruntime changes the layout around convolutions
    for name in ("QuantizeLinear", "DequantizeLinear", "Transpose"):
        del ours[name]
    assert ours == theirs


@each(CNNS)
def test_file_is_what_onnxruntime_fuses(example: Example) -> None:
    model = quantized(example).onnx()
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
    assert model.ir_version == 10
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = set()
    for node in model.graph.node:
        assert node.op_type != "BatchNormalization" or example.name == "densenet121"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _, scale, zero = node.input
            assert held[scale].dtype == np.float32
            assert held[scale].shape == held[zero].shape
            weights |= {node.input[0]} & set(held)
            assert held[scale].ndim == 0 or node.input[0] in held
    assert weights


@each(CNNS)
def test_bias_lies_on_the_grid_of_its_accumulator(example: Example) -> None:
    model = quantized(example).onnx()
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    source = {node.output[0]: node for node in model.graph.node}
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm") and len(node.input) > 2]
    assert layers
    for layer in layers:
        x, weight, bias = (source[name] for name in layer.input)
        assert held[bias.input[0]].dtype == np.int32
        assert held[weight.input[0]].dtype == np.int8
        assert np.array_equal(held[bias.input[1]], held[x.input[1]] * held[weight.input[1]])


@each(CNNS)
def test_float_simulator_can_be_trained_and_scores_alike(example: Example) -> None:
    quantization = quantized(example)
    module = quantization.simulator("float")
    inputs = [value.requires_grad_() for value in example.inputs(batch=3, seed=8)]
    (output,) = tensors(module(*inputs))
    (integer,) = simulated(quantization.simulator("integer"), example.inputs(batch=3, seed=8))
    assert np.corrcoef(output.detach().numpy().ravel(), integer.ravel())[0, 1] > 0.95
    (output * torch.randn_like(output)).sum().backward()  # type: ignore[no-untyped-call]
    for name, tensor in [*module.named_parameters(), *enumerate(inputs)]:
        assert tensor.grad is not None, name
        assert tensor.grad.isfinite().all(), name
        assert tensor.grad.any(), name


def test_what_stays_in_float_says_why() -> None:
    notes = {note.module: note.reason for note in quantized(SMALL["arithmetic"]).float_operators()}
    assert notes
    assert all("no integer kernel" in reason for reason in notes.values())
    assert not quantized(SMALL["digits_net"]).float_operators()
    twice = quantized(SMALL["called_twice"])
    assert {note.op for note in twice.float_operators()} == {"BatchNormalization", "Relu", "Add"}
    folded = [node for node in twice.graph.nodes() if computes(node) and node.op == "BatchNormalization"]
    assert len(folded) == 2


class TiedHead(torch.nn.Module):
    """An embedding whose weight is the output layer's, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = torch.nn.Embedding(20, 8), torch.nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(x))


@pytest.mark.parametrize("trainable", [True, False])
def test_an_integer_layer_has_its_own_weight_where_the_model_ties_it(trainable: bool) -> None:
    torch.manual_seed(0)
    x = torch.randint(0, 20, (4, 5))
    quantized = qir.quantize(TiedHead().eval().requires_grad_(trainable), data=[x])
    simulated = quantized.simulator("integer")(x).detach().numpy()
    run = onnxruntime.InferenceSession(quantized.onnx().SerializeToString())
    assert np.array_equal(run.run(None, {run.get_inputs()[0].name: x.numpy()})[0], simulated)
