"""The verdicts of the linter are onnxruntime's, and the certificate states what the runs give."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn

import qir
from qir.api.certificate import certify
from qir.api.lint import lint
from qir.errors import QirError
from qir.quantizers import quantizers
from tests.model_table import Example
from tests.models import SMALL, TORCHVISION
from tests.quantizing import disagreements, linted, quantized

TARGET = "ort-x86-vnni"
NAMES = ["arithmetic", "buffers", "called_twice", *(name for name, example in SMALL.items() if example.is_cnn)]
LARGE = ["resnet18", "mobilenet_v2", "densenet121"]
EXAMPLES = [SMALL[name] for name in dict.fromkeys(NAMES)]


def feeds(example: Example, model: onnx.ModelProto, seed: int) -> dict[str, np.ndarray]:
    values = example.inputs(batch=4, seed=seed)
    return {entry.name: value.numpy() for entry, value in zip(model.graph.input, values, strict=True)}


@pytest.mark.parametrize(
    "example",
    [*EXAMPLES, *(pytest.param(TORCHVISION[name], marks=pytest.mark.slow) for name in LARGE)],
    ids=lambda example: example.name,
)
def test_verdicts_are_what_onnxruntime_does(example: Example) -> None:
    model = quantized(example).onnx()
    assert disagreements(model) == []
    assert linted(model)


class Encoder(nn.Module):
    """Two layers of attention and a feed-forward part, as those of BERT."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.attention = attention
        self.layers = nn.ModuleList(
            nn.ModuleDict({"qkv": nn.Linear(32, 96), "out": nn.Linear(32, 32), "up": nn.Linear(32, 128),
                           "down": nn.Linear(128, 32), "first": nn.LayerNorm(32), "second": nn.LayerNorm(32)})
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(32, 7)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            q, k, v = (part.unflatten(-1, (4, 8)).transpose(1, 2) for part in layer["qkv"](x).chunk(3, -1))
            if self.attention == "fused":
                mixed = F.scaled_dot_product_attention(q, k, v)
            else:
                mixed = (q @ k.transpose(-1, -2) / 8**0.5).softmax(-1) @ v
            x = layer["first"](x + layer["out"](mixed.transpose(1, 2).flatten(2)))
            x = layer["second"](x + layer["down"](F.gelu(layer["up"](x))))
        return self.head(x.mean(1))


@pytest.mark.parametrize("attention", ["fused", "written out"])
def test_verdicts_on_an_encoder_are_what_onnxruntime_does(attention: str) -> None:
    torch.manual_seed(0)
    model = qir.quantize(Encoder(attention).eval(), data=[torch.randn(4, 9, 32)]).onnx()
    assert disagreements(model) == []
    found = linted(model)
    assert found["MatMul", True] == 8, "products with weights"
    assert found["MatMul", False] == 4, "products of activations"


def test_what_stays_in_float_says_why_and_what_to_change() -> None:
    found = quantized(next(example for example in EXAMPLES if example.is_cnn))
    graph = found.graph.copy()
    moving = [node for node in quantizers(graph) if node.operands[0].weight is None]
    graph.replace(moving[1].result, moving[1].operands[0])
    graph.erase(moving[1])
    model = qir.Quantized(graph, found.target, found.pipeline).onnx()
    floats = [verdict for verdict in lint(qir.import_model(model), TARGET) if not verdict.integer]
    assert floats[0].note.reason == "nothing quantizes its result"
    assert floats[0].note.help == "quantize its result"
    assert "the Conv before it" in floats[1].note.reason


def test_a_float_model_is_refused() -> None:
    with pytest.raises(QirError, match="not quantized"):
        lint(qir.import_model(SMALL["called_twice"].model()), TARGET)


def planted(model: onnx.ModelProto, op: str, factor: float) -> onnx.ModelProto:
    """The model with the bias of its last `op` at a wrong scale."""
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    layer = [node for node in wrong.graph.node if node.op_type == op and len(node.input) == 3][-1]
    source = next(node for node in wrong.graph.node if node.output[0] == layer.input[2])
    held = next(tensor for tensor in wrong.graph.initializer if tensor.name == source.input[1])
    held.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(held) * factor).astype(np.float32), held.name))
    return wrong


def test_a_certificate_holds_for_what_qir_ships() -> None:
    example = next(e for e in EXAMPLES if e.is_cnn and has_gemm(e))
    model = quantized(example).onnx()
    certificate = certify(model, TARGET, feeds(example, model, 5))
    assert certificate.holds
    assert certificate.samples == 4
    assert [d.differing for d in certificate.simulated] == [0]
    assert len(certificate.stepwise) > 3
    assert not any(d.differing or d.in_float for d in certificate.stepwise)


def test_what_float_operators_compute_is_no_broken_promise() -> None:
    example = SMALL["arithmetic"]
    model = quantized(example).onnx()
    certificate = certify(model, TARGET, feeds(example, model, 5))
    assert certificate.holds
    assert any(d.in_float for d in certificate.stepwise)


def test_a_wrong_bias_scale_is_caught_and_named() -> None:
    example = next(example for example in EXAMPLES if has_gemm(example))
    model = planted(quantized(example).onnx(), "Gemm", 3.0)
    wrong = [verdict for verdict in lint(qir.import_model(model), TARGET) if verdict.wrong]
    assert [verdict.note.op for verdict in wrong] == ["Gemm"]
    certificate = certify(model, TARGET, feeds(example, model, 5))
    assert not certificate.holds
    assert "bias" in certificate.findings[0].cause
    assert sum(d.differing for d in certificate.unoptimized) > 0


def has_gemm(example: Example) -> bool:
    nodes = quantized(example).onnx().graph.node
    return any(node.op_type == "Gemm" and len(node.input) == 3 for node in nodes)


def test_snapped_scales_make_every_optimization_level_agree() -> None:
    example = next(e for e in EXAMPLES if e.is_cnn and has_gemm(e))
    found = quantized(example)
    graph = qir.Pipeline.parse("snap-scales", found.graph).run(found.graph.copy())
    before, after = (
        certify(model, TARGET, feeds(example, model, 6))
        for model in (found.onnx(), qir.Quantized(graph, found.target, found.pipeline).onnx())
    )
    assert sum(d.differing for d in before.unoptimized) > 0
    assert [d.differing for d in after.unoptimized] == [0] * len(after.unoptimized)
    assert after.holds


def test_inputs_that_do_not_fit_are_refused() -> None:
    example = SMALL["called_twice"]
    model = quantized(example).onnx()
    with pytest.raises(QirError, match="the model's inputs are"):
        certify(model, TARGET, {"nothing": np.zeros(1, np.float32)})


def test_a_model_that_the_reference_can_not_run_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluator(model: Any) -> Any:
        raise NotImplementedError("Relu")

    monkeypatch.setattr("qir.onnx_reference.evaluator", evaluator)
    example = SMALL["called_twice"]
    model = quantized(example).onnx()
    with pytest.raises(QirError, match="onnx.reference can not run the model: Relu"):
        certify(model, TARGET, feeds(example, model, 2))
