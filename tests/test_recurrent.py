"""Recurrent layers and cells: whole they are torch's, bit for bit; in parts as well, but for torch's fused LSTM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qir
from qir.frontends.torch_fx import import_torch
from tests.comparing import same, same_state, train_step
from tests.composed import check_in_onnx, check_whole, decomposed, difference, gradients, imported, traced

_random = torch.Generator().manual_seed(0)
FUSED_LSTM = 5e-7
"""How far torch's fused LSTM kernel lies from its steps; the other kernels are their steps."""


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_random)


class Plain(nn.Module):
    """A layer or cell without an initial state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x)


class Given(Plain):
    """One that is given its initial state."""

    def forward(self, x: Tensor, *state: Tensor) -> Any:
        return self.layer(x, (state[0], state[1]) if isinstance(self.layer, nn.LSTM | nn.LSTMCell) else state[0])


LAYERS: dict[type[nn.Module], list[dict[str, Any]]] = {
    kind: [
        {},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"bias": False},
        {"num_layers": 2, "dropout": 0.3},
        *more,
    ]
    for kind, more in (
        (nn.LSTM, [{"proj_size": 3}, {"proj_size": 3, "bidirectional": True, "num_layers": 2, "bias": False}]),
        (nn.GRU, []),
        (nn.RNN, [{"nonlinearity": "relu"}]),
    )
}
CELLS: dict[type[nn.Module], list[dict[str, Any]]] = {
    nn.LSTMCell: [{}, {"bias": False}], nn.GRUCell: [{}, {"bias": False}],
    nn.RNNCell: [{}, {"nonlinearity": "relu", "bias": False}],
}  # fmt: skip


def cases() -> Iterator[Any]:
    """Every layer and cell, given a state or not, in batches or not."""
    for kind, configurations in {**LAYERS, **CELLS}.items():
        for number, options in enumerate(configurations):
            for given in (False, True):
                for batched in (True, False) if number == 0 else (True,):
                    name = f"{kind.__name__}{number}{'-state' if given else ''}{'' if batched else '-unbatched'}"
                    yield pytest.param(kind, options, given, batched, id=name)


def case(kind: type[nn.Module], options: dict[str, Any], given: bool, batched: bool) -> tuple[Any, list[Tensor]]:
    torch.manual_seed(0)
    layer, is_cell, batch = kind(5, 6, **options), kind in CELLS, (3,) * batched
    x = normal(*batch, 5) if is_cell else normal(4, *batch, 5)
    if batched and options.get("batch_first"):
        x = x.transpose(0, 1).contiguous()
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    first = () if is_cell else (count,)
    sizes = [options.get("proj_size") or 6, 6][: 2 if kind in (nn.LSTM, nn.LSTMCell) else 1]
    state = [normal(*first, *batch, size) for size in sizes]
    return (Given(layer).eval(), [x, *state]) if given else (Plain(layer).eval(), [x])


each = pytest.mark.parametrize(("kind", "options", "given", "batched"), list(cases()))


@each
def test_whole_is_torchs(kind: Any, options: Any, given: bool, batched: bool) -> None:
    model, inputs = case(kind, options, given, batched)
    prepared = qir.prepare_model(model, example_inputs=inputs, importer="fx", decompose=False)
    check_whole(prepared, model, inputs)


@each
def test_parts_are_torchs_but_for_its_fused_lstm(kind: Any, options: Any, given: bool, batched: bool) -> None:
    model, inputs = case(kind, options, given, batched)
    graph, parts = decomposed(imported(model, inputs))
    assert not {node.op for node in graph.nodes()} & {"qir.LSTM", "qir.GRU", "qir.RNN"}
    assert same_state(parts, model)
    if isinstance(model.layer, nn.LSTM) and not model.layer.proj_size:
        assert difference(parts(*inputs), model(*inputs)) < FUSED_LSTM
    else:
        assert same(parts(*inputs), model(*inputs))
    mine, others = gradients(parts, inputs), gradients(model, inputs)
    assert mine.keys() == others.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@each
def test_onnxruntime_agrees(kind: Any, options: Any, given: bool, batched: bool) -> None:
    model, inputs = case(kind, options, given, batched)
    graph = imported(model, inputs)
    check_in_onnx(graph, inputs, model(*inputs))
    check_in_onnx(decomposed(graph)[0], inputs, model(*inputs))


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
def test_both_importers_find_the_layer(kind: type[nn.Module]) -> None:
    model, inputs = case(kind, {}, given=True, batched=True)
    prepared = qir.prepare_model(model, example_inputs=inputs, importer="export", decompose=False)
    assert type(prepared.layer) is kind
    assert same(prepared(*inputs), model(*inputs))


def test_a_layer_called_twice_keeps_one_set_of_weights() -> None:
    class Twice(Plain):
        def forward(self, x: Tensor) -> Any:
            return self.layer(self.layer(x)[0])

    for kind in LAYERS:
        torch.manual_seed(0)
        model, inputs = Twice(kind(5, 5)).eval(), [normal(4, 3, 5)]
        prepared = qir.prepare_model(model, example_inputs=inputs, decompose=False)
        assert same(prepared(*inputs), model(*inputs))
        assert same_state(prepared, model)
        assert same(train_step(prepared, inputs), train_step(model, inputs))
        assert same(gradients(prepared, inputs), gradients(model, inputs))


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_functions(name: str) -> None:
    gates = {"lstm": 4, "gru": 3}.get(name, 1)
    x, h = normal(4, 3, 5), [normal(1, 3, 6) for _ in range(2 if name == "lstm" else 1)]
    weights = [normal(gates * 6, 5), normal(gates * 6, 6), normal(gates * 6), normal(gates * 6)]
    state: Any = h if name == "lstm" else h[0]
    function, cell = getattr(torch, name), getattr(torch, f"{name}_cell")

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return function(x, state, weights, True, 1, 0.0, False, False, False)

    class Cell(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return cell(x, [part[0] for part in h] if name == "lstm" else h[0][0], *weights)

    for model, value in ((Model(), x), (Cell(), x[0])):
        graph = imported(model, [value])
        assert same(qir.prepare_model(model, example_inputs=[value])(value), model(value))
        assert difference(decomposed(graph)[1](value), model(value)) < FUSED_LSTM
        check_in_onnx(graph, [value], model(value))


def test_unknown_length_stays_whole_for_a_reason() -> None:
    graph = import_torch(Plain(nn.GRU(5, 6)), None)
    outcome = qir.Pipeline.parse("decompose").passes[0].run(graph)
    assert [note.reason for note in outcome.missed] == ["the length of its sequence is not known"]
    assert [node.op for node in graph.nodes()] == ["qir.GRU"]


def test_a_packed_sequence_stays_opaque() -> None:
    x, lengths = normal(4, 3, 5), torch.tensor([4, 3, 1])
    packed = traced(nn.utils.rnn.pack_padded_sequence, (x, lengths))
    model = nn.Sequential(packed, nn.GRU(5, 6)).eval()
    tracer = torch.fx.Graph()
    inputs = [tracer.placeholder("x"), tracer.placeholder("lengths")]
    made = tracer.call_function(nn.utils.rnn.pack_padded_sequence, tuple(inputs))
    tracer.output(tracer.call_module("1", (made,)))
    whole = torch.fx.GraphModule(model, tracer)
    graph = import_torch(whole, [x, lengths])
    (layer,) = [node for node in graph.nodes() if node.op == "torch.nn.GRU"]
    assert layer.why_opaque == "it reads a packed sequence, whose rows have lengths of their own"
    prepared = qir.prepare_model(whole)
    assert torch.equal(prepared(x, lengths)[1], whole(x, lengths)[1])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_one_step_keeps_all_weights(kind: Any) -> None:
    model, x = Plain(kind(5, 6)).eval(), normal(1, 3, 5)
    _, parts = decomposed(imported(model, [x]))
    assert same_state(parts, model)
    assert gradients(parts, [x]).keys() == gradients(model, [x]).keys()


def test_quantizers_reach_the_products_of_every_step() -> None:
    model, inputs = case(nn.LSTM, {"batch_first": True}, given=False, batched=True)
    quantized = qir.quantize(model, inputs, data=[inputs[0], normal(3, 4, 5)])
    products = [node for node in quantized.graph.nodes() if node.op in ("Gemm", "MatMul")]
    assert len(products) == 1 + 3  # the inputs of all steps at once; the first state is zero
    steps = [node for node in products if node.op == "Gemm"]
    assert all(value.node.op == "qir.Quantize" for node in steps for value in node.operands[:2])
    assert difference(quantized.simulator()(*inputs), model(*inputs)) < 0.05
