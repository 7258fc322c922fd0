"""Opaque torch calls reach ONNX through torchlib."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import Graph, Pipeline, QirError
from qir.backends.onnx_qdq import emit_onnx, executor

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
