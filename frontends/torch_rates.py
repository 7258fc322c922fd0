"""Rates of dropout that are other ones in training, in the calls that torch.fx traced."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import fx

from qir.frontends.torch_attention import InTraining
from qir.frontends.torch_training import TrainingFlag

RATES: dict[Callable[..., Any], tuple[str, int, float]] = {
    F.scaled_dot_product_attention: ("dropout_p", 4, 0.0),
    **dict.fromkeys((F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
                    ("p", 1, 0.5)),
}  # fmt: skip
"""Functions with a rate of dropout: the name, place and default of that argument."""


def follow_rates(traced: fx.Graph, in_training: fx.Graph) -> bool:
    """Let rates of dropout that differ in training follow the flag; whether there is no other difference."""
    calls, others = _read(traced), _read(in_training)
    if len(calls) != len(others):
        return False
    rates: list[tuple[fx.Node, float]] = []
    for node, other, own, its in zip(calls, others, described(traced), described(in_training), strict=True):
        if own != its:
            rate = _rate(node, other)
            if rate is None:
                return False
            rates.append((node, rate))
    for node, rate in rates:
        _follow(node, rate)
    return True


def described(graph: fx.Graph) -> list[tuple[Any, ...]]:
    """All that tells traced calls from others, but their names; without reads of attributes that nothing uses."""
    calls = _read(graph)
    places = {node: f"%{number}" for number, node in enumerate(calls)}

    def name(node: fx.Node) -> str:
        return places.get(node, node.name)  # forward may have kept one of another trace

    def arguments(node: fx.Node) -> str:
        return _NAMED.sub("", str(fx.map_arg((node.args, node.kwargs), name)))

    return [(node.op, node.target, arguments(node)) for node in calls]


_NAMED = re.compile(r"Proxy\(\w+\)")
"""What is traced, in the text of a message."""


def _read(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.users or node.target is not getattr]


def _rate(node: fx.Node, other: fx.Node) -> float | None:
    """The rate of dropout in training, where nothing else differs and it is 0 otherwise."""
    if node.target is not other.target or node.target not in RATES:
        return None
    (before, rest), (rate, other_rest) = (without_rate(call.target, call.args, call.kwargs) for call in (node, other))
    return rate if before == 0 and str(rest) == str(other_rest) else None


def without_rate(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[float, tuple[list[Any], Any]]:
    """The rate of dropout among the arguments of a function, and the others."""
    name, place, default = RATES[function]
    rest, named = list(args), dict(kwargs)
    rate = named.pop(name) if name in named else rest.pop(place) if len(rest) > place else default
    return rate, (rest, named)


def _follow(node: fx.Node, rate: float) -> None:
    name, place, _ = RATES[node.target]  # type: ignore[index]
    if node.target is F.scaled_dot_product_attention:
        changed: dict[str, tuple[int, Any]] = {name: (place, InTraining(rate))}
    else:
        training = node.kwargs.get("training", node.args[2] if len(node.args) > 2 else True)
        changed = {name: (place, rate), "training": (2, TrainingFlag() if training is True else training)}
    args, kwargs = list(node.args), dict(node.kwargs)
    for key, (index, value) in changed.items():
        if len(args) > index:
            args[index] = value
        else:
            kwargs[key] = value
    node.args, node.kwargs = tuple(args), kwargs
