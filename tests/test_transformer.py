"""Multi-head attention and transformer layers: whole they take torch's fast paths where the model does; their parts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir.frontends.torch_fx import import_torch
from tests.comparing import same, same_state, train_step
from tests.composed import check_in_onnx, check_whole, decomposed, difference, gradients, imported

_random = torch.Generator().manual_seed(0)
BATCH, LENGTH, MEMORY, SIZE, HEADS = 2, 5, 7, 16, 4
ROUNDING = 2e-6
"""How far torch's kernels lie from the parts, at most; measured: 1e-6."""


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_random)


X, Y = normal(BATCH, LENGTH, SIZE), normal(BATCH, MEMORY, SIZE)
BLOCKED = (torch.rand(LENGTH, LENGTH, generator=_random) > 0.7).fill_diagonal_(False)
BIAS = normal(LENGTH, LENGTH)
BLOCKED_IN_HEADS = BLOCKED.expand(BATCH * HEADS, LENGTH, LENGTH).clone()
PADDING = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
PADDING[0, 3:] = True
CAUSAL = nn.Transformer.generate_square_subsequent_mask(LENGTH)


class Call(nn.Module):
    """A layer that is called as `call` says."""

    def __init__(self, layer: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, a: Tensor, b: Any = None, c: Any = None, d: Any = None) -> Any:
        return self.call(self.layer, *[x for x in (a, b, c, d) if x is not None])


def heads(**options: Any) -> nn.Module:
    return nn.MultiheadAttention(SIZE, HEADS, **{"batch_first": True, **options})


def encoder(**options: Any) -> Any:
    return nn.TransformerEncoderLayer(SIZE, HEADS, 24, **{"batch_first": True, **options})


def decoder(**options: Any) -> Any:
    return nn.TransformerDecoderLayer(SIZE, HEADS, 24, **{"batch_first": True, **options})


def own(**options: Any) -> Callable[..., Any]:
    return lambda layer, x: layer(x, x, x, **options)


def masked(name: str, **options: Any) -> Callable[..., Any]:
    return lambda layer, x, mask: layer(x, x, x, **{name: mask}, **options)


def plainly(layer: Any, *inputs: Any) -> Any:
    return layer(*inputs)


def padded(layer: Any, x: Any, padding: Any) -> Any:
    return layer(x, src_key_padding_mask=padding)


def both(**options: Any) -> Callable[..., Any]:
    return lambda layer, x, mask, padding: layer(x, x, x, attn_mask=mask, key_padding_mask=padding, **options)


def across(**options: Any) -> Callable[..., Any]:
    return lambda layer, x, y: layer(x, y, y, **options)


