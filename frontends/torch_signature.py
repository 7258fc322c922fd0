"""How a traced or exported model takes its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx

from qir.attributes import Port
from qir.torch_signature import Fixed, TorchSignature

PLAIN = bool | int | float | str | None


def traced_signature(forward: Any, fixed: Mapping[str, Any], inputs: int) -> TorchSignature | None:
    """Of a model whose trace has these arguments of forward as constants and all others as inputs.

    None where all are inputs, one after the other.
    """
    parameters = list(inspect.signature(forward).parameters.values())
    if any(parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) for parameter in parameters):
        return None
    kept = [name for name in (parameter.name for parameter in parameters) if _is_kept(name, fixed)]
    ports = iter(range(inputs))
    leaves = tuple(Fixed(name, fixed[name]) if name in fixed else Port(next(ports, inputs)) for name in kept)
    arranged = len(leaves) > inputs and leaves.count(Port(inputs)) == 0 and next(ports, None) is None
    return TorchSignature(leaves) if arranged else None


def _is_kept(name: str, fixed: Mapping[str, Any]) -> bool:
    return name not in fixed or isinstance(fixed[name], PLAIN)


def checked_constant(argument: fx.Node) -> Fixed | None:
    """The constant that an emitted module holds this argument of its forward to, if any."""
    checks = [user for user in argument.users if getattr(user.target, "__name__", "") == "_check_fixed"]
    return Fixed(*checks[0].args[1:]) if checks else None  # type: ignore[arg-type]


def exported_signature(program: torch.export.ExportedProgram, leaves: Sequence[Port | Fixed]) -> TorchSignature:
    """Of an exported program whose inputs are these leaves."""
    names, spec = tuple(program.module_call_graph[0].signature.forward_arg_names), program.call_spec.in_spec
    nested = not all(child.is_leaf() for part in spec.children() for child in part.children())
    return TorchSignature(tuple(leaves), names, spec, True) if nested else TorchSignature(tuple(leaves), recorded=True)


def without_fixed(forward: Any, arguments: Sequence[Any], fixed: Mapping[str, Any]) -> list[Any]:
    """The positional arguments of forward that are not in `fixed`."""
    names = list(inspect.signature(forward).parameters)[: len(arguments)]
    left_out = {number for number, name in enumerate(names) if name in fixed}
    return [argument for number, argument in enumerate(arguments) if number not in left_out]
