"""What comes apart in a prepared model, and by which option; the pass itself is tested by its golden files."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import QirError
from qir.frontends.torch_fx import import_torch
from qir.ops import composed_families
from qir.types import TensorType
from tests.comparing import same, same_state
from tests.composed import difference


class Model(nn.Module):
    """One operator of every family."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.cell = nn.GRU(4, 4, batch_first=True), nn.GRUCell(4, 4)
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        y = F.scaled_dot_product_attention(y, y, y)
        return self.cell(torch.einsum("btc,cd->btd", y, self.weight)[:, -1])


X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def whole(prepared: nn.Module) -> set[str]:
    """The families of which the module still has an operator."""
    kinds = {type(layer).__name__ for layer in prepared.modules()} | {
        getattr(getattr(layer, "function", None), "__name__", "") for layer in prepared.modules()
    }
    families = {"GRU": "recurrent", "GRUCell": "recurrent-cell", "einsum": "einsum",
                "scaled_dot_product_attention": "attention"}  # fmt: skip
    return {families[kind] for kind in kinds & families.keys()}


@pytest.mark.parametrize(
    ("option", "left"),
    [
        (None, {"attention", "recurrent"}),
        (False, {"attention", "einsum", "recurrent", "recurrent-cell"}),
        (True, set()),
        (["attention"], {"einsum", "recurrent", "recurrent-cell"}),
        (("einsum", "recurrent"), {"attention", "recurrent-cell"}),
    ],
)
def test_prepare_model_takes_apart_what_it_is_told_to(option: Any, left: set[str]) -> None:
    torch.manual_seed(0)
    model = Model().eval()
    prepared = qir.prepare_model(model, example_inputs=[X], decompose=option)
    assert whole(prepared) == left
    assert same_state(prepared, model)
    exact = option in (None, False)
    assert same(prepared(X), model(X)) if exact else difference(prepared(X), model(X)) < 1e-6


def test_the_families() -> None:
    assert composed_families() == ["attention", "einsum", "experts", "recurrent", "recurrent-cell"]


def test_a_family_that_there_is_not() -> None:
    with pytest.raises(QirError, match=r"decompose knows no family 'atention'") as found:
        qir.prepare_model(Model(), example_inputs=[X], decompose=["atention"])
    assert found.value.help == "did you mean 'attention'?"
    with pytest.raises(QirError, match="no family 'rnn'"):
        qir.Pipeline.parse("decompose{families=[rnn]}")


def test_pipelines_print_as_they_read() -> None:
    for text in (
        "decompose",
        "decompose{families=[attention]}",
        "decompose{families=[einsum,recurrent]}",
        "decompose{only_exact=true}",
    ):
        assert str(qir.Pipeline.parse(text)) == text


def test_nothing_is_left_of_what_can_not_come_apart() -> None:
    graph = import_torch(Model().eval(), [X], batch=None)
    graph.inputs[0].type = TensorType("f32", (2, "T", 4))
    before = str(graph)
    outcome = qir.Pipeline.parse("decompose{families=[recurrent]}").passes[0].run(graph)
    left = Counter(note.reason for note in outcome.missed)
    assert left == {
        "the length of its sequence is not known": 1,
        **{f"the family {name!r} is not asked for": 1 for name in ("attention", "einsum", "recurrent-cell")},
    }
    assert str(graph) == before
