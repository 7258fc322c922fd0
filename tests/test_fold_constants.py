"""Weights that a model computes become weights, so that layers which read them are quantized."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import parser
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

import qir
from qir import QuantizationSimModel
from qir.api.preparation import PREPARE
from qir.api.quantize import graph_to_quantize
from qir.backends.torch_module import emit_torch
from qir.evaluate import evaluate
from qir.graph import Graph, Node
from qir.passes.fold_constants import FoldConstants
from qir.rewrite import Outcome
from qir.traits import Weighted
from qir.verify import verify
from qir.weights import Weight
from tests.comparing import same
from tests.quantizing import disagreements, equal_values, shipped, simulated

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Functional(nn.Module):
    """A convolution whose weight is computed in forward."""

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor], *shape: int) -> None:
        super().__init__()
        self.v, self.scale = nn.Parameter(torch.randn(shape)), nn.Parameter(torch.rand(4, 1, 1, 1))
        self.compute = compute

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.compute(self.v, self.scale))


def old(norm: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A norm whose use torch warns of."""

    def normed(layer: nn.Module) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return norm(layer)

    return normed


class Halved(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def halved(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "bias", Halved())
    return parametrize.register_parametrization(layer, "weight", Halved())


COMPUTED: dict[str, Callable[[], nn.Module]] = {
    "scaled": lambda: Functional(lambda v, scale: v * scale, 4, 3, 3, 3),
    "transposed": lambda: Functional(lambda v, scale: v.transpose(0, 1), 3, 4, 3, 3),
    "concatenated": lambda: Functional(lambda v, scale: torch.cat([v, -v]) * scale, 2, 3, 3, 3),
    "standardized": lambda: Functional(lambda v, scale: (v - v.mean((1, 2, 3), True)) / v.std(), 4, 3, 3, 3),
}
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "halved": halved,
    "old weight norm": old(torch.nn.utils.weight_norm),
    "old spectral norm": old(torch.nn.utils.spectral_norm),
}


def folded(model: nn.Module, *examples: Tensor) -> tuple[Graph, Outcome]:
    """The graph of a model with its constants folded, and what was folded."""
    graph = graph_to_quantize(model, examples, None)
    outcome = FoldConstants().run(graph)
    verify(graph)
    assert str(qir.parse(str(graph))) == str(graph)
    return graph, outcome


def run(graph: Graph, *inputs: Tensor) -> object:
    return emit_torch(qir.Pipeline.parse(PREPARE).run(graph.copy()))(*inputs)


def layer(graph: Graph, op: str) -> Node:
    [found] = [node for node in graph.nodes() if node.op == op]
    return found


@pytest.mark.parametrize("name", COMPUTED)
def test_a_weight_that_forward_computes_is_one_of_the_layer_that_reads_it(name: str) -> None:
    torch.manual_seed(0)
    model = COMPUTED[name]().eval()
    graph, outcome = folded(model, IMAGES)
    assert [note.reason for note in outcome.done] == ["becomes the weight module_conv2d.weight"]
    [conv] = graph.nodes()
    assert (conv.op, conv.operands[1].weight.paths) == ("Conv", ("module_conv2d.weight",))
    assert conv.operands[1].weight.trainable
    torch.testing.assert_close(run(graph, IMAGES), model(IMAGES))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_computes_its_parameters_is_a_plain_layer_with_the_same_bits(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(LAYERS[name](nn.Conv2d(3, 4, 3, padding=1)), LAYERS[name](nn.Linear(8, 6)))
    for _ in range(3):
        model(IMAGES)  # spectral norm iterates
    model.eval()
    graph, _ = folded(model, IMAGES)
    assert [(node.op, node.module) for node in graph.nodes()] == [("Conv", "0"), ("qir.Linear", "1")]
    paths = {path: value.weight.trainable for value in graph.weights() for path in value.weight.paths}
    assert paths == dict.fromkeys(["0.weight", "0.bias", "1.weight", "1.bias"], True)
    assert same(run(graph, IMAGES), model(IMAGES))


def test_two_calls_of_a_layer_that_computes_its_weight_share_it() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = parametrizations.weight_norm(nn.Linear(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.relu(self.fc(x)))

    model, x = Twice().eval(), torch.randn(2, 6)
    graph, _ = folded(model, x)
    assert sorted(path for value in graph.weights() for path in value.weight.paths) == ["fc.bias", "fc.weight"]
    assert same(run(graph, x), model(x))


def test_the_flags_of_a_layer_and_what_it_computes_from_are_as_before() -> None:
    model = nn.Sequential(parametrizations.spectral_norm(nn.Linear(6, 6)), nn.ReLU()).train()
    graph = qir.import_model(model, [torch.randn(2, 6)])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    qir.Pipeline.parse("fold-constants").run(graph)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_layer_with_a_hook_of_somebody_else_stays_whole() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 6)))
    model[0].register_forward_hook(lambda module, args, output: output + 1)
    graph, outcome = folded(model.eval(), torch.randn(2, 6))
    assert [node.definition.opaque for node in graph.nodes()] == [True]
    assert outcome == Outcome()


