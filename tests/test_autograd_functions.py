"""Functions with a gradient of their own are called by the prepared model, and keep that gradient."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

import qir
from qir import Pipeline, QirError
from qir.backends.onnx_qdq import executor
from tests.comparing import same
from tests.test_aimet_defects import Calls


class Rounded(Function):
    """Rounds, and passes a gradient where the argument is small."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, training: bool = False) -> Tensor:
        ctx.save_for_backward(x)
        return (x * scale).round() / (2 * scale if training else scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return gradient * (x.abs() < 1) * 3, None, None


class Split(Function):
    """Returns several tensors, and saves nothing."""

    @staticmethod
    def forward(x: Tensor, y: Tensor) -> Any:
        return torch.floor(x) + y, [x * 2, None][0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None: ...

    @staticmethod
    def backward(ctx: Any, first: Tensor, second: Tensor) -> Any:
        return first + second, first


class Straight(nn.Module):
    """Calls both, between layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        first, second = Split.apply(Rounded.apply(y, 8.0), y)
        return self.b(first) * second


@pytest.mark.parametrize("importer", ["fx", "export"])
def test_a_gradient_of_its_own_is_kept(importer: Any) -> None:
    model, x = Straight(), torch.randn(2, 4)
    prepared = qir.prepare_model(model.eval(), example_inputs=(x,), importer=importer)
    assert {"module_rounded", "module_split"} <= {path for path, _ in prepared.named_children()}
    longer = torch.linspace(-2, 2, 12).reshape(3, 4)

    def results(module: nn.Module) -> list[Any]:
        module.zero_grad()
        y = module(longer)
        y.square().sum().backward()
        return [y, *(parameter.grad for parameter in module.parameters())]

    for training in (False, True):
        expected = results(model.train(training))
        for module in (prepared, deepcopy(prepared)):
            assert all(map(same, results(module.train(training)), expected))


class Viewed(Straight):
    """Changes a tensor of which it reads a view later."""

    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        part = y.T.reshape(-1)
        part.add_(1)
        y.add_(Rounded.apply(self.a(x), 8.0))
        return self.b(y) + part.sum()


def test_they_are_kept_in_a_program_that_is_made_functional() -> None:
    model, x = Viewed().eval(), torch.randn(2, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,))
    for module in (model, prepared):
        module(x).sum().backward()
    assert same(prepared.a.weight.grad, model.a.weight.grad)  # type: ignore[union-attr]


def test_what_they_compute_reaches_onnx() -> None:
    pytest.importorskip("onnxscript")
    model, x = Straight().eval(), torch.randn(2, 4)
    graph = Pipeline.parse("lift-functionals,unroll-modules,legalize-onnx,expand-opaque,legalize-onnx").run(
        qir.import_model(model, (x,))
    )
    (actual,) = executor(graph)([x.numpy()])
    np.testing.assert_allclose(actual, model(x).detach().numpy(), rtol=1e-5, atol=1e-6)


class Mode(Straight):
    """A function is given the training flag."""

    def forward(self, x: Tensor) -> Tensor:
        return Rounded.apply(self.a(x), 8.0, self.training)  # type: ignore[no-any-return]


@pytest.mark.parametrize("importer", ["fx", "export"])
def test_a_function_that_is_given_the_training_flag_is_refused_in_training(importer: Any) -> None:
    model, x = Mode().eval(), torch.randn(2, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer=importer)
    assert same(prepared(x), model(x))
    with pytest.raises(QirError, match="self.training at .*test_autograd_functions.py"):
        prepared.train()(x)


def test_functions_that_torch_brings_are_looked_into() -> None:
    def recomputed(x: Tensor, y: Tensor) -> Any:
        return checkpoint(lambda x: torch.relu(x + y), x, use_reentrant=True)

    prepared = qir.prepare_model(Calls(recomputed).eval(), example_inputs=(torch.randn(3, 4), torch.randn(4)))
    assert not prepared.meta["opaque_calls"]
