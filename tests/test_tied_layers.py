"""Layers that a model calls twice, and layers that share a tensor, stay tied: they train bit for bit like the model."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from tests.comparing import same_state
from tests.models import SMALL

STEPS = 20


class ReusedConvAndNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = F.relu(self.norm(self.conv(x))) + x
        return F.dropout(self.head(x.mean((2, 3))), 0.2, self.training)


class NormAndAct(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        batch = True if self.training else self.running_mean is None
        arguments = (self.running_mean, self.running_var, self.weight, self.bias, batch, 0.1, self.eps)
        return self.act(F.batch_norm(x, *arguments)).mean((2, 3))


class OwnNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), NormAndAct(5)

    def forward(self, x: Tensor) -> Any:
        return self.norm(self.conv(x))


class TiedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix = nn.Embedding(11, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(F.gelu(self.mix(self.embedding(ids)))).mean(1)


class ReusedPReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(6, 6), nn.PReLU(6)
        self.gain = nn.Parameter(torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.fc(self.act(self.fc(x)) * self.gain)) / self.gain.exp()


def images(step: int) -> Tensor:
    return torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))


def rows(step: int) -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(step))


def words(step: int) -> Tensor:
    return torch.randint(0, 11, (4, 7), generator=torch.Generator().manual_seed(step))


def trained(model: nn.Module, batch: Callable[[int], Tensor]) -> nn.Module:
    """The model after some steps of SGD with momentum."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    model.train()
    for step in range(STEPS):
        torch.manual_seed(step)
        output = model(batch(step))
        optimizer.zero_grad()
        F.cross_entropy(output, torch.arange(4)).backward()
        optimizer.step()
    return model


MODELS = [(ReusedConvAndNorm, images), (OwnNorm, images), (TiedEmbedding, words), (ReusedPReLU, rows)]


@pytest.mark.parametrize("importer", ["fx", "export"])
@pytest.mark.parametrize(("kind", "batch"), MODELS, ids=[kind.__name__ for kind, _ in MODELS])
def test_tied_layers_train_like_the_model(
    kind: Callable[[], nn.Module], batch: Callable[[int], Tensor], importer: str
) -> None:
    torch.manual_seed(0)
    model = kind()
    prepared = qir.prepare_model(model, example_inputs=(batch(99),), importer=importer)  # type: ignore[arg-type]
    before = deepcopy(model.state_dict())
    assert len(list(prepared.parameters())) == len(list(model.parameters()))
    trained(model, batch)
    trained(prepared, batch)
    assert same_state(model, prepared)
    assert not any(torch.equal(before[name], value) for name, value in model.named_parameters())


def test_the_state_of_a_trained_model_goes_both_ways() -> None:
    torch.manual_seed(0)
    model = ReusedConvAndNorm()
    prepared = trained(qir.prepare_model(model), images)
    model.load_state_dict(prepared.state_dict())
    assert torch.equal(model.eval()(images(1)), prepared.eval()(images(1)))


def test_a_turned_weight_is_a_view_of_the_tied_one_wherever_torch_moves_it() -> None:
    example = SMALL["tied_head"]
    given = qir.quantize(example.model(), data=[example.inputs()])
    simulators = [given.simulator() for _ in range(3)]  # they share memory with the model until it is written
    plain, turned = (value.array for value in given.graph.weights() if "embedding" in value.hint)
    assert np.shares_memory(plain, turned)
    assert np.array_equal(plain.T, turned)
    assert simulators
