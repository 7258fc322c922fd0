"""torch.cond and while_loop become If and Loop, in every form of the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

import qir
from qir.api.preparation import preparation
from qir.api.same_outputs import Examples
from tests.comparing import same


class Chooses(nn.Module):
    """Calls one of two layers, as its input says."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.head = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(torch.cond(x.sum() > 0, lambda t: self.a(t).relu(), lambda t: self.b(t) - 1, (y,)))


class ChoosesTwice(nn.Module):
    """A branch that branches, and two results."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def inner(t: Tensor) -> tuple[Tensor, Tensor]:
            return torch.cond(t.mean() > 0.5, lambda u: (u * 3, u + 1), lambda u: (u.sin(), u - 1), (t,))  # type: ignore[no-any-return]

        a, b = torch.cond(x.sum() > 0, inner, lambda t: (t - 1, t.abs()), (x,))
        return a * 2, b


class Repeats(nn.Module):
    """Calls until the sum is large."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        start = (torch.tensor(0), self.fc(x).abs() + 0.1)
        number, y = while_loop(lambda n, t: t.sum() < 100, lambda n, t: (n + 1, t * 2), start)
        return y + 1, number


MODELS = {"cond": Chooses, "nested": ChoosesTwice, "while_loop": Repeats}


def inputs() -> list[Tensor]:
    """Those that make every model take every branch."""
    return [torch.rand(2, 4), -torch.rand(3, 4), torch.rand(5, 4) + 1, torch.rand(2, 4) * 0.1]


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_a_prepared_model_chooses_as_the_model_does(kind: type[nn.Module]) -> None:
    model = kind().eval()
    made = preparation(model, Examples((torch.rand(2, 4),)))
    assert made.importer == "torch.export"
    assert qir.parse(str(made.graph)) == made.graph
    again = qir.prepare_model(made.module, example_inputs=(torch.rand(2, 4),))
    for x in inputs():
        assert same(made.module(x), model(x))
        assert same(again(x), model(x))
    assert {"If", "Loop"} & {node.op for node in qir.import_model(made.module).nodes()}


def test_gradients_pass_through_the_branch_that_is_taken() -> None:
    model = Chooses()
    prepared = qir.prepare_model(model, example_inputs=(torch.rand(2, 4),))
    for x in inputs():
        for module in (model, prepared):
            module.zero_grad()
            module(x).sum().backward()
        for name, parameter in model.named_parameters():
            mine, own = prepared.get_parameter(name).grad, parameter.grad
            zeros = torch.zeros_like(parameter)
            assert torch.equal(zeros if mine is None else mine, zeros if own is None else own), name


@pytest.mark.parametrize("from_prepared", [False, True])
def test_a_model_with_branches_is_quantized_and_shipped(from_prepared: bool, tmp_path: Path) -> None:
    model, data = Chooses().eval(), inputs()
    given = qir.prepare_model(model, example_inputs=(data[0],)) if from_prepared else model
    quantized = qir.quantize(given, [data[0]], data=data)
    quantized.save(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    simulator = quantized.simulator()
    for x in data:
        (shipped,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            expected, simulated = model(x).numpy(), simulator(x).numpy()
        scale = np.abs(expected).max()
        assert np.abs(shipped - expected).max() < 0.1 * scale
        assert np.abs(shipped - simulated).max() < 0.02 * scale
