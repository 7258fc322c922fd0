"""Rows in groups that have a matrix each: whole in torch, a product for each where they are quantized or shipped."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import Graph, Pipeline
from qir.api.preparation import preparation
from qir.api.same_outputs import Examples
from qir.backends.torch_module import executor
from qir.frontends.torch_lowerings import Builder, lowers
from qir.graph import Value
from qir.types import TensorType
from tests.torchvision_cpu import torchvision_models


class Experts(nn.Module):
    """Each row goes to the expert that a router picks."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 3)
        self.weight = nn.Parameter(torch.randn(3, 8, 4))

    def forward(self, x: Tensor) -> Tensor:
        chosen, order = self.router(x).argmax(-1).sort()
        ends = (chosen[:, None] <= torch.arange(3)).sum(0).to(torch.int32)
        grouped = F.grouped_mm(x[order], self.weight, offs=ends)
        return torch.zeros_like(grouped).index_copy(0, order, grouped)


def test_every_group_is_a_product_with_a_constant_matrix() -> None:
    torch.manual_seed(0)
    x, model = torch.randn(32, 8), Experts().eval()
    made = preparation(model, Examples([x]))
    assert "qir.GroupedMatMul" in {node.op for node in made.graph.nodes()}
    again = torch.randn(20, 8)
    assert torch.equal(made.module(again), model(again))
    apart = Pipeline.parse("decompose").run(made.graph.copy())
    products = [node for node in apart.nodes() if node.op == "MatMul"]
    assert [node.operands[1].weight is not None and node.operands[1].weight.paths for node in products] == [
        ("weight_0",), ("weight_1",), ("weight_2",)
    ]  # fmt: skip


def test_experts_are_quantized_and_shipped() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    x, model = torch.randn(32, 8), Experts().eval()
    quantized = qir.quantize(model, [x], data=[x])
    session = onnxruntime.InferenceSession(quantized.onnx().SerializeToString())
    one = x[:1]  # leaves two of the experts without a row
    for rows in (x, one):
        shipped = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: rows.numpy()})[0])
        torch.testing.assert_close(shipped, model(rows), rtol=0, atol=0.3)


def test_rows_behind_the_last_group_are_zero() -> None:
    x, weight, ends = torch.randn(6, 8), torch.randn(2, 8, 4), torch.tensor([1, 4], dtype=torch.int32)
    graph = Graph()
    types = TensorType("f32", (6, 8)), TensorType("f32", (2, 8, 4)), TensorType("i32", (2,))
    operands = [graph.input(name, type) for name, type in zip(("x", "weight", "ends"), types, strict=True)]
    graph.outputs = [graph.add("qir.GroupedMatMul", operands).result]
    expected = torch.cat([x[:1] @ weight[0], x[1:4] @ weight[1], torch.zeros(2, 4)])
    for passes in ("lift-functionals", "decompose,lift-functionals", "legalize-onnx,lift-functionals"):
        (found,) = executor(Pipeline.parse(passes).run(graph.copy()))([x.numpy(), weight.numpy(), ends.numpy()])
        torch.testing.assert_close(torch.from_numpy(found), expected)


@pytest.fixture
def tripling() -> Iterator[torch._ops.OpOverload]:
    library = torch.library.Library("qir_tests", "FRAGMENT")
    library.define("triple(Tensor x) -> Tensor")
    library.impl("triple", lambda x: x * 3, "CompositeExplicitAutograd")
    lowered = lowers("torch.ops.qir_tests.triple")

    @lowered
    def triple(build: Builder, x: Value) -> Value:
        return build("Mul", x, 3)

    yield torch.ops.qir_tests.triple
    del lowers.table["torch.ops.qir_tests.triple"]
    library._destroy()


@pytest.mark.parametrize("importer", ["fx", "export"])
def test_an_operator_of_another_library_is_lowered_by_its_name(importer: str, tripling: torch._ops.OpOverload) -> None:
    class Tripled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.qir_tests.triple(x) + 1

    x = torch.randn(3, 4)
    made = preparation(Tripled(), Examples([x]), importer=importer)
    assert {node.op for node in made.graph.nodes()} == {"Mul", "Add"}
    assert torch.equal(made.module(x), Tripled()(x))


@pytest.mark.slow
def test_a_mixture_of_experts_of_transformers_has_no_opaque_products() -> None:
    torchvision_models()  # transformers imports torchvision where it is installed
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
             "intermediate_size": 32, "num_local_experts": 4, "vocab_size": 50}  # fmt: skip
    model = transformers.MixtralModel(transformers.MixtralConfig(**sizes, use_cache=False)).eval()
    made = preparation(model, Examples((), {"input_ids": torch.randint(0, 50, (2, 9))}))
    assert "qir.GroupedMatMul" in {node.op for node in made.graph.nodes()}
    assert not any("grouped" in node.op for node in made.graph.nodes() if node.definition.opaque)
