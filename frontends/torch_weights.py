"""The parameters and buffers of a torch module as the weights of a graph."""

from __future__ import annotations

from collections.abc import Container, Iterable

import torch
from torch import nn

from qir.frontends.torch_lowerings import Unlowered, make_weight, type_of_tensor
from qir.graph import Graph, Value


class Weights:
    """One value for every tensor that a model's calls read, with every name that the model has for it."""

    def __init__(self, graph: Graph, named: Iterable[tuple[str, torch.Tensor]], transient: Container[str] = ()) -> None:
        """The named tensors are the state; those with a name in `transient` are not kept in state dictionaries."""
        self.graph = graph
        self.transient = transient
        self.values: dict[int, Value] = {}
        self.tensors: dict[int, torch.Tensor] = {}  # kept alive, so that no other tensor gets the identity
        self.paths: dict[int, tuple[str, ...]] = {}
        for path, tensor in named:
            self.paths[id(tensor)] = (*self.paths.get(id(tensor), ()), path)
            self.tensors[id(tensor)] = tensor

    @classmethod
    def of_module(cls, graph: Graph, model: nn.Module) -> Weights:
        """The parameters and buffers of a module."""
        parameters: dict[str, torch.Tensor | None] = {}
        buffers: dict[str, torch.Tensor | None] = {}
        transient: set[str] = set()
        for path, module in model.named_modules(remove_duplicate=False):
            prefix = f"{path}." if path else ""
            parameters.update((prefix + name, tensor) for name, tensor in module._parameters.items())
            buffers.update((prefix + name, tensor) for name, tensor in module._buffers.items())
            transient.update(prefix + name for name in module._non_persistent_buffers_set)
        return cls(graph, [(path, x) for path, x in (parameters | buffers).items() if x is not None], transient)

    def of(self, tensor: torch.Tensor) -> Value:
        """The one value of this tensor; a literal for a tensor that is no part of the model's state.

        Raises Unlowered for what is no tensor.
        """
        if id(tensor) not in self.values:
            if not isinstance(tensor, torch.Tensor):
                raise Unlowered(f"a {type(tensor).__name__} is no operand")
            paths = self.paths.get(id(tensor), ())
            weight = make_weight(tensor, paths, not any(path in self.transient for path in paths))
            self.values[id(tensor)] = (
                self.graph.weight(weight, type_of_tensor(tensor), paths[0])
                if paths
                else self.graph.constant(weight.array, "c")
            )
            self.tensors[id(tensor)] = tensor
        return self.values[id(tensor)]

    def add_unread(self) -> None:
        """State that no call reads is state of the model all the same."""
        for identity in self.paths:
            self.of(self.tensors[identity])
