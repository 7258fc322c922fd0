"""Models that a tracer easily gets wrong: each is prepared exactly, or refused in one sentence. None is wrong."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import qir
from qir import QirError
from tests.comparing import same


class Calls(nn.Module):
    """A model whose forward is a function of itself and its input, with a layer and a buffer to use."""

    def __init__(self, function: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(4, 4)
        self.register_buffer("state", torch.zeros(4))
        self.count = 0

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def counts(model: Any, x: Tensor) -> Tensor:
    """Computes with a number that every call changes."""
    model.count += 1
    return x * model.count


def averages(model: Any, x: Tensor) -> Any:
    """Replaces its buffer."""
    model.state = 0.5 * model.state + x.mean(0)
    return x - model.state


def updates(model: Any, x: Tensor) -> Any:
    """Writes into its buffer."""
    model.state.copy_(x.mean(0))
    return x - model.state


def under_autocast(model: Any, x: Tensor) -> Any:
    """Computes a part in bfloat16."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model.linear(x).float()


def into_out(model: Any, x: Tensor) -> Tensor:
    """Writes a result into a tensor."""
    y = torch.empty_like(x)
    torch.add(x, 1, out=y)
    return y * 2


def draws_from_its_own(model: Any, x: Tensor) -> Tensor:
    """Draws from a generator of its own."""
    return x + torch.rand(3, 4, generator=torch.Generator().manual_seed(1))


def fills(model: Any, x: Tensor) -> Tensor:
    """Fills a new tensor with random numbers."""
    return x + torch.empty(3, 4).uniform_()


REFUSED = {
    "counts": (counts, "count"),
    "averages": (averages, "state"),
    "updates": (updates, "state"),
    "autocast": (under_autocast, "autocast"),
    "out": (into_out, "out"),
}


@pytest.mark.parametrize("importer", [None, "fx", "export"])
@pytest.mark.parametrize(("function", "named"), REFUSED.values(), ids=REFUSED)
def test_what_no_graph_can_hold_is_refused(function: Any, named: str, importer: Any) -> None:
    model, x = Calls(function).eval(), torch.randn(3, 4)
    with pytest.raises(QirError, match=named):
        qir.prepare_model(model) if importer is None else qir.prepare_model(
            model, example_inputs=(x,), importer=importer
        )
    assert model.count == 0
    assert not model.state.any()
    assert type(model.state) is Tensor


@pytest.mark.parametrize("function", [under_autocast, into_out, draws_from_its_own])
def test_a_refused_call_is_shown(function: Any) -> None:
    with pytest.raises(QirError) as caught:
        qir.prepare_model(Calls(function))
    assert "test_hard_models.py" in str(caught.value.snippet)
    assert caught.value.help


def test_random_numbers_in_a_new_tensor_are_refused_by_torch_fx() -> None:
    with pytest.raises(QirError, match="fills a new tensor with random numbers"):
        qir.prepare_model(Calls(fills))


def remembers(model: Any, x: Tensor) -> Any:
    """Keeps a result, which the next call does not read."""
    model.last = model.linear(x)
    return model.last + 1


def without_gradient(model: Any, x: Tensor) -> Any:
    """Cuts a part off from the gradient."""
    with torch.no_grad():
        y = model.linear(x)
    return y * 2 + model.linear(x)


def moves_its_state(model: Any, x: Tensor) -> Any:
    """Puts its buffer where the input is, as models do that are moved between devices."""
    model.state = model.state.to(device=x.device, dtype=x.dtype)
    model.state = model.state.to(x.device).type_as(x)
    return x - model.state


def fills_without_gradient(model: Any, x: Tensor) -> Any:
    """Changes a tensor in place, in a block of its own, and takes a view of it afterwards."""
    with torch.no_grad():
        y = torch.zeros_like(x)
        y.add_(x.sin())
        part = y[:, ::2]
    return part * model.linear(x)[:, :2]


