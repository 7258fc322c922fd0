"""How a traced or exported model takes its arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.export.graph_signature import ConstantArgument

from qir.attributes import Port
from qir.size_expressions import Expression, names_in, parsed
from qir.torch_signature import Fixed, Sizes, TorchSignature

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
    """Of an exported program whose inputs are these leaves.

    Raises QirError where torch.export holds the sizes to something that can not be told.
    """
    names, spec = tuple(program.module_call_graph[0].signature.forward_arg_names), program.call_spec.in_spec
    nested = not all(child.is_leaf() for part in spec.children() for child in part.children())
    sizes = _sizes(program)
    return TorchSignature(tuple(leaves), names, spec, sizes) if nested else TorchSignature(tuple(leaves), sizes=sizes)


def _sizes(program: torch.export.ExportedProgram) -> Sizes:
    """What torch.export holds the inputs to: their sizes, the ranges of these, and what forward's branches found."""
    given = {spec.arg.name for spec in program.graph_signature.input_specs
             if spec.kind.name == "USER_INPUT" and not isinstance(spec.arg, ConstantArgument)}  # fmt: skip
    examples = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in given]
    told = [_of_example(example) for example in examples]
    known = {size for sizes in told for size in (sizes if isinstance(sizes, tuple) else (sizes,))
             if isinstance(size, str)}  # fmt: skip
    of_inputs = tuple(
        tuple(size if names_in(size) <= known else f"_{number}_{axis}" for axis, size in enumerate(sizes))
        if isinstance(sizes, tuple) else sizes
        for number, sizes in enumerate(told)
    )  # fmt: skip
    shape_env = next((x.fake_mode.shape_env for x in examples if isinstance(x, FakeTensor)), None)
    guards = [] if shape_env is None else [str(shape_env.simplify(guard.expr)) for guard in shape_env.guards]
    conditions = dict.fromkeys(parsed(text) for text in [*guards, *_ranges(program)] if text != "True")
    return Sizes(of_inputs, tuple(condition for condition in conditions if names_in(condition) <= known))


def _of_example(example: Any) -> tuple[Expression, ...] | str | None:
    if isinstance(example, torch.Tensor):
        return tuple(parsed(str(size)) for size in example.shape)
    return str(example) if isinstance(example, torch.SymInt) and str(example).isidentifier() else None


def _ranges(program: torch.export.ExportedProgram) -> Iterator[str]:
    """The bounds of sizes. Torch assumes of all that they are 2 at least, which is looked into elsewhere."""
    for symbol, bounds in program.range_constraints.items():
        if bounds.lower > 2:
            yield f"{symbol} >= {bounds.lower}"
        if bounds.upper.is_finite and bounds.upper < 2**31:
            yield f"{symbol} <= {bounds.upper}"


def without_fixed(forward: Any, arguments: Sequence[Any], fixed: Mapping[str, Any]) -> list[Any]:
    """The positional arguments of forward that are not in `fixed`."""
    names = list(inspect.signature(forward).parameters)[: len(arguments)]
    left_out = {number for number, name in enumerate(names) if name in fixed}
    return [argument for number, argument in enumerate(arguments) if number not in left_out]
