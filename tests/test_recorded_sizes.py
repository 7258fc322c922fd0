"""A model that torch.export recorded refuses the sizes that it is not right for, and takes all others."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import qir
from qir import QirError


class Of(nn.Module):
    """A model that is a function, and a layer with weights."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function, self.scale = function, nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.function(x * self.scale, y)


def longer(x: Tensor, y: Tensor) -> Tensor:
    return x * 2 if x.shape[1] > 8 else x


def even(x: Tensor, y: Tensor) -> Tensor:
    return x * 2 if x.shape[1] % 2 == 0 else x


def alike(x: Tensor, y: Tensor) -> Tensor:
    return x + y if x.shape[1] == y.shape[1] else x


def area(x: Tensor, y: Tensor) -> Tensor:
    return x * 2 if x.shape[0] * x.shape[1] > 20 else x


def matrix(x: Tensor, y: Tensor) -> Tensor:
    return x * 2 if x.dim() == 2 else x


def several(x: Tensor, y: Tensor) -> Tensor:
    return x - x.mean(0) if x.shape[0] > 1 else x


def double(x: Tensor, y: Tensor) -> Tensor:
    return x * 2 if x.shape[1] == 2 * y.shape[0] else x


def any_size(x: Tensor, y: Tensor) -> Tensor:
    return x * 2 if x.shape[0] >= 1 else x


X, Y = torch.randn(5, 10), torch.randn(5, 10)
CASES: list[tuple[Callable[..., Tensor], list[tuple[int, ...]], list[tuple[int, ...]], str]] = [
    (longer, [(5, 12), (5, 10)], [(5, 4), (5, 10)], "> 8"),
    (even, [(5, 12), (5, 10)], [(5, 5), (5, 10)], "% 2"),
    (alike, [(5, 12), (5, 12)], [(5, 12), (5, 11)], r"y has the shape \(5, 11\)"),
    (area, [(3, 12), (5, 10)], [(2, 2), (5, 10)], "> 20"),
    (matrix, [(3, 12), (5, 10)], [(2, 5, 10), (5, 10)], r"x has the shape \(2, 5, 10\)"),
    (several, [(3, 12), (5, 10)], [(1, 10), (5, 10)], "> 1"),
    (double, [(3, 14), (7, 10)], [(3, 14), (6, 10)], "has the shape"),
]


def arguments(sizes: list[tuple[int, ...]]) -> list[Tensor]:
    return [torch.randn(size) for size in sizes]


@pytest.mark.parametrize(("function", "right", "wrong", "message"), CASES, ids=[case[0].__name__ for case in CASES])
def test_other_sizes_are_right_or_refused(
    function: Callable[..., Tensor], right: list[tuple[int, ...]], wrong: list[tuple[int, ...]], message: str
) -> None:
    model = Of(function).eval()
    prepared = qir.prepare_model(model, example_inputs=[X, Y], importer="export")
    given = arguments(right)
    assert torch.equal(prepared(*given), model(*given))
    with pytest.raises(QirError, match=message):
        prepared(*arguments(wrong))


@pytest.mark.parametrize("function", [any_size, matrix])
def test_one_item_is_taken_where_the_model_does_the_same_for_it(function: Callable[..., Tensor]) -> None:
    model = Of(function).eval()
    prepared = qir.prepare_model(model, example_inputs=[X, Y], importer="export")
    for one in (torch.randn(1, 10), torch.randn(5, 1), torch.randn(1, 1)):
        assert torch.equal(prepared(one, Y), model(one, Y))


