"""A forward that asks whether a value is a tensor is traced as it runs, without examples too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir

Ask = Callable[[Any], bool]
ASKS: dict[str, Ask] = {
    "isinstance": lambda x: isinstance(x, Tensor),
    "several": lambda x: isinstance(x, (list, torch.Tensor)),
    "union": lambda x: isinstance(x, list | Tensor),
    "is_tensor": lambda x: torch.is_tensor(x),
    "not a list": lambda x: not isinstance(x, (list, tuple)),
    "not a parameter": lambda x: not isinstance(x, nn.Parameter),
}


class Layered(nn.Module):
    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self.conv, self.ask, self.factor = nn.Conv2d(2, 2, 3), ask, nn.Parameter(torch.ones(2, 1, 1) / 2)

    def forward(self, x: Tensor) -> Tensor:
        for step in (self.conv, torch.relu, lambda x: x * self.factor, lambda x: x[:1], lambda x: x.flatten(1), F.relu):
            x = x * 2 if self.ask(x) else x
            x = step(x)
        return x


@pytest.mark.parametrize("name", ASKS)
def test_a_symbol_for_a_tensor_is_a_tensor(name: str) -> None:
    model, x = Layered(ASKS[name]).eval(), torch.randn(2, 2, 5, 5)
    assert torch.equal(qir.prepare_model(model)(x), model(x))


class Results(nn.Module):
    """Asks of results that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.cell = nn.LSTM(4, 4), nn.LSTMCell(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        result = self.lstm(x)
        x = result if isinstance(result, Tensor) else result[0]
        state = self.cell(x[0])
        x = x + (state if isinstance(state, Tensor) else state[1])
        best = x.max(-1)
        x = best if isinstance(best, Tensor) else best[0]
        size = x.size(0)
        return x if torch.is_tensor(size) else x * size


def test_other_results_are_none() -> None:
    model, x = Results().eval(), torch.randn(3, 2, 4)
    assert torch.equal(qir.prepare_model(model)(x), model(x))


def test_nothing_is_left_behind() -> None:
    before = torch.is_tensor
    qir.prepare_model(Layered(ASKS["isinstance"]).eval())
    with pytest.raises(qir.QirError):
        qir.prepare_model(Failing())
    assert torch.is_tensor is before
    assert "isinstance" not in globals()


class Failing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if isinstance(x, Tensor) and x.sum() > 0 else -x
