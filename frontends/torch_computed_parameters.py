"""Calls of torch layers whose parameters are computed, as calls of plain layers.

Parameters are computed by `torch.nn.utils.parametrize`, or by the hooks of the older `weight_norm` and `spectral_norm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from qir.attributes import Port
from qir.frontends.torch_calls import main_node
from qir.frontends.torch_lowerings import Builder, Unlowered, make_weight
from qir.frontends.torch_table import lowers, tried
from qir.graph import Graph, Node, Value
from qir.lowering import bound, known
from qir.nests import map_nested
from qir.rewrite import Miss
from qir.types import refined
from qir.weights import Weight


def plain_call(node: Node, graph: Graph) -> Value | Miss | None:
    """What the call of a layer is with the parameters that it computes in evaluation; None where it computes none.

    They are weights below the path of the layer, one for all of its calls. What they were computed from is removed
    where nothing reads it.
    """
    layer = node.host
    computed = computed_parameters(layer) if isinstance(layer, nn.Module) else {}
    if not computed:
        return None
    weights = _Weights(graph, layer, computed)
    build = Builder(graph, weights.of)
    lowering = lowers.of_layer(layer)
    args, kwargs = _arguments(node)
    result = tried(build, None if lowering is None else bound(lowering, _Plain(layer, computed)), args, kwargs)
    if not isinstance(result, Value):
        why = result if isinstance(result, Unlowered) else "it returns several tensors"
        return Miss(f"its parameters are computed, and it is opaque: {why}")
    main = main_node(build.added, weights.path)
    for added in build.added:
        added.locs, added.module = node.locs, node.module if added is main else None
    result.type, result.hint = refined(result.type, node.result.type), node.result.hint
    weights.remove_unread()
    return result


def computed_parameters(layer: nn.Module) -> dict[str, torch.Tensor]:
    """What the layer computes in evaluation, by the names of its parameters; nothing where it has hooks of others."""
    hooks = list(layer._forward_pre_hooks.values())
    norms = [hook for hook in hooks if isinstance(hook, WeightNorm | SpectralNorm)]
    if len(norms) < len(hooks) or layer._forward_hooks or layer._backward_hooks or layer._backward_pre_hooks:
        return {}
    parametrized: Any = layer.parametrizations if parametrize.is_parametrized(layer) else ()
    with evaluating(layer), torch.no_grad():
        found = {name: getattr(layer, name) for name in parametrized}
        for norm in norms:
            options = {"do_power_iteration": False} if isinstance(norm, SpectralNorm) else {}
            found[norm.name] = norm.compute_weight(layer, **options)
    return found


@contextmanager
def evaluating(layer: nn.Module) -> Iterator[None]:
    """Inside, the layer is in evaluation; in the end its flags are as before."""
    flags = [(module, module.training) for module in layer.modules()]
    try:
        layer.eval()
        yield
    finally:
        for module, training in flags:
            module.training = training


def _arguments(node: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of an opaque call, values in the places of its operands."""
    operands = node.operands

    def fill(part: Any) -> Any:
        return operands[part.index] if isinstance(part, Port) else part

    return map_nested(node.attrs.get("args", ()), fill), map_nested(node.attrs.get("kwargs", {}), fill)


class _Plain:
    """The attributes of a layer, with parameters in the place of what computes them."""

    def __init__(self, layer: nn.Module, computed: Mapping[str, torch.Tensor]) -> None:
        self.layer, self.computed = layer, computed

    def __getattr__(self, name: str) -> Any:
        return self.computed[name] if name in self.computed else getattr(self.layer, name)


class _Weights:
    """The tensors of a layer as weights of a graph; `path` is where the layer stands in the model."""

    def __init__(self, graph: Graph, layer: nn.Module, computed: Mapping[str, torch.Tensor]) -> None:
        self.graph, self.computed = graph, computed
        self.held = {id(value.weight.data): value for value in graph.nx if isinstance(value, Value) and value.weight}
        tensors = [*layer.named_parameters(), *layer.named_buffers()]
        self.own = {name: self.held[id(tensor)] for name, tensor in tensors if id(tensor) in self.held}
        paths = ((name, path) for name, value in self.own.items() if value.weight for path in value.weight.paths)
        self.path = next((path.removesuffix(f".{name}") for name, path in paths if path.endswith(f".{name}")), "")

    def of(self, tensor: torch.Tensor) -> Value:
        """The one value of this tensor."""
        name = next((name for name, computed in self.computed.items() if computed is tensor), None)
        if name is None:
            known(id(tensor) in self.held, "a tensor of it is not in the graph")
            return self.held[id(tensor)]
        path = f"{self.path}.{name}"
        made = (value for value in self.held.values() if value.weight and path in value.weight.paths)
        return next(made, None) or self.graph.weight(self.weight(tensor, path))

    def weight(self, tensor: torch.Tensor, path: str) -> Weight:
        """A computed tensor, which is a parameter where it is computed from parameters, and trains where they do."""
        sources = [value.weight.data for value in self.own.values() if value.weight and value.weight.trainable]
        trains = any(source.requires_grad for source in sources)
        data = nn.Parameter(tensor.detach(), requires_grad=trains) if sources else tensor.detach()
        return make_weight(data, (path,), persistent=True)

    def remove_unread(self) -> None:
        """Remove what the layer had and nothing reads."""
        for value in self.own.values():
            if not value.uses and not value.is_output:
                self.graph.remove_weight(value)
