"""The steps that recurrent layers and cells consist of.

The weights of a layer come in torch's order: for each layer and direction weight_ih and weight_hh, then bias_ih and
bias_hh if there are biases, then weight_hr if the hidden state is projected.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qir.errors import QirError
from qir.operators.parts import Parts

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

State = list["Value | None"]
Step = Callable[[Parts, "Value", "Value | None", State], "list[Value]"]


def _sum(on: Parts, x: Value, other: Value | None) -> Value:
    return x if other is None else on.Add(other, x)


def _lstm(on: Parts, x: Value, hidden: Value | None, state: State) -> list[Value]:
    """c = f * c + i * g; h = o * tanh(c)."""
    ins, forget, cell, out = on.split(_sum(on, x, hidden), 4, -1)
    fresh = on.Mul(on.Sigmoid(ins), on.Tanh(cell))
    kept = None if state[1] is None else on.Mul(on.Sigmoid(forget), state[1])
    memory = _sum(on, fresh, kept)
    return [on.Mul(on.Sigmoid(out), on.Tanh(memory)), memory]


def _gru(on: Parts, x: Value, hidden: Value | None, state: State) -> list[Value]:
    """n = tanh(x_n + r * h_n); h = (h - n) * z + n."""
    of_x = on.split(x, 3, -1)
    of_h: State = [None] * 3 if hidden is None else [*on.split(hidden, 3, -1)]
    update = on.Sigmoid(_sum(on, of_x[1], of_h[1]))
    new = of_x[2]
    if of_h[2] is not None:
        new = on.Add(new, on.Mul(of_h[2], on.Sigmoid(_sum(on, of_x[0], of_h[0]))))
    new = on.Tanh(new)
    apart = on.Neg(new) if state[0] is None else on.Sub(state[0], new)
    return [on.Add(on.Mul(apart, update), new)]


def _rnn(on: Parts, x: Value, hidden: Value | None, state: State) -> list[Value]:
    """h = tanh(x + h), or relu."""
    total = _sum(on, x, hidden)
    return [on.Tanh(total) if on.node.attr("nonlinearity") == "tanh" else on.Relu(total)]


STEPS: dict[str, Step] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


def kind_of(node: Node) -> str:
    """LSTM, GRU or RNN."""
    return node.op.removeprefix("qir.").removesuffix("Cell")


def _zeros(on: Parts, gates: Value, weight_hh: Value) -> Value:
    """A hidden state of zeros for these gates, through which weight_hh has a gradient, if zeros."""
    size = on.size(weight_hh, 1)
    return on.composite("FullLike", [on.Slice(gates, [0], [size], [-1])], value=0.0)[0]


def _hidden(on: Parts, h: Value | None, weight: Value, bias: Value | None) -> Value | None:
    """What the hidden state adds to the gates; the bias alone where the state is zero."""
    return bias if h is None else on.linear(h, weight, bias)


def cell(graph: Graph, node: Node) -> Sequence[Value]:
    """One step."""
    on, kind = Parts(graph, node), kind_of(node)
    x, weight_ih, weight_hh, bias_ih, bias_hh = [*node.operands, None, None][:5]
    state = [node.operand(name) for name in node.definition.operands[5:]]
    gates = on.linear(x, weight_ih, bias_ih)
    state[0] = state[0] or _zeros(on, gates, weight_hh)
    return STEPS[kind](on, gates, _hidden(on, state[0], weight_hh, bias_hh), state)


def weights_of(node: Node) -> list[list[Value | None]]:
    """For each layer and direction: weight_ih, weight_hh, bias_ih, bias_hh and weight_hr, None where there is none."""
    biased, projected = bool(node.attr("bias")), bool(node.attr("proj_size"))
    flat = iter(node.operands[1 + states_of(node) :])
    count = node.attr("num_layers") * directions(node)
    nothing: list[Value | None] = [None, None]
    return [
        [next(flat), next(flat), *([next(flat), next(flat)] if biased else nothing), next(flat) if projected else None]
        for _ in range(count)
    ]


def states_of(node: Node) -> int:
    """How many tensors the state is made of."""
    return 2 if node.op == "qir.LSTM" else 1


def directions(node: Node) -> int:
    """2 for a bidirectional layer, else 1."""
    return 2 if node.attr("bidirectional") else 1


def unrolled(graph: Graph, node: Node) -> Sequence[Value]:
    """One step after the other. Raises QirError when the length of the sequence is not known."""
    on, x, both = Parts(graph, node), node.operands[0], directions(node)
    rank, axis = x.type.rank, 1 if node.attr("batch_first") and x.type.rank == 3 else 0
    length = None if x.type.shape is None else x.type.shape[axis]
    if not isinstance(length, int) or length == 0:
        raise QirError("the length of its sequence is not known", node)
    initial: State = [*node.operands[1 : 1 + states_of(node)]]
    if rank == 2:
        x, initial = on.Unsqueeze(x, [1]), [None if part is None else on.Unsqueeze(part, [1]) for part in initial]
    x = on.Transpose(x, perm=(1, 0, 2)) if axis == 1 else x
    final: list[list[Value]] = []
    weights = weights_of(node)
    for layer in range(node.attr("num_layers")):
        if layer and node.attr("dropout"):
            x = on.Dropout(x, float(node.attr("dropout")))
        ways = []
        for turn in range(both):
            place = layer * both + turn
            state = [None if part is None else on.composite("Index", [part], index=(place,))[0] for part in initial]
            steps = range(length) if turn == 0 else range(length - 1, -1, -1)
            outputs, last = _run(on, x, weights[place], state, steps)
            ways.append(outputs)
            final.append(last)
        x = ways[0] if both == 1 else on.Concat(*ways, axis=-1)
    x = on.Transpose(x, perm=(1, 0, 2)) if axis == 1 else x
    stacked = [_stacked(on, [last[number] for last in final]) for number in range(states_of(node))]
    return [x, *stacked] if rank == 3 else [on.Squeeze(part, [1]) for part in (x, *stacked)]


def _run(on: Parts, x: Value, weights: list[Value | None], state: State, steps: range) -> tuple[Value, list[Value]]:
    """The hidden states in the order of the sequence, and the last state, of one layer in one direction."""
    weight_ih, weight_hh, bias_ih, bias_hh, projection = weights
    assert weight_ih is not None
    assert weight_hh is not None
    gates, last, outputs = on.linear(x, weight_ih, bias_ih), state, {}
    alone = state[0] is None and len(steps) == 1
    for place in steps:
        gate = on.composite("Index", [gates], index=(place,))[0]
        last = [_zeros(on, gate, weight_hh), *last[1:]] if alone else last
        h, *memory = STEPS[kind_of(on.node)](on, gate, _hidden(on, last[0], weight_hh, bias_hh), last)
        outputs[place] = h if projection is None else on.linear(h, projection)
        last = [outputs[place], *memory]
    return _stacked(on, [outputs[place] for place in sorted(outputs)]), [part for part in last if part is not None]


def _stacked(on: Parts, parts: Sequence[Value]) -> Value:
    """The tensors along a new first axis."""
    rows = [on.Unsqueeze(part, [0]) for part in parts]
    return rows[0] if len(rows) == 1 else on.Concat(*rows, axis=0)
