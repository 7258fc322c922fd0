"""What a torch call does besides computing its result: where its arguments come from and what it changes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx, nn

from qir.attributes import TRAINING, Port, Symbol
from qir.facts import computes
from qir.frontends.torch_computed import DeviceOf
from qir.frontends.torch_lowerings import Builder, Lowering, lowers, plain_name
from qir.frontends.torch_opaque import OPAQUE
from qir.graph import Node, Value
from qir.lowering import bound
from qir.operators.opaque_calls import number_of
from qir.traits import CopiesData, IdentityInInference, MovesData, Stateful, Views
from qir.types import ScalarType


def same_kind(sequence: Sequence[Any], items: Iterable[Any]) -> Any:
    """`items` as a list, or as a tuple of the sequence's class."""
    if isinstance(sequence, tuple) and hasattr(sequence, "_fields"):
        return type(sequence)(*items)
    if isinstance(sequence, tuple):
        return type(sequence)(tuple(items)) if hasattr(sequence, "n_fields") else tuple(items)
    return list(items)


def _may_share_memory(node: Node) -> bool:
    """Whether a result may be a view of operand 0."""
    shares = any(node.definition.trait(kind) for kind in (MovesData, Views, IdentityInInference))
    return shares and not node.definition.trait(CopiesData) and bool(node.operands)


def views(value: Value) -> set[Value]:
    """The values that share memory with this one: what data movement made of it, and what it was made of."""
    found, stack = {value}, [value]
    while stack:
        seen = stack.pop()
        near = [result for use in seen.uses if _may_share_memory(use.node) for result in use.node.results]
        if seen.node is not None and _may_share_memory(seen.node):
            near.append(seen.node.operands[0])
        for other in near:
            if other not in found:
                found.add(other)
                stack.append(other)
    return found


def function_of(layer: nn.Module) -> tuple[Callable[..., Any] | None, str | None]:
    """The function that a layer of an emitted module calls, and its argument that is the training flag, if any."""
    return layer.lowers_as if hasattr(type(layer), "lowers_as") else (None, None)  # type: ignore[return-value]


def lowering_of_layer(layer: nn.Module) -> Lowering | None:
    """The lowering of a layer's call: that of its class or, if it is a function as a layer, that of the function."""
    function, training = function_of(layer)
    if function is None:
        lowering = lowers.of_layer(layer)
        return None if lowering is None else bound(lowering, layer)
    if (lowering := lowers.of_function(function)) is None:
        return None
    return lowering if training is None else partial(lowering, **{training: TRAINING})


def follows_training(module: nn.Module | None) -> bool:
    """Whether it is a batch norm that uses its statistics in evaluation; its own forward may ask for the mode."""
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None


