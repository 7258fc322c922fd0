"""What tests compare: outputs of any nesting, and state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten


def same(first: Any, second: Any) -> bool:
    """Whether two outputs are arranged alike, in the same classes, with the same bits in their tensors."""
    (first_leaves, first_tree), (second_leaves, second_tree) = tree_flatten(first), tree_flatten(second)
    return first_tree == second_tree and all(map(_same_leaf, first_leaves, second_leaves))


def _same_leaf(first: Any, second: Any) -> bool:
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        return type(first) is type(second) and bool(first == second)
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return bool(torch.all((first == second) | (first.isnan() & second.isnan())))


def tensors(output: Any) -> list[Tensor]:
    """The tensors of an output, in order."""
    return [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)]


def same_state(first: nn.Module, second: nn.Module) -> bool:
    """Whether two modules hold the same state under the same keys."""
    mine, other = first.state_dict(), second.state_dict()
    return set(mine) == set(other) and all(same(mine[key], other[key]) for key in mine)


def train_step(model: nn.Module, inputs: Sequence[Tensor]) -> Any:
    """The outputs of two passes in training mode with the seed 0, whose gradients are left in the parameters."""
    torch.manual_seed(0)
    model.train()
    model.zero_grad()
    outputs = [model(*(value.clone() for value in inputs)) for _ in range(2)]
    loss = sum((tensor * tensor).sum() for tensor in tensors(outputs) if tensor.requires_grad)
    if isinstance(loss, Tensor):
        loss.backward()  # type: ignore[no-untyped-call]
    return outputs
