"""The table of torch emissions: for each operator, the layer or function that computes it.

    @emits("Relu")
    def relu(node):
        return layer(nn.ReLU(), node.operands[0])

An emission reads attributes and literals now and leaves tensors to the call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from torch import nn

from qir.backends import torch_modules as modules
from qir.errors import QirError
from qir.graph import Node, Value


@dataclass(frozen=True)
class Emission:
    """A call of `target`, a layer or a function, with arguments in which values stand for tensors.

    `owns` names the parameters and buffers of the layer and the weights that they are. `places` says where in what the
    call returns each result lies; where it says nothing, the results are the call's, in order.
    """

    target: nn.Module | Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    owns: dict[str, Value] = field(default_factory=dict)
    places: tuple[tuple[int, ...], ...] = ()


EMISSIONS: dict[str, Callable[[Node], Emission]] = {}


def emits(*ops: str) -> Callable[[Callable[[Node], Emission]], Callable[[Node], Emission]]:
    """Register the emission of operators. Raises QirError when one already has one."""

    def register(emission: Callable[[Node], Emission]) -> Callable[[Node], Emission]:
        for op in ops:
            if op in EMISSIONS:
                raise QirError(f"{op} already has a torch emission, {EMISSIONS[op].__name__}")
            EMISSIONS[op] = emission
        return emission

    return register


def layer(module: nn.Module, *args: Any, **owns: Value | None) -> Emission:
    """A call of a layer that owns the weights `owns`."""
    return Emission(module, args, {}, {name: value for name, value in owns.items() if value is not None})


def blank(kind: Any, *args: Any, **options: Any) -> nn.Module:
    """A new layer of this kind whose weights hold no memory: whoever owns them puts them in."""
    made = _prototype(kind, args, tuple(options.items()))
    twin: nn.Module = kind.__new__(kind)
    kept = {name: value.copy() for name, value in vars(made).items() if isinstance(value, dict | set | list)}
    vars(twin).update(vars(made), **kept)
    return twin


@lru_cache(maxsize=1024)
def _prototype(kind: Any, args: tuple[Any, ...], options: tuple[tuple[str, Any], ...]) -> nn.Module:
    made: nn.Module = kind(*args, **dict(options), device="meta")
    return made


def call(function: Any, *args: Any, **kwargs: Any) -> Emission:
    """A call of a function."""
    return Emission(function, args, kwargs)


def owned(node: Node, **names: int) -> bool:
    """Whether the layer's own weights are the operands, as `bias=2` says: each has the layer's path, or is left out."""
    operands = node.operands
    for name, port in names.items():
        value = operands[port] if port < len(operands) else None
        if value is not None and (value.weight is None or f"{node.module}.{name}" not in value.weight.paths):
            return False
    return node.module is not None


def literal(node: Node, port: int) -> Any:
    """The Python value of an operand that must be a constant; None when it is left out. Raises QirError for others."""
    value = node.operand(port)
    if value is None:
        return None
    if value.weight is None:
        raise QirError(f"the torch backend needs operand {port} of {node.op} to be a constant", node)
    return value.array.tolist()


def spatial_rank(node: Node) -> int:
    """The number of axes that a convolution or pooling slides over. Raises QirError when nothing tells."""
    for name in ("kernel_shape", "strides", "dilations"):
        if node.attr(name):
            return len(node.attr(name))
    weight = node.operand(1)
    if weight is None or weight.type.rank is None:
        raise QirError("the torch backend needs the rank of the kernel", node, help="import with example inputs")
    return int(weight.type.rank) - 2


def spatial(node: Node, name: str, otherwise: int) -> tuple[int, ...]:
    """A spatial attribute such as strides, filled in where it is left out."""
    return tuple(node.attr(name) or (otherwise,) * spatial_rank(node))


def symmetric_pads(node: Node) -> tuple[int, ...] | None:
    """The padding on both sides of each axis, None when the sides differ."""
    if node.attr("auto_pad") not in ("NOTSET", "VALID"):
        raise QirError(f"the torch backend does not take auto_pad={node.attr('auto_pad')!r}", node)
    rank = spatial_rank(node)
    pads = tuple(node.attr("pads") or (0,) * (2 * rank))
    return pads[:rank] if pads[:rank] == pads[rank:] else None


def padded(node: Node, fill: float) -> nn.Module:
    """A layer that pads the input as the node's pads say, which differ between the sides."""
    pads = node.attr("pads")
    rank = len(pads) // 2
    return modules.Pad([pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)], fill)