def test_a_layer_that_computes_its_weight_and_that_nothing_lowers_says_so() -> None:
    class Layer(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1

    Layer.__module__ = "torch.nn"  # which torch.fx does not look into
    graph, outcome = folded(nn.Sequential(parametrizations.weight_norm(Layer(6, 6))).eval(), torch.randn(2, 6))
    assert [node.definition.opaque for node in graph.nodes()] == [True]
    assert [note.reason for note in outcome.missed] == [
        "its parameters are computed, and it is opaque: nothing lowers it yet"
    ]


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.attention(x, memory, memory, need_weights=False)[0]


def test_the_parts_of_a_packed_weight_are_weights_of_the_products_that_read_them() -> None:
    batch = [torch.randn(2, 5, 8), torch.randn(2, 7, 8)]
    quantized = qir.quantize(Packed().eval(), data=[batch])
    quantizers = [node.operands[1].node for node in quantized.graph.nodes() if node.definition.trait(Weighted)]
    grids = [node.attrs["encoding"] for node in quantizers if node.operands[0].weight is not None]
    assert [(grid.dtype, grid.axis is not None) for grid in grids] == [("i8", True)] * 4


class Stack(nn.Module):
    """A product by a stack of matrices, which a parameter is or an einsum makes of one."""

    def __init__(self, matrices: int, *, einsum: bool, last: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 2, 4) if einsum else torch.randn(matrices, 8, 8))
        self.einsum, self.after = einsum, nn.Identity() if last else nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        product = torch.einsum("bld,dhk->blhk", x, self.weight).flatten(2) if self.einsum else x @ self.weight
        return self.after(product)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("matrices", "einsum"), [(1, False), (3, False), (1, True)])
def test_a_stack_of_matrices_has_one_scale_with_which_it_runs(matrices: int, einsum: bool, last: bool) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 8)
    quantized = qir.quantize(Stack(matrices, einsum=einsum, last=last).eval(), data=[[x]])
    product = next(node for node in quantized.graph.nodes() if node.op == "MatMul")
    grid = product.operands[1].node.attrs["encoding"]
    assert (grid.dtype, grid.axis) == ("i8", None)
    runs = quantized.onnx()
    count, of = equal_values(shipped(runs, [x]), simulated(quantized.simulator("integer"), [x]))
    assert (count, disagreements(runs)) == (of, [])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(x) @ (self.embed.weight.t() * 0.5)


def test_what_something_else_reads_stays_beside_what_is_made_of_it() -> None:
    model, x = Tied().eval(), torch.tensor([[1, 2, 3]])
    graph, _ = folded(model, x)
    paths = {path for value in graph.weights() for path in value.weight.paths}
    assert paths == {"embed.weight", "module_matmul.weight"}
    torch.testing.assert_close(run(graph, x), model(x))


