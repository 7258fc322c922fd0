"""einsum and einops come apart into the operators that they are computed by, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import einops
import pytest
import torch
from einops import rearrange, repeat
from einops.layers.torch import EinMix, Rearrange, Reduce
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import qir
from qir.frontends.torch_fx import import_torch
from tests.comparing import same
from tests.composed import check_in_onnx, decomposed, difference, imported

SIZES = {"a": 2, "b": 3, "c": 4, "d": 5, "e": 1, "f": 2}
_random = torch.Generator().manual_seed(0)


def inputs_of(equation: str, rest: tuple[int, ...] = (2, 3)) -> list[Tensor]:
    def shape(term: str) -> list[int]:
        before, dots, after = term.partition("...")
        return [*(SIZES[label] for label in before), *(rest if dots else ()), *(SIZES[label] for label in after)]

    return [torch.randn(shape(term), generator=_random) for term in equation.partition("->")[0].split(",")]


def _traced(equation: str, inputs: list[Tensor]) -> tuple[nn.Module, list[Tensor]]:
    graph = torch.fx.Graph()
    values = [graph.placeholder(f"x{number}") for number in range(len(inputs))]
    graph.output(graph.call_function(torch.einsum, (equation, *values)))
    return torch.fx.GraphModule(nn.Module(), graph), inputs


@st.composite
def equations(draw: Any) -> str:
    """Up to three operands without diagonals, any of their labels in the result."""
    term = st.lists(st.sampled_from(sorted(SIZES)), min_size=1, max_size=4, unique=True).map("".join)
    terms = draw(st.lists(term, min_size=1, max_size=3))
    output = draw(st.lists(st.sampled_from(sorted({*"".join(terms)})), max_size=4, unique=True))
    return f"{','.join(terms)}->{''.join(output)}"


@settings(max_examples=60, deadline=None)
@given(equations())
def test_any_equation_is_torchs(equation: str) -> None:
    model, inputs = _traced(equation, inputs_of(equation))
    graph, parts = decomposed(imported(model, inputs))
    assert "Einsum" not in {node.op for node in graph.nodes()}
    assert as_exact_as_said(equation, parts(*inputs), model(*inputs))


def as_exact_as_said(equation: str, parts: Any, whole: Any) -> bool:
    """Bit-equal for two operands. opt_einsum, which torch asks where it is installed, orders more by their sizes."""
    return same(parts, whole) if equation.count(",") < 2 else difference(parts, whole) < 1e-4


@pytest.mark.parametrize("equation", [
    "ab,bc", "ab->ba", "abc,abd->acd", "...ab,...bc->...ac", "a...,b...->ab...", "abc,dc,a->bd", "abcd,aecd->abe",
    "ab,ab->",
])  # fmt: skip
def test_parts_are_torchs_and_onnxruntime_agrees(equation: str) -> None:
    model, inputs = _traced(equation, inputs_of(equation))
    graph, parts = decomposed(imported(model, inputs))
    assert "Einsum" not in {node.op for node in graph.nodes()}
    assert as_exact_as_said(equation, parts(*inputs), model(*inputs))
    check_in_onnx(graph, inputs, model(*inputs))
    prepared = qir.prepare_model(model, example_inputs=inputs)
    whole = [layer for layer in prepared.modules() if getattr(layer, "function", None) is torch.einsum]
    assert len(whole) == (equation.count(",") == 2)
    assert same(prepared(*inputs), model(*inputs))


@pytest.mark.parametrize(("equation", "shapes", "reason"), [
    ("aab->ab", [(2, 2, 3)], "it takes a diagonal"),
    ("ab,bc", None, "the sizes of its axes are not known"),
    ("...a->a...", None, "Einsum can only be expanded for a known rank"),
])  # fmt: skip
def test_what_has_no_parts_stays_whole_for_a_reason(equation: str, shapes: Any, reason: str) -> None:
    inputs = inputs_of(equation) if shapes is None else [torch.randn(shape) for shape in shapes]
    model, _ = _traced(equation, inputs)
    graph = import_torch(model, None if shapes is None else inputs)
    outcome = qir.Pipeline.parse("decompose").passes[0].run(graph)
    assert [note.reason for note in outcome.missed] == [reason]
    assert same(qir.prepare_model(model)(*inputs), model(*inputs))


def test_sizes_that_are_not_known_may_be_broadcast() -> None:
    model, inputs = _traced("ab,bc->ac", [torch.ones(2, 1), torch.ones(3, 4)])
    assert same(qir.prepare_model(model)(*inputs), model(*inputs))


X = torch.randn(2, 4, 6, 8, generator=_random)


def imported_inside(x: Tensor) -> Tensor:
    from einops import rearrange

    return rearrange(x, "b c h w -> b (h w) c")


PATTERNS: dict[str, Callable[[Tensor], Any]] = {
    "imported-inside": imported_inside,
    "split": lambda x: rearrange(x, "b (c k) h w -> b c (h k) w", k=2),
    "qualified": lambda x: einops.rearrange(x, "b c (h p) (w q) -> b (h w) (p q c)", p=2, q=4),
    "ellipsis": lambda x: rearrange(x, "b ... w -> b w ..."),
    "new-axis": lambda x: rearrange(x, "b c h w -> b 1 c h w"),
    "mean": lambda x: einops.reduce(x, "b c h w -> b c", "mean"),
    "max": lambda x: einops.reduce(x, "b c (h p) (w q) -> b c h w", "max", p=2, q=2),
    "sum": lambda x: einops.reduce(x, "b c h w -> c", "sum"),
    "min": lambda x: einops.reduce(x, "b c h w -> b c () ()", "min"),
    "repeat": lambda x: repeat(x, "b c h w -> b c (h 2) (w k)", k=3),
    "computed-size": lambda x: rearrange(rearrange(x, "b c h w -> b (c h w)"), "b (c n) -> b n c", c=x.shape[1]),
    "list": lambda x: rearrange([x, x * 2], "n b c h w -> b (n c) h w"),
    "einsum": lambda x: einops.einsum(x, x, "b c h w, b d h w -> b c d"),
    "layers": nn.Sequential(
        Rearrange("b c (h p) (w q) -> b (h w) (p q c)", p=2, q=2), nn.Linear(16, 3), Reduce("b n d -> b d", "mean")
    ).eval(),
    "mix": EinMix("b c h w -> b h w d", weight_shape="c d", bias_shape="d", c=4, d=5).eval(),
}


class Applied(nn.Module):
    """A pattern as a model."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("typed", [True, False])
