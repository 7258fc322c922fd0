"""Lowerings of torch's recurrent layers and cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from qir.attributes import TRAINING
from qir.frontends.torch_lowerings import Builder, Lowering, Unlowered, known, lowers
from qir.graph import Node, Value


def _several(build: Builder, op: str, operands: Sequence[Any], **attrs: Any) -> Node:
    values = [build.value(operand) for operand in operands]
    while values[-1] is None:
        values.pop()
    build.added.append(build.graph.add(op, values, attrs))
    return build.added[-1]


def _layer(build: Builder, kind: str, x: Any, state: Sequence[Any], weights: Sequence[Any], training: Any,
           **attrs: Any) -> tuple[Value, list[Value]]:  # fmt: skip
    """The outputs and the last state."""
    known(isinstance(x, Value), "the input is no tensor")
    packed = x.node is not None and x.node.op.endswith("pack_padded_sequence")
    known(not packed, "it reads a packed sequence, whose rows have lengths of their own")
    known(attrs.get("dropout", 0) == 0 or training is TRAINING, "a dropout that does not follow the module's flag")
    node = _several(build, f"qir.{kind}", [x, *state, *weights], **attrs)
    outputs, *last = node.results
    return outputs, last


def _states(hx: Any, count: int) -> list[Any]:
    """The initial state as `count` values; Nones where there is none."""
    if hx is None:
        return [None] * count
    given = list(hx) if isinstance(hx, list | tuple) else [hx]
    if len(given) != count or not all(isinstance(part, Value | torch.Tensor) for part in given):
        raise Unlowered("an initial state that is computed as a whole")
    return given


def _arranged(kind: str, outputs: Value, last: list[Value]) -> Any:
    return outputs, tuple(last) if kind == "LSTM" else last[0]


def _recurrent_layer(kind: str, of: type[nn.Module]) -> Lowering:
    count = 2 if kind == "LSTM" else 1

    def lowering(build: Builder, input: Any, hx: Any = None, *, _flat_weights: Any, num_layers: int, bias: bool,
                 batch_first: bool, dropout: float, bidirectional: bool, proj_size: int, training: Any,
                 nonlinearity: str = "tanh") -> Any:  # fmt: skip
        more = {"nonlinearity": nonlinearity} if kind == "RNN" else {}
        outputs, last = _layer(
            build, kind, input, _states(hx, count), _flat_weights, training, num_layers=num_layers, bias=bias,
            batch_first=batch_first, dropout=dropout, bidirectional=bidirectional, proj_size=proj_size, **more,
        )  # fmt: skip
        return _arranged(kind, outputs, last)

    lowering.__name__ = f"{kind.lower()}_layer"
    return lowers(of)(lowering)


def _recurrent_function(kind: str, nonlinearity: str | None, function: Any) -> Lowering:
    count = 2 if kind == "LSTM" else 1

    def lowering(build: Builder, input: Any, hx: Any, params: Sequence[Any], has_biases: bool, num_layers: int,
                 dropout: float, train: Any, bidirectional: bool, batch_first: bool) -> Any:  # fmt: skip
        per_way = (4 if has_biases else 2) * num_layers * (2 if bidirectional else 1)
        projected = len(params) != per_way
        recurrent = build.value(params[4 if has_biases else 2]) if projected else None
        size = recurrent.type.shape[0] if recurrent is not None and recurrent.type.shape else 0
        more = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
        outputs, last = _layer(
            build, kind, input, _states(hx, count), params, train, num_layers=num_layers, bias=has_biases,
            batch_first=batch_first, dropout=dropout if train else 0.0, bidirectional=bidirectional, proj_size=size,
            **more,
        )  # fmt: skip
        return outputs, *last

    lowering.__name__ = function.__name__
    return lowers(function)(lowering)


def _cell(kind: str, nonlinearity: str | None, function: Any) -> Lowering:
    count = 2 if kind == "LSTM" else 1

    def lowering(build: Builder, input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None,
                 b_hh: Any = None) -> Any:  # fmt: skip
        known(isinstance(input, Value), "the input is no tensor")
        more = {} if nonlinearity is None else {"nonlinearity": nonlinearity}
        node = _several(build, f"qir.{kind}Cell", [input, w_ih, w_hh, b_ih, b_hh, *_states(hx, count)], **more)
        return tuple(node.results) if kind == "LSTM" else node.result

    lowering.__name__ = function.__name__
    return lowers(function)(lowering)


def _cell_layer(kind: str, of: type[nn.Module], function: Any) -> Lowering:
    def lowering(build: Builder, input: Any, hx: Any = None, *, weight_ih: Any, weight_hh: Any, bias_ih: Any,
                 bias_hh: Any, nonlinearity: str = "tanh") -> Any:  # fmt: skip
        chosen = getattr(torch, f"rnn_{nonlinearity}_cell") if kind == "RNN" else function
        return lowers.table[chosen](build, input, hx, weight_ih, weight_hh, bias_ih, bias_hh)

    lowering.__name__ = f"{kind.lower()}_cell_layer"
    return lowers(of)(lowering)


for _kind, _of, _of_cell in (("LSTM", nn.LSTM, nn.LSTMCell), ("GRU", nn.GRU, nn.GRUCell), ("RNN", nn.RNN, nn.RNNCell)):
    _recurrent_layer(_kind, _of)
    _cell_layer(_kind, _of_cell, getattr(torch, f"{_kind.lower()}_cell", None))
for _kind, _nonlinearity, _name in (("LSTM", None, "lstm"), ("GRU", None, "gru"), ("RNN", "tanh", "rnn_tanh"),
                                    ("RNN", "relu", "rnn_relu")):  # fmt: skip
    _recurrent_function(_kind, _nonlinearity, getattr(torch, _name))
    _cell(_kind, _nonlinearity, getattr(torch, f"{_name}_cell"))