@pytest.mark.parametrize("name", [*COMPUTED, *LAYERS])
def test_computed_weights_are_quantized_and_run_as_they_are_simulated(name: str) -> None:
    torch.manual_seed(0)
    first = COMPUTED[name]() if name in COMPUTED else LAYERS[name](nn.Conv2d(3, 4, 3))
    model = nn.Sequential(first, nn.ReLU(), nn.Conv2d(4, 5, 3)).eval()
    quantized = qir.quantize(model, data=[IMAGES])
    assert quantized.float_operators() == []
    runs = quantized.onnx()
    count, of = equal_values(shipped(runs, [IMAGES]), simulated(quantized.simulator("integer"), [IMAGES]))
    assert (count, disagreements(runs)) == (of, [])


SCALED = """
<ir_version: 10, opset_import: ["": 21]>
net (float[1,3,8,8] x) => (float[1,4,6,6] out)
<float[4,3,3,3] w> {
    half = Constant<value_float = 0.5>()
    scaled = Mul(w, half)
    [conv] out = Conv(x, scaled)
}
"""


def test_the_scaled_weight_of_an_onnx_model_is_quantized() -> None:
    model = parser.parse_model(SCALED)
    data = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    del model.graph.value_info[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(data, "w"))
    images = IMAGES[:1]
    quantized = qir.quantize(qir.import_model(model), data=[images])
    conv = layer(quantized.graph, "Conv")
    np.testing.assert_array_equal(conv.operands[1].node.operands[0].array, data * np.float32(0.5))
    assert quantized.float_operators() == []
    count, of = equal_values(shipped(quantized.onnx(), [images]), simulated(quantized.simulator("integer"), [images]))
    assert count == of


def test_a_simulator_for_a_target_trains_the_computed_weight_and_one_for_a_config_what_it_is_made_of() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 2)).eval()
    x = torch.randn(8, 6)
    for options, expected in (
        ({"target": "ort-x86-vnni"}, {"0.weight", "0.bias"}),
        ({}, {f"0.parametrizations.weight.original{number}" for number in (0, 1)} | {"0.bias"}),
    ):
        simulator = QuantizationSimModel(model, x, **options)
        simulator.compute_encodings([x])
        simulator.model(x).square().sum().backward()
        parameters = dict(simulator.model.named_parameters())
        assert {name for name in parameters if name.startswith("0.")} == expected
        assert all(parameters[name].grad is not None for name in expected)


def test_weights_whose_data_is_not_here_say_so() -> None:
    graph = qir.parse("""graph @g(%x: f32[2,2]) {
      %w = weight fc.weight : f32[2,2] #0000000000000000
      %scaled = Mul %w, 2.0 : f32[2,2] [scaled]
      %fc = MatMul %x, %scaled : f32[2,2] [fc]
      return %fc
    }""")
    [reason] = qir.explain(graph, "fold-constants")
    assert not reason.done
    assert "the data of fc.weight is not here" in reason.reason


def test_what_would_take_too_much_memory_on_the_way_is_not_computed() -> None:
    graph = qir.parse("""graph @g(%x: f32[]) {
      %large = Expand f32[](1.0), i64[2](100000, 100000) : f32[100000,100000]
      %sum = ReduceSum %large {keepdims=0} : f32[] [sum]
      %y = Add %x, %sum : f32[] [add]
      return %y
    }""")
    [reason] = qir.explain(graph, "fold-constants")
    assert reason.reason == "it has 40,000,000,000 bytes"


SHAPES = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, ops=st.lists(st.sampled_from(["Add", "Mul", "Relu", "Neg", "Transpose"]), max_size=6),
       trained=st.booleans())  # fmt: skip
def test_folding_keeps_every_output(shape: list[int], ops: list[str], trained: bool) -> None:
    graph = Graph("g")
    x = graph.input("x", qir.types.TensorType("f32", ()))
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) - 2
    value = graph.weight(Weight(data, ("w",), trainable=True)) if trained else graph.constant(data)
    for op in ops:
        second = [graph.constant(np.float32(1.5))] if op in ("Add", "Mul") else []
        value = graph.add(op, [value, *second]).result
    graph.outputs = [graph.add("Mul", [value, x]).result]
    expected = evaluate(graph, [np.float32(3)])
    qir.Pipeline.parse("fold-constants").run(graph)
    verify(graph)
    assert len(graph.nodes()) == 1
    np.testing.assert_array_equal(evaluate(graph, [np.float32(3)]), expected)