EXACT: dict[str, Callable[[Any, Tensor], Any]] = {
    "remembers": remembers,
    "no_grad": without_gradient,
    "moves its state": moves_its_state,
    "in place under no_grad": fills_without_gradient,
    "draws": lambda model, x: x + torch.rand(3, 4) + torch.randn(4) + torch.rand_like(x),
    "checkpoint": lambda model, x: checkpoint(lambda x: torch.relu(model.linear(x)), x, use_reentrant=False),
    "ordered": lambda model, x: OrderedDict(a=x + 1, b=[x, {"c": (x * 2, None)}]),
    "and is not in place": lambda model, x: ((x > 0) & (x < 1), ~(x > 0), x),
    "integer and": lambda model, x: [y := (x * 9).long(), y & 3, ~y, y | 4],
    "data": lambda model, x: model.linear(x).data + x.data,
    "dropout": lambda model, x: F.dropout(x, 0.5, training=True) + x,
    "keywords": lambda model, x: F.layer_norm(input=model.linear(input=x), normalized_shape=(4,)),
}


@pytest.mark.parametrize("importer", [None, "fx", "export"])
@pytest.mark.parametrize("function", EXACT.values(), ids=EXACT)
def test_what_a_graph_can_hold_is_exact(function: Any, importer: Any) -> None:
    model, x = Calls(function).eval(), torch.randn(3, 4)
    prepared = (
        qir.prepare_model(model)
        if importer is None
        else qir.prepare_model(model, example_inputs=(x,), importer=importer)
    )
    assert "last" not in vars(model)
    for seed in range(2):
        torch.manual_seed(seed)
        expected = model(x)
        torch.manual_seed(seed)
        actual = prepared(x)
        assert same(actual, expected)
        assert type(actual) is type(expected)


@pytest.mark.parametrize("importer", ["fx", "export"])
def test_no_gradient_passes_through_a_part_under_no_grad(importer: Any) -> None:
    model, x = Calls(without_gradient), torch.randn(3, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer=importer)
    for module in (model, prepared):
        module(x).sum().backward()
    assert same(prepared.linear.weight.grad, model.linear.weight.grad)  # type: ignore[union-attr]


def test_a_model_that_writes_to_its_weights_is_as_it_was_after_preparation() -> None:
    model, x = nn.Sequential(nn.Embedding(9, 8, max_norm=0.5)), torch.arange(6).view(2, 3)
    before = model[0].weight.detach().clone()
    prepared = qir.prepare_model(model.eval(), example_inputs=(x,))
    assert torch.equal(model[0].weight, before)
    assert torch.equal(prepared(x), model(x))


def test_hooks_of_the_model_itself_are_seen_by_torch_export_alone() -> None:
    model, x = nn.Sequential(nn.Linear(4, 4)).eval(), torch.randn(3, 4)
    model.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    with pytest.raises(QirError, match="does not see the hooks"):
        qir.prepare_model(model)
    assert same(qir.prepare_model(model, example_inputs=(x,))(x), model(x))


def test_layers_with_computed_weights_stay_whole_and_exact() -> None:
    from torch.nn.utils import prune

    model = nn.Sequential(
        nn.utils.weight_norm(nn.Linear(4, 4)), nn.utils.spectral_norm(nn.Linear(4, 4)), nn.Linear(4, 4)
    )
    prune.l1_unstructured(model[2], "weight", 0.5)  # type: ignore[no-untyped-call]
    x = torch.randn(3, 4)
    assert same(qir.prepare_model(model.eval(), example_inputs=(x,))(x), model(x))


def test_names_and_layers_that_no_module_can_be_made_of_are_refused() -> None:
    keyword = nn.Sequential(OrderedDict({"in": nn.Linear(4, 4)}))
    with pytest.raises(QirError, match="'in' holds a keyword of Python"):
        qir.prepare_model(keyword)
    with pytest.raises(QirError, match=r"0.weight has no shape yet"):
        qir.prepare_model(nn.Sequential(nn.LazyLinear(4)))
    with pytest.raises(QirError, match=r"0 is compiled by torch.jit"):
        qir.prepare_model(nn.Sequential(torch.jit.script(nn.Linear(4, 4))))
