"""Opaque torch calls reach ONNX through torchlib."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import Graph, Pipeline, QirError
from qir.api.preparation import preparation
from qir.api.same_outputs import Examples
from qir.backends.onnx_qdq import emit_onnx, executor
from tests.test_aimet_defects import Calls

pytest.importorskip("onnxscript")


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.rnn = nn.Linear(8, 24), nn.LSTM(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.tensor_split(self.qkv(x), 3, dim=-1)
        heads = F.scaled_dot_product_attention(q.unsqueeze(1), k.unsqueeze(1), v.unsqueeze(1))
        y, (hidden, _) = self.rnn(heads.flatten(2).reshape(-1, 5, 8))
        return y + hidden[0][:, None]


class Determinants(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.det(x).relu() + y


def shipped(model: nn.Module, inputs: tuple[Tensor, ...]) -> Graph:
    graph = qir.import_model(model, inputs)
    return Pipeline.parse("lift-functionals,unroll-modules,legalize-onnx,expand-opaque,legalize-onnx").run(graph)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Attention().eval(), (torch.randn(2, 5, 8),)),
        (Determinants().eval(), (torch.randn(2, 3, 3), torch.randn(2))),
    ],
    ids=["attention", "determinants"],
)
def test_what_has_no_lowering_is_written_by_torchlib(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    run = executor(shipped(model, inputs))
    for batch in (inputs, tuple(torch.cat([part, part]) for part in inputs)):
        with torch.no_grad():
            expected = model(*batch).numpy()
        np.testing.assert_allclose(run([part.numpy() for part in batch])[0], expected, atol=2e-6)


class Rotated(nn.Module):
    """Positions as complex factors of pairs of channels."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(5)[:, None] / torch.tensor([1.0, 10.0, 100.0, 1000.0])
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], 4, 2))
        return torch.view_as_real(pairs * self.turns).flatten(2) + x


class Filtered(nn.Module):
    """A filter that is learned per frequency."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(self.weight), s=(4, 4)).relu()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "x"),
    [(Rotated(), torch.randn(2, 5, 8)), (Filtered(), torch.randn(2, 3, 4, 4)),
     (Calls(lambda x, y: torch.fft.fft2(x).real + torch.fft.fft2(x).abs()), torch.randn(2, 4, 8))],
    ids=["rotary", "filter", "mixing"],
)  # fmt: skip
def test_complex_numbers_are_written_with_the_calls_around_them(model: nn.Module, x: Tensor) -> None:
    inputs = (x, x) if isinstance(model, Calls) else (x,)
    graph = preparation(model.eval(), Examples(inputs), importer="export").graph
    made = Pipeline.parse("legalize-onnx,expand-opaque,legalize-onnx").run(graph)
    with torch.no_grad():
        expected = model(*inputs).numpy()
    np.testing.assert_allclose(executor(made)([part.numpy() for part in inputs])[0], expected, atol=2e-5)


def test_what_torchlib_can_not_write_is_listed_with_its_reason() -> None:
    class Decomposed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svdvals(x)

    graph = qir.import_model(Decomposed(), (torch.randn(3, 3),))
    outcome = Pipeline.parse("expand-opaque").passes[0].run(graph)
    assert "torchlib can not write" in outcome.missed[0].reason
    with pytest.raises(QirError, match="1 operators have no place in ONNX"):
        emit_onnx(graph)


def test_operands_of_unknown_type_are_asked_for() -> None:
    graph = qir.import_model(Determinants())
    outcome = Pipeline.parse("expand-opaque").passes[0].run(graph)
    assert "no tensor of a known rank and dtype" in outcome.missed[0].reason
