"""Attention: whole it is torch's, bit for bit; in parts it is torch's own math kernel, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import qir
from qir.frontends.torch_fx import import_torch
from qir.infer import infer_types
from qir.types import TensorType
from tests.comparing import same
from tests.composed import check_in_onnx, decomposed, difference, gradients, imported, traced

_random = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_random)


Q, K, V = normal(2, 4, 6, 8), normal(2, 4, 7, 8), normal(2, 4, 7, 8)
SOME = torch.rand(6, 7, generator=_random) > 0.4
NONE_IN_ROW = SOME.clone()
NONE_IN_ROW[2] = False
BIAS = normal(6, 7)
CLOSED = BIAS.masked_fill(~NONE_IN_ROW, -torch.inf)

PRODUCTS: dict[str, tuple[tuple[Tensor, ...], dict[str, Any]]] = {
    "plain": ((Q, K, V), {}),
    "causal": ((Q, K, V), {"is_causal": True}),
    "scaled": ((Q, K, V), {"scale": 0.3}),
    "scaled-negatively": ((Q, K, V), {"scale": -0.3}),
    "boolean-mask": ((Q, K, V, SOME), {}),
    "nothing-in-a-row": ((Q, K, V, NONE_IN_ROW), {}),
    "mask-per-head": ((Q, K, V, SOME.expand(2, 1, 6, 7)), {}),
    "float-mask": ((Q, K, V, BIAS), {}),
    "nothing-in-a-float-row": ((Q, K, V, CLOSED), {}),
    "grouped-heads": ((Q, K[:, :2], V[:, :2]), {"enable_gqa": True}),
    "three-axes": ((Q[0], K[0], V[0]), {}),
    "other-value-size": ((Q, K, normal(2, 4, 7, 5)), {}),
    "float64": ((Q.double(), K.double(), V.double()), {}),
    "no-dropout": ((Q, K, V), {"dropout_p": 0.0}),
}
each = pytest.mark.parametrize("name", PRODUCTS)


def attend(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    inputs, options = PRODUCTS[name]
    return traced(F.scaled_dot_product_attention, inputs, **options), inputs


@each
@pytest.mark.parametrize("importer", ["fx", "export"])
def test_whole_is_torchs(name: str, importer: Any) -> None:
    model, inputs = attend(name)
    prepared = qir.prepare_model(model, example_inputs=inputs, importer=importer)
    assert same(prepared(*inputs), model(*inputs))
    assert same(gradients(prepared, inputs), gradients(model, inputs))


@each
def test_parts_are_torchs_math_kernel(name: str) -> None:
    model, inputs = attend(name)
    graph, parts = decomposed(imported(model, inputs))
    assert {"MatMul", "Softmax"} <= {node.op for node in graph.nodes()}
    with sdpa_kernel(SDPBackend.MATH):
        assert same(parts(*inputs), model(*inputs))
        assert same(gradients(parts, inputs).keys(), gradients(model, inputs).keys())
        for mine, other in zip(gradients(parts, inputs).values(), gradients(model, inputs).values(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)
    assert difference(parts(*inputs), model(*inputs)) < 2e-6


def test_parts_of_half_floats_are_torchs_math_kernel() -> None:
    inputs = tuple(value.bfloat16() for value in (Q, K, V))
    model = traced(F.scaled_dot_product_attention, inputs)
    _, parts = decomposed(imported(model, inputs))
    with sdpa_kernel(SDPBackend.MATH):
        assert same(parts(*inputs), model(*inputs))


@pytest.mark.slow
@each
def test_onnxruntime_agrees(name: str) -> None:
    model, inputs = attend(name)
    check_in_onnx(imported(model, inputs), inputs, model(*inputs))


def test_dropout_in_inference_stays_opaque() -> None:
    model = traced(F.scaled_dot_product_attention, (Q, K, V), dropout_p=0.5)
    assert [node.definition.opaque for node in import_torch(model, (Q, K, V)).nodes()] == [True]


@pytest.mark.parametrize(
    ("options", "reason"),
    [({}, "qir.ScaledDotProductAttention can only be expanded for a known rank"), ({"scale": 1.0}, None)],
)
def test_what_needs_a_rank_stays_whole_for_a_reason(options: dict[str, Any], reason: str | None) -> None:
    graph = import_torch(traced(F.scaled_dot_product_attention, (Q, K, V), **options), None)
    outcome = qir.Pipeline.parse("decompose").passes[0].run(graph)
    assert [note.reason for note in outcome.missed] == ([reason] if reason else [])
    assert bool(outcome.done) == (reason is None)


def test_sizes_may_be_computed() -> None:
    model = traced(F.scaled_dot_product_attention, (Q, K, V), is_causal=True)
    graph = import_torch(model, None)
    for value, shape in zip(graph.inputs, (("n", 4, "l", "e"), ("n", 4, "s", "e"), ("n", 4, "s", "f")), strict=True):
        value.type = TensorType("f32", shape)
    infer_types(graph)
    _, parts = decomposed(graph)
    for inputs in ((Q, K, V), (normal(1, 4, 3, 5), normal(1, 4, 2, 5), normal(1, 4, 2, 6))):
        assert difference(parts(*inputs), model(*inputs)) < 2e-6
        check_in_onnx(graph, inputs, model(*inputs))


def test_quantizers_reach_the_products_of_attention() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).reshape(-1, 5, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
            return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(-1, 5, 16))

    model, x = Model().eval(), normal(2, 5, 16)
    quantized = qir.quantize(model, [x], data=[x, normal(2, 5, 16)])
    products = [node for node in quantized.graph.nodes() if node.op == "MatMul" and node.operands[1].weight is None]
    assert [value.node.op for node in products[-2:] for value in node.operands] == ["qir.Quantize"] * 4
    assert difference(quantized.simulator()(x), model(x)) < 0.1
    assert np.isfinite(quantized.simulator("integer")(x).detach().numpy()).all()
