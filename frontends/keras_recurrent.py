"""Lowerings of Keras's recurrent layers.

A layer with the usual activations and without a mask is one operator. Others are opened and written step by step. A
graph computes inference: the dropout inside of recurrent layers is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import activations, layers

from qir.arrangements import Picked, Step, Taken, Transposed
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import known

GATES = {"LSTM": (0, 1, 2, 3), "GRU": (1, 0, 2), "RNN": (0,)}
"""For each of torch's gates, which the composites have, the number of Keras's."""


def _steps(kind: str, units: int, *first: Step, axis: int = 0) -> list[Step]:
    """The steps that bring gates along an axis into torch's order."""
    order = GATES[kind]
    places = tuple(gate * units + unit for gate in order for unit in range(units))
    return [*first] if order == tuple(range(len(order))) else [*first, Taken(axis, places)]


def _biases(build: KerasBuilder, kind: str, cell: Any, units: int) -> list[Any]:
    """The bias of the input and that of the state."""
    if cell.bias is None:
        return []
    size = units * len(GATES[kind])
    if len(cell.bias.shape) == 2:
        return [build.arranged(cell.bias, *_steps(kind, units, Picked(row))) for row in (0, 1)]
    return [build.arranged(cell.bias, *_steps(kind, units)), np.zeros(size, np.float32)]


def _recurrent(build: KerasBuilder, kind: str, layer: dict[str, Any], x: Value, initial: Any, **attrs: Any) -> Any:
    """The results of a recurrent layer as Keras arranges them."""
    cell, count = layer["cell"], 2 if kind == "LSTM" else 1
    units = cell.units
    known(not layer["stateful"], "a state that is kept from one batch to the next")
    weights = [build.arranged(kernel, *_steps(kind, units, Transposed((1, 0))))
               for kernel in (cell.kernel, cell.recurrent_kernel)]  # fmt: skip
    biases = _biases(build, kind, cell, units)
    given = [None] * count if initial is None else initial if isinstance(initial, list | tuple) else [initial]
    states = [None if state is None else build("Unsqueeze", state, build.indices([0])) for state in given]
    x = build("qir.Flip", x, dims=(1,)) if layer["go_backwards"] else x
    operands = [x, *states, *weights, *biases]
    outputs, *last = build.several(f"qir.{kind}", None, *operands, batch_first=1, bias=int(bool(biases)), **attrs)
    final = [build("Squeeze", state, build.indices([0])) for state in last]
    result = outputs if layer["return_sequences"] else final[0]
    return (result, *final) if layer["return_state"] else result


def _plain(mask: Any, activation: Any, expected: Sequence[Any]) -> None:
    known(mask is None, "a mask")
    known(activation in expected, "another activation")


@lowers(layers.LSTM)
def lstm(build: KerasBuilder, sequences: Value, initial_state: Any = None, mask: Any = None, training: Any = None, *,
         cell: Any, activation: Any, recurrent_activation: Any, return_sequences: bool, return_state: bool,
         go_backwards: bool, stateful: bool) -> Any:  # fmt: skip
    """qir.LSTM."""
    _plain(mask, activation, [activations.tanh])
    known(recurrent_activation is activations.sigmoid, "another activation")
    known(rank_of(sequences) == 3, "inputs of other than three axes")
    layer = {"cell": cell, "return_sequences": return_sequences, "return_state": return_state,
             "go_backwards": go_backwards, "stateful": stateful}  # fmt: skip
    return _recurrent(build, "LSTM", layer, sequences, initial_state)


@lowers(layers.GRU)
def gru(build: KerasBuilder, sequences: Value, initial_state: Any = None, mask: Any = None, training: Any = None, *,
        cell: Any, activation: Any, recurrent_activation: Any, reset_after: bool, return_sequences: bool,
        return_state: bool, go_backwards: bool, stateful: bool) -> Any:  # fmt: skip
    """qir.GRU."""
    _plain(mask, activation, [activations.tanh])
    known(recurrent_activation is activations.sigmoid and reset_after, "another activation, or an early reset")
    known(rank_of(sequences) == 3, "inputs of other than three axes")
    layer = {"cell": cell, "return_sequences": return_sequences, "return_state": return_state,
             "go_backwards": go_backwards, "stateful": stateful}  # fmt: skip
    return _recurrent(build, "GRU", layer, sequences, initial_state)


@lowers(layers.SimpleRNN)
def simple_rnn(build: KerasBuilder, sequences: Value, initial_state: Any = None, mask: Any = None,
               training: Any = None, *, cell: Any, activation: Any, return_sequences: bool, return_state: bool,
               go_backwards: bool, stateful: bool) -> Any:  # fmt: skip
    """qir.RNN."""
    _plain(mask, activation, [activations.tanh, activations.relu])
    known(rank_of(sequences) == 3, "inputs of other than three axes")
    layer = {"cell": cell, "return_sequences": return_sequences, "return_state": return_state,
             "go_backwards": go_backwards, "stateful": stateful}  # fmt: skip
    nonlinearity = "tanh" if activation is activations.tanh else "relu"
    return _recurrent(build, "RNN", layer, sequences, initial_state, nonlinearity=nonlinearity)
