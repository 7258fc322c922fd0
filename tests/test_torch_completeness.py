"""Every public spelling of torch is lowered, or stands in the table of opaque calls with its reason."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import get_overridable_functions
from torch.utils import _pytree as pytree

import qir
from qir.backends.torch_module import emit_torch
from qir.frontends.torch_export import import_exported
from qir.frontends.torch_fx import import_torch
from qir.frontends.torch_lowerings import lowers, plain_name
from qir.frontends.torch_opaque import OPAQUE
from tests.comparing import same
from tests.lowered_calls import X, Y
from tests.lowered_products import MATRIX
from tests.lowered_windows import UNPOOLED
from tests.test_torch_lowerings import CALLS, OTHER_ARGUMENTS, traced

HOMES: dict[str, Any] = {"torch": torch, "F": F, "Tensor": Tensor, "nn": nn}


def is_operator(name: str) -> bool:
    """Whether a method is Python's for an operator: plain, in-place or reflected."""
    bare = name.strip("_")
    forms = {bare, bare[1:]} if bare[:1] in ("r", "i") else {bare}
    return name.startswith("__") and any(f"__{form}__" in vars(operator) or form == "div" for form in forms)


def of_tensors() -> Iterator[tuple[str, str]]:
    """Home and name of every public function of tensors and method of Tensor."""
    takes_tensors = {id(function) for functions in get_overridable_functions().values() for function in functions}
    for name in dir(torch):
        function = getattr(torch, name)
        plain = getattr(torch, plain_name(name) or "", None)
        if not name.startswith("_") and {id(function), id(plain)} & takes_tensors and not isinstance(function, type):
            yield "torch", name
    for name in dir(F):
        function = getattr(F, name)
        module = getattr(function, "__module__", None) or "torch"
        if not name.startswith("_") and callable(function) and not isinstance(function, type) \
                and module.startswith("torch"):  # fmt: skip
            yield "F", name
    for name in dir(Tensor):
        if callable(getattr(Tensor, name)) and (is_operator(name) if name.startswith("_") else True):
            yield "Tensor", name


def layers() -> Iterator[tuple[str, str]]:
    for name in dir(nn):
        kind = getattr(nn, name)
        if isinstance(kind, type) and issubclass(kind, nn.Module):
            yield "nn", name


@cache
def spellings() -> tuple[tuple[str, str], ...]:
    return (*of_tensors(), *layers())


def is_lowered(home: str, name: str) -> bool:
    if home == "nn":
        return getattr(nn, name) in lowers.table
    if home == "Tensor":
        return lowers.of_method(name) is not None
    return lowers.of_function(getattr(HOMES[home], name)) is not None


def reason(home: str, name: str) -> str | None:
    """Why a spelling, or the plain form of an in-place one, is opaque."""
    names = [name, *([plain] if (plain := plain_name(name)) is not None else [])]
    found = [OPAQUE.get(f"{home}.{each}") or (OPAQUE.get(each) if home != "nn" else None) for each in names]
    return next((each for each in found if each is not None), None)


def test_every_spelling_is_lowered_or_opaque_for_a_reason() -> None:
    missing = [f"{home}.{name}" for home, name in spellings() if not is_lowered(home, name) and not reason(home, name)]
    assert not missing


def test_nothing_is_both_lowered_and_opaque() -> None:
    assert not [f"{home}.{name}" for home, name in spellings() if is_lowered(home, name) and reason(home, name)]


def test_no_entry_is_stale() -> None:
    names = {f"{home}.{name}" for home, name in spellings()} | {name for home, name in spellings() if home != "nn"}
    assert not set(OPAQUE) - names
    methods = {spelling.removeprefix("Tensor.") for spelling in lowers.table
               if isinstance(spelling, str) and spelling.startswith("Tensor.")}  # fmt: skip
    assert not [name for name in methods if not hasattr(Tensor, name)]


WITHOUT_GRADIENT = {"batch_norm", "aten_batch_norm"}
"""Lowerings whose calls give statistics as inputs, for which torch has no gradient."""


def cases() -> Iterator[Any]:
    """One spelling of every lowering, with each of its calls."""
    seen = set()
    for spelling, lowering in lowers.table.items():
        calls = CALLS.get(lowering.__name__, [])
        if isinstance(spelling, type) or spelling in OTHER_ARGUMENTS or lowering.__name__ in {*seen, *WITHOUT_GRADIENT}:
            continue
        is_method = isinstance(spelling, str)
        if plain_name(spelling.removeprefix("Tensor.") if is_method else spelling.__name__) is not None:
            continue  # torch refuses to change what wants a gradient
        seen.add(lowering.__name__)
        kind = "call_method" if is_method else "call_function"
        for number, given in enumerate(calls):
            target = spelling.removeprefix("Tensor.") if is_method else spelling
            yield pytest.param(*traced(kind, target, given, False), id=f"{lowering.__name__}-{number}")