def with_training_flag(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call of F.batch_norm, with a training flag that follows the module's."""
    rest = dict(zip(("momentum", "eps"), args[6:], strict=False))
    return args[:5], {**kwargs, **rest, "training": TRAINING}


def is_special(layer: nn.Module) -> bool:
    """Whether calling the layer does more than its forward: hooks, parametrizations."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(hooks) or torch.nn.utils.parametrize.is_parametrized(layer)


SPECIAL = "it has hooks or parametrizations"
"""Why a layer stays whole of which `is_special` is true."""


def is_in_place(node: fx.Node) -> bool:
    """Whether the call changes its first argument."""
    if node.kwargs.get("inplace") is True or node.target in _IN_PLACE:
        return True
    name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
    is_operator = getattr(node.target, "__module__", "") == operator.add.__module__  # and_ is one
    return node.op != "call_module" and not is_operator and plain_name(name) is not None


_IN_PLACE: set[Callable[..., Any]] = {
    operator.iadd, operator.iand, operator.ifloordiv, operator.ilshift, operator.imatmul, operator.imod, operator.imul,
    operator.ior, operator.ipow, operator.irshift, operator.isub, operator.itruediv, operator.ixor,
}  # fmt: skip


def main_node(added: Sequence[Node], path: str) -> Node | None:
    """Which node is the layer itself: the one that computes with its weights, else the last."""
    for node in filter(computes, added) if len(added) > 1 else ():
        paths = [p for v in node.operands if v is not None and v.weight for p in v.weight.paths]
        if any(p.startswith(f"{path}.") for p in paths):
            return node
    return added[-1] if added else None


def full_name(target: Any) -> str:
    """The dotted name of a function: the one that users call it by, where torch knows it."""
    known = torch.overrides.resolve_name(target) if callable(target) else None
    if known is not None and not known.startswith("torch.Tensor."):
        return str(known)
    if isinstance(owner := getattr(target, "__self__", None), type):
        return f"{owner.__module__}.{owner.__name__}.{target.__name__}"
    module = getattr(target, "__module__", None) or "torch"
    return f"{module}.{getattr(target, '__name__', type(target).__name__)}"


CHECKS = ("_assert", "sym_constrain_range", "_check")
"""How the names of operators begin that only check, and compute nothing."""


@dataclass(frozen=True)
class Shape:
    """`x.shape`, until one of its sizes is asked for."""

    of: Value


def opaque(
    build: Builder, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], host: Any, reason: str = ""
) -> Value:
    """The result of a call that stays as it is, for this reason; `host` is the function or layer itself."""
    operands: list[Value] = []

    def template(argument: Any) -> Any:
        match argument:
            case Value():
                operands.append(argument)
                return Port(len(operands) - 1)
            case torch.Tensor():
                return template(build.value(argument))
            case Shape():
                return template(opaque(build, "torch.Tensor.size", [argument.of], {}, None))
            case DeviceOf(of, device):
                return template(opaque(build, "torch.builtins.getattr", [of, "device"], {}, getattr) if device is None
                                else device)  # fmt: skip
            case tuple() | list():
                return same_kind(argument, map(template, argument))
            case dict():
                return {key: template(item) for key, item in argument.items()}
            case slice():
                return slice(*map(template, (argument.start, argument.stop, argument.step)))
            case torch.dtype() | torch.device() | torch.memory_format() | torch.layout():
                return Symbol(str(argument).replace("torch.", "torch.", 1))
        return argument

    attrs = {"args": tuple(map(template, args)), "kwargs": {key: template(item) for key, item in kwargs.items()}}
    op = name if name.startswith("torch.") else f"torch.{name}"
    node = build.graph.add(op, operands, {key: value for key, value in attrs.items() if value})
    node.host, node.why_opaque = host, _known_reason(name) or reason
    kinds = {value.type.kind if isinstance(value.type, ScalarType) else "" for value in operands}
    if getattr(host, "__module__", "") in ("_operator", "math") and kinds and "" not in kinds:
        node.result.type = ScalarType("float" if "float" in kinds else "int")
    if (kind := number_of(op)) is not None:
        node.result.type = ScalarType(kind)
    build.added.append(node)
    return node.result


def _known_reason(name: str) -> str | None:
    """The reason that the table of opaque spellings has for a function, method or layer."""
    home, _, plain = name.removeprefix("torch.ops.aten.").removesuffix(".default").rpartition(".")
    homes = {"torch": "torch", "torch.nn.functional": "F", "torch.nn": "nn"}
    return OPAQUE.get(f"{homes.get(home)}.{plain}") or (None if home == "torch.nn" else OPAQUE.get(plain))


def mark_order(in_order: Sequence[Node]) -> None:
    """Rank the nodes whose order is part of their meaning: random draws, and layers that update shared state."""
    stateful = [node for node in in_order if not node.erased and node.definition.trait(Stateful)]
    shared = {
        node
        for node in stateful
        if any(v is not None and v.weight and not v.weight.trainable and len(v.uses) > 1 for v in node.operands)
    }
    ranked = [node for node in stateful if node.op != "BatchNormalization" or node in shared]
    opaque = [node for node in in_order if node.definition.opaque and not node.erased]
    if len(ranked) + len(opaque) > 1:
        chosen = {*ranked, *opaque}
        for rank, node in enumerate(node for node in in_order if node in chosen):
            node.order = rank
