"""The parameters of an emitted module's forward, and what they are held to."""

from __future__ import annotations

import builtins
from inspect import Signature
from keyword import iskeyword
from typing import Any

import torch
from torch import fx
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from qir.attributes import Port
from qir.backends.torch_parts import identifier
from qir.errors import QirError
from qir.graph import Graph, Value
from qir.text.printing import Names
from qir.torch_signature import Fixed, TorchSignature


def emit_inputs(graph: Graph, to: fx.Graph) -> dict[Value, fx.Node]:
    """Give `to` the parameters by which the graph's model takes its arguments; for each input, what stands for it."""
    # Inside of forward, fx calls input_1 what is called `input` outside.
    hints = [identifier(value.hint) for value in graph.inputs]
    names = Names(taken=("self", *(f"{hint}_1" for hint in hints if hasattr(builtins, hint))))
    signature = graph.signature
    if not isinstance(signature, TorchSignature):
        return {value: to.placeholder(names.name(value, _parameter(value.hint))) for value in graph.inputs}
    last = max((number for number, leaf in enumerate(signature.leaves) if isinstance(leaf, Port)), default=-1)
    found: dict[Value, fx.Node] = {}
    constants: list[tuple[fx.Node, Fixed]] = []
    for number, leaf in enumerate(signature.leaves):
        if isinstance(leaf, Port):
            value = graph.inputs[leaf.index]
            found[value] = to.placeholder(names.name(value, _parameter(value.hint)))
        else:
            default = leaf.value if number > last and signature.spec is None else Signature.empty
            made = to.placeholder(names.name(leaf, _parameter(leaf.name)), default_value=default)
            constants.append((made, leaf))
    for made, leaf in constants:
        to.call_function(check_fixed, (made, leaf.name, leaf.value))
    if signature.recorded:
        _check_sizes_of(found, to)
    if signature.spec is not None:
        to.set_codegen(_PyTreeCodeGen(_PyTreeInfo(list(signature.names), signature.spec, None)))
    return found


def _parameter(hint: str) -> str:
    name = identifier(hint)
    return f"{name}_" if iskeyword(name) else name


def _check_sizes_of(inputs: dict[Value, fx.Node], to: fx.Graph) -> None:
    """What was recorded for some sizes may compute something else for others."""
    for value, node in inputs.items():
        sizes = tuple(size if isinstance(size, int) else None for size in value.type.shape or ())
        if any(size is not None for size in sizes):
            to.call_function(check_sizes, (node, value.hint, sizes))


def _check_fixed(x: Any, name: str, value: Any) -> None:
    """Raise QirError unless an argument is the constant that it was when the model was prepared."""
    Fixed(name, value).check(x)


def _check_sizes(x: Any, name: str, sizes: tuple[int | None, ...]) -> None:
    """Raise QirError unless a tensor has these sizes; None stands for any."""
    if isinstance(x, torch.Tensor):
        fits = len(x.shape) == len(sizes) and all(b in (None, a) for a, b in zip(x.shape, sizes, strict=True))
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in sizes)
            raise QirError(f"{name} has the shape {tuple(x.shape)}; torch.export recorded the model for ({wanted})",
                           help="prepare the model with example inputs of this shape")  # fmt: skip


check_fixed, check_sizes = _check_fixed, _check_sizes  # importers know calls that only check by the underscore