Case = tuple[Callable[[], nn.Module], Callable[..., Any], list[Tensor]]
HEADED: dict[str, Case] = {
    "own": (heads, own(), [X]),
    "own-unweighed": (heads, own(need_weights=False), [X]),
    "sequence-first": (lambda: heads(batch_first=False), own(), [X]),
    "across": (heads, across(), [X, Y]),
    "across-unweighed": (heads, across(need_weights=False), [X, Y]),
    "other-sizes": (lambda: heads(kdim=6, vdim=8), plainly, [X, normal(BATCH, MEMORY, 6), normal(BATCH, MEMORY, 8)]),
    "weights-of-heads": (heads, own(average_attn_weights=False), [X]),
    "no-bias": (lambda: heads(bias=False), own(), [X]),
    "learned-key": (lambda: heads(add_bias_kv=True), own(), [X]),
    "zero-key": (lambda: heads(add_zero_attn=True), own(need_weights=False), [X]),
    "more-keys-masked": (lambda: heads(add_bias_kv=True, add_zero_attn=True), both(), [X, BLOCKED, PADDING]),
    "more-keys-biased": (lambda: heads(add_bias_kv=True), both(need_weights=False), [X, BIAS, PADDING.float()]),
    "dropout": (lambda: heads(dropout=0.2), own(), [X]),
    "mask": (heads, masked("attn_mask"), [X, BLOCKED]),
    "mask-unweighed": (heads, masked("attn_mask", need_weights=False), [X, BLOCKED]),
    "mask-of-heads": (heads, masked("attn_mask"), [X, BLOCKED_IN_HEADS]),
    "bias": (heads, masked("attn_mask"), [X, BIAS]),
    "bias-unweighed": (heads, masked("attn_mask", need_weights=False), [X, BIAS]),
    "padding": (heads, masked("key_padding_mask"), [X, PADDING]),
    "padding-unweighed": (heads, masked("key_padding_mask", need_weights=False), [X, PADDING]),
    "mask-and-padding": (heads, both(need_weights=False), [X, BLOCKED, PADDING]),
    "bias-and-padding": (heads, both(need_weights=False), [X, BIAS, PADDING.float()]),
    "causal": (heads, masked("attn_mask", is_causal=True, need_weights=False), [X, CAUSAL]),
    "causal-weighed": (heads, masked("attn_mask", is_causal=True), [X, CAUSAL]),
    "unbatched": (heads, own(), [X[0]]),
    "unbatched-across": (lambda: heads(batch_first=False), across(need_weights=False), [X[0], Y[0]]),
}
LAYERED: dict[str, Case] = {
    "encoder-layer": (encoder, plainly, [X]),
    "encoder-layer-gelu": (lambda: encoder(activation="gelu", norm_first=True), plainly, [X]),
    "encoder-layer-module": (lambda: encoder(activation=nn.ReLU(), batch_first=False), plainly, [X]),
    "encoder-layer-no-bias": (lambda: encoder(bias=False), plainly, [X]),
    "encoder-layer-mask": (encoder, plainly, [X, BLOCKED]),
    "encoder-layer-padding": (encoder, padded, [X, PADDING]),
    "decoder-layer": (decoder, plainly, [X, Y]),
    "decoder-layer-first": (lambda: decoder(norm_first=True, activation=F.gelu), plainly, [X, Y]),
    "decoder-layer-causal": (decoder, lambda layer, x, y, m: layer(x, y, m, tgt_is_causal=True), [X, Y, CAUSAL]),
    "encoder": (lambda: nn.TransformerEncoder(encoder(), 2), plainly, [X]),
    "encoder-norm": (lambda: nn.TransformerEncoder(encoder(), 2, nn.LayerNorm(SIZE)), plainly, [X]),
    "encoder-mask": (lambda: nn.TransformerEncoder(encoder(), 2), plainly, [X, CAUSAL]),
    "encoder-padding": (lambda: nn.TransformerEncoder(encoder(), 2), padded, [X, PADDING]),
    "decoder": (lambda: nn.TransformerDecoder(decoder(), 2, nn.LayerNorm(SIZE)), plainly, [X, Y]),
    "decoder-mask": (lambda: nn.TransformerDecoder(decoder(), 2), plainly, [X, Y, CAUSAL]),
    "transformer": (lambda: nn.Transformer(SIZE, HEADS, 2, 1, 24, batch_first=True), plainly, [X, Y]),
    "transformer-sequence-first": (
        lambda: nn.Transformer(SIZE, HEADS, 1, 2, 24), plainly, [normal(LENGTH, BATCH, SIZE), normal(3, BATCH, SIZE)],
    ),
}  # fmt: skip
CASES = HEADED | LAYERED
each = pytest.mark.parametrize("name", CASES)


def model_of(name: str) -> tuple[Any, list[Tensor]]:
    torch.manual_seed(0)
    make, call, inputs = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Call(make(), call).eval(), inputs


def of_parameters(model: nn.Module, inputs: list[Tensor]) -> dict[str, Tensor]:
    return {name: gradient for name, gradient in gradients(model, inputs).items() if not name.isdigit()}


@each
def test_whole_is_torchs_with_gradients_and_without(name: str) -> None:
    model, inputs = model_of(name)
    prepared = qir.prepare_model(model, example_inputs=inputs, importer="fx")
    check_whole(prepared, model, inputs)


