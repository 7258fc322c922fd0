"""The parameters and buffers of a torch module as the weights of a graph."""

from __future__ import annotations

from collections.abc import Container, Iterable

import torch
from torch import nn

from qir.frontends.torch_lowerings import known, make_weight, type_of_tensor
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
        parameters = model.named_parameters(remove_duplicate=False)
        transient = {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in model.named_modules(remove_duplicate=False)
            for name in module._non_persistent_buffers_set
        }
        return cls(graph, [*parameters, *model.named_buffers(remove_duplicate=False)], transient)

    def of(self, tensor: torch.Tensor) -> Value:
        """The one value of this tensor; a literal for a tensor that is no part of the model's state.

        Raises Unlowered for what is no tensor.
        """
        known(isinstance(tensor, torch.Tensor), f"a {type(tensor).__name__} is no operand")
        if id(tensor) not in self.values:
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
