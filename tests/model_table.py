"""A table of models with their inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Tokens:
    """An input of `length` numbers below `count`."""

    count: int
    length: int


@dataclass(frozen=True)
class Example:
    """A model, what it takes (without the axis of the batch), and what it is good for."""

    name: str
    build: Callable[[], nn.Module]
    takes: tuple[tuple[int, ...] | Tokens, ...]
    is_cnn: bool = False
    """Whether every convolution, sum, product and pooling of it can run on integers."""
    pickles: bool = True

    def model(self) -> nn.Module:
        """A new model in evaluation mode, the same each time, its batch norms at work on what it is made for."""
        torch.manual_seed(0)
        model = self.build()
        settle(model, self)
        return model.eval()

    def inputs(self, batch: int = 3, seed: int = 1) -> list[Tensor]:
        """Random inputs."""
        random = torch.Generator().manual_seed(seed)
        return [
            torch.randint(taken.count, (batch, taken.length), generator=random)
            if isinstance(taken, Tokens)
            else torch.randn(batch, *taken, generator=random)
            for taken in self.takes
        ]


SMALL: dict[str, Example] = {}
"""The models that `takes` has registered."""


def takes(*inputs: Sequence[int] | Tokens, cnn: bool = False, pickles: bool = True) -> Callable[[Any], Any]:
    """Register a model's class, or a function that builds it, with what it takes."""

    def register(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        name = "".join(f"_{c.lower()}" if c.isupper() else c for c in build.__name__).lstrip("_")
        shapes = tuple(taken if isinstance(taken, Tokens) else tuple(taken) for taken in inputs)
        SMALL[name] = Example(name, build, shapes, cnn, pickles)
        return build

    return register


@torch.no_grad()
def settle(model: nn.Module, example: Example) -> None:
    """Give batch norms the statistics of random inputs, and gains and offsets of their own."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
    model.eval()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for seed in range(100, 103):
        model(*example.inputs(batch=8, seed=seed))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