@pytest.mark.parametrize("nest", [False, True])
def test_conditions_hold_in_simulators_and_checkpoints(tmp_path: Path, nest: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor | tuple[Tensor, Tensor]) -> Tensor:
            x = x[0] + x[1] if isinstance(x, tuple) else x
            return self.linear(x * 2 if x.shape[0] % 2 == 0 else x)

    def given(size: int) -> Tensor | tuple[Tensor, Tensor]:
        return (torch.randn(size, 4), torch.randn(size, 4)) if nest else torch.randn(size, 4)

    sim = qir.QuantizationSimModel(Net().eval(), (given(6),))
    sim.compute_encodings(lambda model, _: model(given(6)), None)
    qir.save_checkpoint(sim, str(tmp_path / "sim"))
    x = given(8)
    for model in (sim.model, qir.load_checkpoint(str(tmp_path / "sim")).model):
        assert torch.equal(model(x), sim.model(x))
        with pytest.raises(QirError, match="% 2"):
            model(given(5))


def test_a_symbolic_trace_of_a_prepared_model_keeps_its_conditions() -> None:
    prepared = qir.prepare_model(Of(even).eval(), example_inputs=[X, Y], importer="export")
    traced = torch.fx.symbolic_trace(prepared)
    with pytest.raises(QirError, match="% 2"):
        traced(torch.randn(5, 5), Y)


class Containers(nn.Module):
    def forward(self, xs: list[Tensor], options: dict[str, Tensor]) -> Tensor:
        return torch.cat(xs, 1) * len(xs) + options.get("offset", torch.zeros(1)) + options["bias"][0]


def test_containers_with_other_items_are_refused() -> None:
    def options(**more: Tensor) -> dict[str, Any]:
        return {"bias": (torch.ones(1), torch.ones(2)), **more}

    prepared = qir.prepare_model(Containers(), example_inputs=([X, Y], options()))
    assert torch.equal(prepared([Y, X], options()), Containers()([Y, X], options()))
    for wrong, message in [
        (([X, Y, X], options()), r"xs holds the items \[0, 1, 2\]; torch.export recorded the model for \[0, 1\]"),
        (([X], options()), r"xs holds the items \[0\]"),
        (([X, Y], options(offset=X)), r"options holds the items \['bias', 'offset'\]"),
        (([X, Y], {"bias": (X, Y, Y)}), r"options\['bias'\] holds the items"),
    ]:
        with pytest.raises(QirError, match=message):
            prepared(*wrong)
    copied = deepcopy(prepared)
    assert torch.equal(copied([Y, X], options()), Containers()([Y, X], options()))
    compiled = torch.compile(prepared, fullgraph=True, backend="eager")
    assert torch.equal(compiled([Y, X], options()), Containers()([Y, X], options()))
    torch.export.export(prepared, ([X, Y], options()))


def unlike(x: Tensor, y: Tensor) -> Tensor:
    return x + y.sum() if x.shape[0] * 3 != x.shape[1] - 7 else y.sum() + x


def test_a_condition_without_a_difference_is_none() -> None:
    model = Of(unlike).eval()
    x = torch.randn(1, 10)  # the only batch that the condition is about, and of one item, which is recorded as two
    prepared = qir.prepare_model(model, example_inputs=[x, Y[:1]], importer="export")
    for size in (1, 4):
        given = arguments([(size, 10), (size, 10)])
        assert torch.equal(prepared(*given), model(*given))


def test_sizes_that_are_computed_from_others_are_left_open() -> None:
    model = Of(lambda x, y: x * 2 + y.sum()).eval()
    half = torch.export.Dim("half", max=64)
    program = torch.export.export(model, (torch.randn(6, 4), Y), dynamic_shapes=({0: 2 * half}, None))
    prepared = qir.prepare_model(program, example_inputs=[torch.randn(6, 4), Y])
    x = torch.randn(10, 4)
    assert torch.equal(prepared(x, Y), model(x, Y))
    with pytest.raises(QirError, match="x has the shape"):
        prepared(torch.randn(10, 5), Y)


def test_a_batch_that_forward_fixes_is_that_of_the_examples() -> None:
    model = Of(lambda x, y: torch.stack([row * 2 for row in x]) + y).eval()
    one = X[:1]
    prepared = qir.prepare_model(model, example_inputs=[one, one], importer="export")
    assert torch.equal(prepared(one, Y[:1]), model(one, Y[:1]))
    with pytest.raises(QirError, match="has the shape"):
        prepared(X, Y)
