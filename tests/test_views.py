"""In-place calls on views: whatever shares memory holds what it does in torch, in evaluation and in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import qir
from qir import QirError
from tests.comparing import same, train_step


class Net(nn.Module):
    """A layer, a function that changes tensors in place, and a dropout."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.linear, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(3), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Any:
        return self.function(self.drop(self.norm(self.linear(x))))


def assigned(x: Tensor) -> Tensor:
    """Items, one after the other."""
    y = torch.zeros_like(x)
    y[..., 0] = x[..., 1]
    y[:, 1:, 1:3] = x[:, 1:, :2] * 2
    y[0] = 1
    return y + x


def through(x: Tensor) -> Tensor:
    """A change through several views of each other."""
    y = x.clone()
    y.transpose(1, 2).unsqueeze(0)[0, :, ::2].permute(2, 0, 1)[1].mul_(3)
    return y * 2


def twice(x: Tensor) -> Tensor:
    """A view and its base, changed in turn."""
    x = x * 1
    view = x[:, 1]
    view.add_(1)
    x.mul_(2)
    view += 1
    return x + view.unsqueeze(1)


def siblings(x: Tensor) -> tuple[Tensor, ...]:
    """Two views that overlap, and one that does not."""
    y = x * 1
    first, second, third = y[:, :2], y[:, 1:], y[:, 0, :1]
    first.add_(1)
    second.relu_()
    return first, second, third, y


def pieces(x: Tensor) -> tuple[Tensor, ...]:
    """Pieces of a tensor, of which one is changed; torch allows that without gradients alone."""
    y, z = x.detach() * 1, x.detach() * 2
    a, b = torch.split(y, 2, dim=2)
    b.sigmoid_()
    c, d, e = z.unbind(1)
    d.neg_()
    f, _ = y.chunk(2, -1)
    f.add_(c[:, :2].unsqueeze(1))
    return a, b, c, d, e, y, z


def reshaped(x: Tensor) -> tuple[Tensor, Tensor]:
    """A view of another shape."""
    y = x * 1
    y.view(-1, 12)[:, 5:7].fill_(2)
    return y, y.expand(2, -1, -1, -1)


def in_a_layer(x: Tensor) -> Tensor:
    """A change by a call that a layer makes."""
    y = x * 1
    F.relu(y[:, 1:], inplace=True)
    return y


def of_results(x: Tensor) -> tuple[Tensor, Tensor]:
    """One of two results that share no memory."""
    values, indices = x.topk(2)
    values.mul_(2)
    return values, indices


FUNCTIONS = [assigned, through, twice, siblings, pieces, reshaped, in_a_layer, of_results]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_shares_memory_is_followed(function: Callable[[Tensor], Any]) -> None:
    torch.manual_seed(0)
    model, x = Net(function).eval(), torch.randn(2, 3, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer="export")
    for size in (2, 5):
        y = torch.randn(size, 3, 4)
        assert same(prepared(y), model(y))
    assert same(train_step(prepared, [x]), train_step(model, [x]))
    for first, second in zip(prepared.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad)


def test_state_that_is_changed_through_a_view_is_refused() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("counts", torch.zeros(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            self.get_buffer("counts")[0].add_(1)
            return x * 2

    with pytest.raises(QirError, match="changes its state counts"):
        qir.prepare_model(Counts(), example_inputs=(torch.rand(3, 4),), importer="export")


def test_a_block_without_gradients_changes_nothing_outside() -> None:
    def fills(x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        with torch.no_grad():
            y[:, 1] = x[:, 2]
        return y + x

    with pytest.raises(QirError, match="a block under no_grad changes a tensor"):
        qir.prepare_model(Net(fills).eval(), example_inputs=(torch.rand(2, 3, 4),), importer="export")


VIEWS: list[Callable[[Tensor], Tensor]] = [
    lambda x: x[1:], lambda x: x[:, ::2], lambda x: x[-1], lambda x: x[..., 1], lambda x: x.transpose(0, -1),
    lambda x: x.unsqueeze(1), lambda x: x.squeeze(0), lambda x: x.diagonal(), lambda x: x.T, lambda x: x.detach(),
    lambda x: x.flatten(), lambda x: x.reshape(-1, 2), lambda x: x.narrow(0, 0, 2), lambda x: x.chunk(2)[0],
]  # fmt: skip
CHANGES: list[Callable[[Tensor], Any]] = [
    lambda x: x.mul_(2), lambda x: x.add_(x.sum()), lambda x: x.zero_(), lambda x: x.copy_(x.mean()),
    lambda x: x.clamp_(-1, 1), lambda x: x.masked_fill_(x > 0, 3.0),
]  # fmt: skip


def run(steps: list[tuple[int, int, int]], x: Tensor) -> list[Tensor]:
    """Takes a view of an earlier tensor at each step, where it can, and changes it, where that is a change."""
    tensors = [x * 1]
    for which, view, change in steps:
        tensor = tensors[which % len(tensors)]
        if view < len(VIEWS) and tensor.ndim > 1:
            tensor = VIEWS[view](tensor)
            tensors.append(tensor)
        if change < len(CHANGES):
            CHANGES[change](tensor)
    return tensors


STEP = st.tuples(st.integers(0, 5), st.integers(0, len(VIEWS)), st.integers(0, 2 * len(CHANGES)))


@settings(max_examples=12, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=5))
def test_random_changes_of_random_views(steps: list[tuple[int, int, int]]) -> None:
    x = torch.arange(24.0).reshape(4, 6).sin()
    model = Net(lambda x: run(steps, x))
    model.linear, model.norm, model.drop = nn.Identity(), nn.Identity(), nn.Identity()  # type: ignore[assignment]
    with torch.no_grad():
        expected = model(x)
        assert same(qir.prepare_model(model.eval(), example_inputs=(x,), importer="export")(x), expected)