def outputs_and_gradients(model: Any, inputs: list[Tensor]) -> tuple[list[Any], list[Any]]:
    """What the model returns, and what a sum of squares of it sends back to each input."""
    leaves = [value.detach().clone().requires_grad_(value.is_floating_point()) for value in inputs]
    outputs = pytree.tree_leaves(model(*leaves))
    loss = [(output * output).sum() for output in outputs if output.requires_grad]
    if loss:
        with suppress(RuntimeError):  # torch has no derivative of floor_divide
            torch.stack(loss).sum().backward()  # type: ignore[no-untyped-call]
    return outputs, [leaf.grad for leaf in leaves if leaf.grad is not None]


@pytest.mark.parametrize(("model", "inputs"), list(cases()))
def test_call_and_its_gradient_are_torchs(model: Any, inputs: list[Tensor]) -> None:
    compare_with_torch(import_torch, model, inputs)


def compare_with_torch(importer: Any, model: Any, inputs: list[Tensor]) -> None:
    graph = importer(model, [value.clone() for value in inputs])
    qir.Pipeline.parse("lift-functionals").run(graph)
    module = emit_torch(graph)
    assert same(outputs_and_gradients(module, inputs), outputs_and_gradients(model, inputs))


NOT_EXPORTED = {"combinations-0", "correlation-0", "covariance-0", "grouped_mm-0"}
"""Calls that torch.export can not follow: torch's own code asks for data, or for another dtype than when it runs."""

FIRST = [case for case in cases() if str(case.id).endswith("-0") and case.id not in NOT_EXPORTED]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "inputs"), FIRST)
def test_exported_call_and_its_gradient_are_torchs(model: Any, inputs: list[Tensor]) -> None:
    compare_with_torch(import_exported, model, inputs)


class Paired(nn.Module):
    """A layer of two tensors."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.layer(a, b)


@pytest.mark.parametrize(("layer", "a", "b"), [
    (nn.CosineSimilarity(), X, Y), (nn.PairwiseDistance(p=1.0), X, Y), (nn.Bilinear(4, 4, 5), MATRIX, MATRIX * 2),
    *((kind(2), *UNPOOLED[rank]) for rank, kind in enumerate((nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d))),
])  # fmt: skip
def test_layer_of_two_tensors(layer: nn.Module, a: Tensor, b: Tensor) -> None:
    graph = import_torch(Paired(layer), [a, b])
    assert not [node.op for node in graph.nodes() if node.definition.opaque]
    assert same(emit_torch(graph)(a, b), layer(a, b))


class Fields(nn.Module):
    """Reads the results of functions that return several by name, by number and in turn."""

    def forward(self, x: Tensor) -> Any:
        most = torch.topk(x, 2)
        values, places = x.max(-1)
        low, high = torch.aminmax(x, dim=1)
        return most.values, most[1], values, places, x.sort(dim=1).indices, low, high, x.cummax(0)


@pytest.mark.parametrize("importer", [import_torch, import_exported])
def test_several_results_are_read_by_name_by_number_and_in_turn(importer: Any) -> None:
    graph = importer(Fields(), [X])
    qir.Pipeline.parse("lift-functionals").run(graph)
    assert not [node.op for node in graph.nodes() if node.definition.opaque]
    assert same(emit_torch(graph)(X), Fields()(X))


class Questions(nn.Module):
    """Computes with what it asks about its input."""

    def forward(self, x: Tensor) -> Tensor:
        last = x.dim() - 1
        y = x.transpose(last, x.ndimension() - 2) * x.element_size()
        y = y * (torch.is_floating_point(x) + 2 * x.is_signed() - x.is_complex())
        return y.sum(last) / (x[0].numel() + torch.numel(x[0]) - x[0].nelement())


def test_what_the_type_answers_is_a_number() -> None:
    graph = import_torch(Questions(), [X])
    assert not [node.op for node in graph.nodes() if node.definition.opaque]
    qir.Pipeline.parse("lift-functionals").run(graph)
    assert same(emit_torch(graph)(X), Questions()(X))
