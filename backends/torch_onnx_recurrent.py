"""ONNX's recurrent layers, step by step. Source of the formulas: ONNX LSTM, GRU and RNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qir.backends.torch_onnx_emissions import computes
from qir.errors import QirError

Activation = Callable[[Tensor], Tensor]
PLAIN: dict[str, Activation] = {
    "relu": F.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "softsign": F.softsign, "softplus": F.softplus,
}  # fmt: skip
SCALED: dict[str, tuple[tuple[float, ...], Callable[..., Tensor]]] = {
    "affine": ((1.0, 0.0), lambda x, a, b: a * x + b),
    "leakyrelu": ((0.01,), lambda x, a: torch.where(x < 0, a * x, x)),
    "thresholdedrelu": ((1.0,), lambda x, a: torch.where(x > a, x, torch.zeros_like(x))),
    "scaledtanh": ((1.0, 1.0), lambda x, a, b: a * torch.tanh(b * x)),
    "hardsigmoid": ((0.2, 0.5), lambda x, a, b: torch.clamp(a * x + b, 0, 1)),
    "elu": ((1.0,), lambda x, a: F.elu(x, a)),
}
"""The activations with numbers of their own, alpha and beta, and what these are unless given."""

DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}


def activations_of(op: str, names: Sequence[str] | None, alphas: Sequence[float] | None, betas: Sequence[float] | None,
                   directions: int) -> list[list[Activation]]:  # fmt: skip
    """The activations of each direction."""
    listed = list(names or DEFAULTS[op] * directions)
    given = [list(alphas or ()), list(betas or ())]
    found = [_activation(name.lower(), given) for name in listed]
    count = len(DEFAULTS[op])
    return [found[count * number : count * (number + 1)] for number in range(directions)]


def _activation(name: str, given: list[list[float]]) -> Activation:
    if name in PLAIN:
        return PLAIN[name]
    if name not in SCALED:
        raise QirError(f"torch has no activation {name!r}")
    defaults, function = SCALED[name]
    numbers = [given[place].pop(0) if given[place] else default for place, default in enumerate(defaults)]
    return lambda x: function(x, *numbers)


@dataclass(frozen=True)
class Cell:
    """The weights of one direction and how a step uses them."""

    op: str
    weight: Tensor
    recurrence: Tensor
    input_bias: Tensor
    state_bias: Tensor
    peepholes: Tensor | None
    activations: Sequence[Activation]
    limit: float | None
    linear_before_reset: int
    coupled: int

    def cut(self, x: Tensor) -> Tensor:
        """`x` within the limit, where there is one."""
        return x if self.limit is None else torch.clamp(x, -self.limit, self.limit)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The next state and cell."""
        given = x @ self.weight.t() + self.input_bias
        if self.op == "GRU":
            return self._gru(given, h), c
        total = given + h @ self.recurrence.t() + self.state_bias
        if self.op == "RNN":
            return self.activations[0](self.cut(total)), c
        return self._lstm(total, c)

    def _gru(self, given: Tensor, h: Tensor) -> Tensor:
        f, g = self.activations
        (xz, xr, xh), (rz, rr, rh) = given.chunk(3, -1), self.recurrence.chunk(3)
        bz, br, bh = self.state_bias.chunk(3)
        z, r = f(self.cut(xz + h @ rz.t() + bz)), f(self.cut(xr + h @ rr.t() + br))
        part = r * (h @ rh.t() + bh) if self.linear_before_reset else (r * h) @ rh.t() + bh
        new = g(self.cut(xh + part))
        return (1 - z) * new + z * h

    def _lstm(self, total: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        f, g, last = self.activations
        i, o, forget, cell = total.chunk(4, -1)
        pi, po, pf = (0, 0, 0) if self.peepholes is None else self.peepholes.chunk(3)
        opened = f(self.cut(i + pi * c))
        kept = 1 - opened if self.coupled else f(self.cut(forget + pf * c))
        new = kept * c + opened * g(self.cut(cell))
        return f(self.cut(o + po * new)) * last(new), new

    def run(self, x: Tensor, h: Tensor, c: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The states of all steps, and the last state and cell; a sequence that has ended keeps them."""
        states = []
        for number, part in enumerate(x):
            new_h, new_c = self.step(part, h, c)
            running = torch.tensor(True) if lengths is None else (number < lengths).unsqueeze(-1)
            h, c = torch.where(running, new_h, h), torch.where(running, new_c, c)
            states.append(torch.where(running, h, torch.zeros_like(h)))
        return torch.stack(states), h, c


def _backwards(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The steps of each sequence in reverse."""
    if lengths is None:
        return x.flip(0)
    time, ends = torch.arange(len(x)).unsqueeze(-1), lengths.to(torch.int64)
    places = torch.where(time < ends, ends - 1 - time, time)
    return x.gather(0, places.unsqueeze(-1).expand_as(x))


@computes("LSTM", "GRU", "RNN")
def recurrent(x: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor | None = None, lengths: Tensor | None = None,
              first_h: Tensor | None = None, first_c: Tensor | None = None, peepholes: Tensor | None = None, *,
              activation_alpha: Any, activation_beta: Any, activations: Any, clip: float | None, direction: str,
              hidden_size: int | None, layout: int, op: str, results: int, linear_before_reset: int = 0,
              input_forget: int = 0) -> Any:  # fmt: skip
    """The states of all steps and directions, the last states, and for an LSTM the last cells."""
    steps = x.transpose(0, 1) if layout else x
    firsts = [None if state is None else _turned(state, layout) for state in (first_h, first_c)]
    count, size = weight.shape[0], recurrence.shape[-1]
    functions = activations_of(op, activations, activation_alpha, activation_beta, count)
    found = []
    for number in range(count):
        both = weight.new_zeros(2 * weight.shape[1]) if bias is None else bias[number]
        input_bias, state_bias = both.chunk(2)
        peeps = None if peepholes is None else peepholes[number]
        weights = (weight[number], recurrence[number], input_bias, state_bias, peeps)
        cell = Cell(op, *weights, functions[number], clip, linear_before_reset, input_forget)
        zero = steps.new_zeros(steps.shape[1], size)
        h, c = (zero if state is None else state[number] for state in firsts)
        backwards = number == 1 or direction == "reverse"
        states, h, c = cell.run(_backwards(steps, lengths) if backwards else steps, h, c, lengths)
        found.append((_backwards(states, lengths) if backwards else states, h, c))
    y, last_h, last_c = (torch.stack(parts, 0) for parts in zip(*found, strict=True))
    every = y.permute(2, 1, 0, 3) if layout else y.transpose(0, 1)
    outputs = (every, _turned(last_h, layout), _turned(last_c, layout))
    return every if results == 1 else outputs[:results]


def _turned(state: Tensor, layout: int) -> Tensor:
    """A state whose first axis is the direction, or the batch in `layout` 1, in the other order if that is the case."""
    return state.transpose(0, 1) if layout else state