def test_patterns_come_apart_without_example_inputs_too(name: str, typed: bool) -> None:
    model = Applied(PATTERNS[name]).eval()
    if typed or name != "ellipsis":
        graph = import_torch(model, [X] if typed else None)
        assert not [node.op for node in graph.nodes() if node.definition.opaque]
    prepared = qir.prepare_model(model, example_inputs=[X] if typed else None)
    for x in (X, torch.cat([X, X])):
        assert same(prepared(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", PATTERNS)
def test_onnxruntime_agrees_on_patterns(name: str) -> None:
    model = Applied(PATTERNS[name]).eval()
    check_in_onnx(imported(model, [X]), [X], model(X))


def test_einops_itself_is_left_as_it_was() -> None:
    before = einops.reduce, einops.einops.reduce, Rearrange.forward
    import_torch(Applied(PATTERNS["layers"]), [X])
    assert (einops.reduce, einops.einops.reduce, Rearrange.forward) == before


def test_other_reductions_stay_whole_or_are_exported() -> None:
    product = Applied(lambda x: einops.reduce(x, "b c h w -> b c", "prod")).eval()
    assert [node.definition.opaque for node in import_torch(product, [X]).nodes()] == [True]
    by_user = Applied(lambda x: einops.reduce(x, "b c h w -> b c", torch.sum)).eval()
    for model in (product, by_user):
        assert same(qir.prepare_model(model, example_inputs=[X])(X), model(X))


@pytest.mark.parametrize("importer", ["fx", "export"])
def test_torch_orders_three_operands_in_the_prepared_model_as_in_the_model(importer: str) -> None:
    model, inputs = _traced("abc,dc,a->bd", inputs_of("abc,dc,a->bd"))
    prepared = qir.prepare_model(model, example_inputs=inputs, importer=importer)
    assert not prepared.meta["opaque_calls"]
    assert same(prepared(*inputs), model(*inputs))


@pytest.mark.parametrize("importer", ["fx", "export"])
@pytest.mark.parametrize("equation", ["btd,edf->btef", "btd,ecd->btec", "btd,bsd->bts", "bdt,edf->bfte"])
def test_an_einsum_that_came_apart_takes_sequences_of_other_lengths(equation: str, importer: Any) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum(equation, x, x * 2 if "bsd" in equation else self.weight)

    model = Product().eval()
    prepared = qir.prepare_model(model, example_inputs=(torch.randn(2, 6, 6),), importer=importer)
    assert not prepared.meta["opaque_calls"]
    for batch, length in ((2, 9), (3, 4), (1, 12)):
        x = torch.randn(batch, 6, length) if "bdt" in equation else torch.randn(batch, length, 6)
        assert same(prepared(x), model(x))


def test_a_rearrangement_takes_sequences_of_other_lengths() -> None:
    model = nn.Sequential(nn.ReLU(), Rearrange("b (h w) d -> b d h w", w=4))
    prepared = qir.prepare_model(model, example_inputs=(torch.randn(2, 16, 8),), importer="fx")
    assert not prepared.meta["opaque_calls"]
    x = torch.randn(3, 24, 8)
    assert same(prepared(x), model(x))
