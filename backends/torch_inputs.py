"""The parameters of an emitted module's forward, and what they are held to."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from inspect import Signature
from keyword import iskeyword
from typing import Any

import torch
from torch import fx
from torch.fx._pytree import tree_flatten_spec
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo

from qir.attributes import Port
from qir.backends.torch_parts import identifier
from qir.errors import QirError
from qir.graph import Graph, Value
from qir.size_expressions import Expression, evaluate, holds, names_in, renamed, written
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
    if signature.sizes is not None:
        inputs = tuple(found[value] for value in graph.inputs)
        called = tuple(value.hint for value in graph.inputs)
        to.call_function(check_sizes, (inputs, called, signature.sizes.of_inputs, signature.sizes.conditions))
    if signature.spec is not None:
        to.set_codegen(_Nested(_PyTreeInfo(list(signature.names), signature.spec, None)))
    return found


_CONTAINERS = (dict, list, tuple)  # torch.compile can not follow `dict | list`


class _Nested(_PyTreeCodeGen):
    """Writes a forward that takes containers apart, after a look whether they hold what they should."""

    def gen_var_bindings(self, *args: Any, **kwargs: Any) -> str:
        """The line that takes the arguments apart."""
        text = str(super().gen_var_bindings(*args, **kwargs)).replace("fx_pytree.tree_flatten_spec(", "taken_apart(")
        return text.replace("self._in_spec)", f"self._in_spec, {tuple(self.pytree_info.orig_args)})")

    def additional_globals(self) -> list[tuple[str, Any]]:
        """What that line calls."""
        return [*super().additional_globals(), ("taken_apart", taken_apart)]


def taken_apart(arguments: Any, spec: Any, names: Sequence[str]) -> list[Any]:
    """The leaves of the positional and keyword arguments with these names.

    Raises QirError when a container holds other things than the one that was recorded.
    """
    parts = zip([*arguments[0], *arguments[1].values()], [*spec.child(0).children(), *spec.child(1).children()], names,
                strict=True)  # fmt: skip
    for part, inner, name in parts:
        _check_containers(part, inner, name)
    return tree_flatten_spec(arguments, spec)


def _check_containers(part: Any, spec: Any, place: str) -> None:
    if spec.is_leaf() or not isinstance(part, _CONTAINERS):
        return
    keys = list(spec.context) if isinstance(part, dict) else list(range(spec.num_children))
    found = list(part) if isinstance(part, dict) else list(range(len(part)))
    if set(found) != set(keys):
        raise QirError(f"{place} holds the items {found}; torch.export recorded the model for {keys}",
                       help="prepare the model with example inputs that hold these items")  # fmt: skip
    for key, inner in zip(keys, spec.children(), strict=True):
        _check_containers(part[key], inner, f"{place}[{key!r}]")


def _parameter(hint: str) -> str:
    name = identifier(hint)
    return f"{name}_" if iskeyword(name) else name


def _check_fixed(x: Any, name: str, value: Any) -> None:
    """Raise QirError unless an argument is the constant that it was when the model was prepared."""
    if isinstance(x, fx.Proxy):
        x.tracer.create_proxy("call_function", check_fixed, (x, name, value), {})
    else:
        Fixed(name, value).check(x)


def _check_sizes(
    inputs: Sequence[Any], names: Sequence[str], sizes: Sequence[Any], conditions: Sequence[Expression]
) -> None:
    """Raise QirError unless these inputs have the sizes that `qir.torch_signature.Sizes` says."""
    if traced := [x for x in inputs if isinstance(x, fx.Proxy)]:
        traced[0].tracer.create_proxy("call_function", check_sizes, (inputs, names, sizes, conditions), {})
        return
    tensors = [(x, name, wanted) for x, name, wanted in zip(inputs, names, sizes, strict=True)
               if isinstance(x, torch.Tensor) and isinstance(wanted, _CONTAINERS)]  # fmt: skip
    known = {wanted: x for x, wanted in zip(inputs, sizes, strict=True) if isinstance(wanted, str)}
    places = {wanted: name for name, wanted in zip(names, sizes, strict=True) if isinstance(wanted, str)}
    for x, name, wanted in tensors:
        for axis, (size, actual) in enumerate(zip(wanted, x.shape, strict=False)):
            if isinstance(size, str) and size not in known:
                known[size], places[size] = actual, f"{name}.shape[{axis}]"
    for x, name, wanted in tensors:
        if len(x.shape) != len(wanted) or not all(
            evaluate(a, known) == b for a, b in zip(wanted, x.shape, strict=True)
        ):
            shape = ", ".join(_shown(size, f"{name}.shape[{axis}]", places) for axis, size in enumerate(wanted))
            raise QirError(f"{name} has the shape {tuple(x.shape)}; torch.export recorded the model for ({shape})",
                           help="prepare the model with example inputs of this shape")  # fmt: skip
    for condition in conditions:
        if not holds(condition, known):
            found = " and ".join(f"{places[name]} is {known[name]}" for name in sorted(names_in(condition)))
            told = written(renamed(condition, places))
            raise QirError(f"torch.export recorded the model for {told}, and {found}",
                           help="prepare the model with example inputs of these sizes")  # fmt: skip


def _shown(size: Expression, own: str, places: Mapping[str, str]) -> str:
    shown = written(renamed(size, places))
    return "any" if shown in (own, size) else shown


check_fixed, check_sizes = _check_fixed, _check_sizes  # importers know calls that only check by the underscore
