"""Recurrent layers and cells as torch has them, the weights in torch's order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qir.operators.recurrent_onnx import as_onnx_operator
from qir.operators.recurrent_steps import cell, directions, kind_of, states_of, unrolled, weights_of
from qir.ops import Attribute, OpDef, declare
from qir.traits import Composed, Stateful
from qir.types import UNKNOWN, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Node


def _types(node: Node) -> Sequence[Type]:
    x, weights = node.operands[0].type, weights_of(node)
    hidden = None if weights[0][1] is None else weights[0][1].type.shape
    if x.shape is None or hidden is None:
        return [UNKNOWN] * len(node.results)
    rows = hidden[0]
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind_of(node)]
    cells = rows // gates if isinstance(rows, int) else None
    size = node.attr("proj_size") or cells
    batch = () if len(x.shape) == 2 else (x.shape[0] if node.attr("batch_first") else x.shape[1],)
    both, layers = directions(node), node.attr("num_layers")
    out = (*x.shape[:-1], None if size is None else both * size)
    states = [(layers * both, *batch, size), (layers * both, *batch, cells)][: states_of(node)]
    return [TensorType(x.dtype, shape) for shape in (out, *states)]


def _declare_layer(kind: str, states: tuple[str, ...], doc: str, **more: Attribute) -> None:
    declare(
        OpDef(
            f"qir.{kind}", ("x", *states, "weights"), 1, None,
            min_results=1 + len(states), max_results=1 + len(states),
            attributes={
                "num_layers": Attribute("INT", 1), "bias": Attribute("INT", 1), "batch_first": Attribute("INT", 0),
                "dropout": Attribute("FLOAT", 0.0), "bidirectional": Attribute("INT", 0),
                "proj_size": Attribute("INT", 0), **more,
            },
            traits=(Stateful(), Composed("recurrent", unrolled)),
            expand=as_onnx_operator, infer=_types, doc=doc,
        )
    )  # fmt: skip


def _declare_cell(kind: str, states: tuple[str, ...], doc: str, **more: Attribute) -> None:
    names = ("x", "weight_ih", "weight_hh", "bias_ih", "bias_hh", *states)
    declare(
        OpDef(
            f"qir.{kind}Cell", names, 3, len(names), min_results=len(states), max_results=len(states),
            attributes=more, traits=(Composed("recurrent-cell", cell, exact=lambda node: True),), expand=cell, doc=doc,
        )
    )  # fmt: skip


_NONLINEARITY = {"nonlinearity": Attribute("STRING", "tanh")}
for _name, _states, _more in (("LSTM", ("h", "c"), {}), ("GRU", ("h",), {}), ("RNN", ("h",), _NONLINEARITY)):
    _declare_layer(_name, _states, f"torch.nn.{_name}: the outputs of the last layer, and the last state of each.",
                   **_more)  # fmt: skip
    _declare_cell(_name, _states, f"torch.nn.{_name}Cell: the next state.", **_more)