@each
def test_parts_are_torchs_but_for_rounding(name: str) -> None:
    model, inputs = model_of(name)
    graph, parts = decomposed(imported(model, inputs))
    assert not [node.op for node in graph.nodes() if "Attention" in node.op or "Transformer" in node.op]
    assert difference(parts(*inputs), model(*inputs)) < ROUNDING
    assert same_state(parts, model)
    mine, others = of_parameters(parts, inputs), of_parameters(model, inputs)
    assert mine.keys() == others.keys()
    for key, gradient in mine.items():
        torch.testing.assert_close(gradient, others[key], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@each
def test_onnxruntime_agrees(name: str) -> None:
    model, inputs = model_of(name)
    check_in_onnx(imported(model, inputs), inputs, model(*inputs))


@pytest.mark.parametrize(("make", "call", "inputs"), [
    (heads, lambda layer, x: (y := layer(x, x, x)[0], layer(y, y, y)), [X]),
    (heads, lambda layer, x, y: layer(layer(x, y, y)[0], y, y), [X, Y]),
    (encoder, lambda layer, x: layer(layer(x)), [X]),
    (lambda: nn.TransformerDecoder(decoder(), 2), lambda layer, x, y: layer(layer(x, y), y), [X, Y]),
])  # fmt: skip
def test_a_layer_called_twice_keeps_one_set_of_weights(make: Any, call: Any, inputs: list[Tensor]) -> None:
    torch.manual_seed(0)
    model = Call(make(), call).eval()
    prepared = qir.prepare_model(model, example_inputs=inputs, importer="fx")
    assert same_state(prepared, model)
    assert same(prepared(*inputs), model(*inputs))
    with torch.no_grad():
        assert same(prepared(*inputs), model(*inputs))
    assert same(train_step(prepared, inputs), train_step(model, inputs))


def test_the_function_behind_it() -> None:
    layer: Any = heads(batch_first=False).eval()

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterDict({"i": layer.in_proj_weight, "b": layer.in_proj_bias})
            self.out = layer.out_proj

        def forward(self, x: Tensor) -> Any:
            weights = self.weights
            return F.multi_head_attention_forward(
                x, x, x, SIZE, HEADS, weights["i"], weights["b"], None, None, False, 0.1, self.out.weight,
                self.out.bias, training=self.training,
            )  # fmt: skip

    model = Model().eval()
    assert [node.op for node in imported(model, [X]).nodes()] == ["qir.MultiheadAttention"]
    prepared = qir.prepare_model(model, example_inputs=[X])
    assert same(prepared(X), model(X))
    assert same(train_step(prepared, [X]), train_step(model, [X]))


def test_the_function_with_three_weights_of_one_size() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (nn.Linear(SIZE, SIZE) for _ in range(4))

        def forward(self, x: Tensor) -> Any:
            bias = torch.cat([self.query.bias, self.key.bias, self.value.bias])
            return F.multi_head_attention_forward(
                x, x, x, SIZE, HEADS, torch.empty(0), bias, None, None, False, 0.1, self.out.weight, self.out.bias,
                training=self.training, use_separate_proj_weight=True, q_proj_weight=self.query.weight,
                k_proj_weight=self.key.weight, v_proj_weight=self.value.weight,
            )  # fmt: skip

    model = Model().eval()
    for importer in ("fx", "export"):
        prepared = qir.prepare_model(model, example_inputs=[X], importer=importer)  # type: ignore[arg-type]
        assert same(prepared(X), model(X))
    prepared = qir.prepare_model(model, example_inputs=[X])
    assert same(train_step(prepared, [X]), train_step(model, [X]))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: encoder(activation=F.silu), "an activation other than relu and gelu"),
        (lambda: nn.TransformerEncoder(encoder(), 2, nn.BatchNorm1d(LENGTH)), "it holds a layer of the user's"),
        (lambda: nn.Transformer(SIZE, HEADS, custom_encoder=nn.Linear(16, 16)), "an encoder or decoder of the user's"),
    ],
)  # fmt: skip
def test_layers_that_the_user_changed_stay_opaque_for_a_reason(layer: Any, reason: str) -> None:
    model = Call(layer(), lambda layer, x: layer(x, x) if isinstance(layer, nn.Transformer) else layer(x)).eval()
    (node,) = [node for node in import_torch(model, [X]).nodes() if node.definition.opaque]
    assert node.why_opaque == reason


def test_a_hooked_part_stays_opaque() -> None:
    model = Call(encoder(), plainly).eval()
    model.layer.linear1.register_forward_hook(lambda module, args, output: output * 2)
    prepared = qir.prepare_model(model, example_inputs=[X])
    assert same(prepared(X), model(X))
    assert [node.why_opaque for node in import_torch(model, [X]).nodes()] == [
        "a layer in it has hooks or parametrizations"
    ]


class Branching(nn.Module):
    """What symbolic tracing can not follow, around layers that have a fast path."""

    def __init__(self) -> None:
        super().__init__()
        self.heads, self.encoder = heads(), nn.TransformerEncoder(encoder(), 1)
        self.rnn = nn.LSTM(SIZE, 6, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        if len(x.shape) == 3:
            x = self.heads(x, x, x)[0] + self.encoder(x)
        return self.rnn(x)


def test_an_exported_model_takes_fast_paths_too() -> None:
    torch.manual_seed(0)
    model = Branching().eval()
    prepared = qir.prepare_model(model, example_inputs=[X])
    for name in ("heads", "encoder", "rnn"):
        assert type(prepared.get_submodule(name)) is type(model.get_submodule(name))
    assert same_state(prepared, model)
    assert same(prepared(X), model(X))
    with torch.no_grad():
        assert same(prepared(X), model(X))


def test_quantizers_reach_every_product() -> None:
    model = Call(nn.TransformerEncoder(encoder(), 1), plainly).eval()
    quantized = qir.quantize(model, [X], data=[X, normal(*X.shape)])
    products = [node for node in quantized.graph.nodes() if node.op in ("MatMul", "Gemm")]
    assert len(products) == 6  # projection in and out, two of attention, two of the feed-forward block
    assert all(value.node.op == "qir.Quantize" for node in products for value in node.operands[:2])
    assert difference(quantized.simulator()(X), model(X)) < 0.2
