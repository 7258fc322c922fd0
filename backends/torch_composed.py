"""Emissions of composed operators: attention and recurrent layers, as torch has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from qir.attributes import TRAINING
from qir.backends.torch_emissions import Emission, call, emits, owned
from qir.graph import Node
from qir.operators.recurrent_steps import directions, kind_of, states_of


class Borrowing(nn.Module):
    """A layer whose weights are arguments, because another layer owns them or they are computed."""

    def __init__(self, layer: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.hidden = (layer,)  # in a tuple, so that its weights are no state of this module
        self.names = tuple(names)

    def forward(self, weights: Sequence[Tensor], *args: Any, **kwargs: Any) -> Any:
        """What the layer returns with these weights."""
        (layer,) = self.hidden
        layer.train(self.training)
        return functional_call(layer, dict(zip(self.names, weights, strict=True)), args, kwargs)

    def _get_name(self) -> str:
        return f"{type(self.hidden[0]).__name__} with borrowed weights"


def whole_layer(
    node: Node, layer: nn.Module, weights: dict[str, int], args: Sequence[Any],
    kwargs: dict[str, Any] | None = None, places: tuple[tuple[int, ...], ...] = (),
) -> Emission:  # fmt: skip
    """A call of the layer; `weights` says which operands are its weights, by their names in its state."""
    given = {name: node.operands[port] for name, port in weights.items() if node.operand(port) is not None}
    if owned(node, **weights):
        return Emission(layer, tuple(args), kwargs or {}, given, places)
    return Emission(Borrowing(layer, list(given)), (tuple(given.values()), *args), kwargs or {}, {}, places)


@emits("qir.ScaledDotProductAttention")
def scaled_dot_product_attention(node: Node) -> Emission:
    """F.scaled_dot_product_attention."""
    options = {name: node.attr(name) for name in ("is_causal", "scale", "enable_gqa")}
    if node.attr("dropout"):
        options |= {"dropout": node.attr("dropout"), "training": TRAINING}
    function = attention if node.attr("dropout") else F.scaled_dot_product_attention
    return call(function, *node.operands[:3], attn_mask=node.operand(3), **options)


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, dropout: float, training: bool,
              **options: Any) -> Tensor:  # fmt: skip
    """F.scaled_dot_product_attention with dropout in training."""
    rate = dropout if training else 0.0
    return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, dropout_p=rate, **options)


@emits("qir.LSTM", "qir.GRU", "qir.RNN")
def recurrent(node: Node) -> Emission:
    """nn.LSTM, nn.GRU or nn.RNN."""
    kind, states = kind_of(node), states_of(node)
    x, initial = node.operands[0], node.operands[1 : 1 + states]
    inputs, rows = node.operands[1 + states].type.shape[-1], node.operands[2 + states].type.shape[0]
    options = {name: node.attr(name) for name in ("num_layers", "dropout")}
    options |= {name: bool(node.attr(name)) for name in ("bias", "batch_first", "bidirectional")}
    if kind == "LSTM":
        options["proj_size"] = node.attr("proj_size")
    if kind == "RNN":
        options["nonlinearity"] = node.attr("nonlinearity")
    layer = getattr(nn, kind)(inputs, rows // {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], device="meta", **options)
    names = {name: 1 + states + place for place, name in enumerate(_recurrent_names(node))}
    state = None if initial[0] is None else tuple(initial) if states == 2 else initial[0]
    places = ((0,), (1, 0), (1, 1)) if states == 2 else ((0,), (1,))
    return whole_layer(node, layer, names, (x, state), places=places)


def _recurrent_names(node: Node) -> list[str]:
    """What nn.LSTM and the like call their weights, in order."""
    kinds = ["weight_ih", "weight_hh"]
    kinds += ["bias_ih", "bias_hh"] if node.attr("bias") else []
    kinds += ["weight_hr"] if node.attr("proj_size") else []
    ways = ("", "_reverse")[: directions(node)]
    return [f"{kind}_l{layer}{way}" for layer in range(node.attr("num_layers")) for way in ways for kind in kinds]


@emits("qir.LSTMCell", "qir.GRUCell", "qir.RNNCell")
def recurrent_cell(node: Node) -> Emission:
    """nn.LSTMCell, nn.GRUCell or nn.RNNCell."""
    kind = kind_of(node)
    x, weight_ih, weight_hh = node.operands[:3]
    options = {"nonlinearity": node.attr("nonlinearity")} if kind == "RNN" else {}
    sizes = weight_ih.type.shape[-1], weight_hh.type.shape[-1]
    layer = getattr(nn, f"{kind}Cell")(*sizes, bias=node.operand(3) is not None, device="meta", **options)
    names = {name: port for port, name in enumerate(node.definition.operands[1:5], 1)}
    state = tuple(node.operands[5:])
    return whole_layer(node, layer, names, (x, state if len(state) == 2 else state[0] if state else None))
