"""The sizes that a model which torch.export recorded is right for, found out by running it.

Torch.export takes 0 and 1 for no free size: it does not tell what forward does for them, and assumes of many computed
sizes that they are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qir.api.same_outputs import Examples, close, outputs
from qir.attributes import Port
from qir.errors import QirError
from qir.size_expressions import Expression, holds, names_in
from qir.torch_signature import Sizes, TorchSignature

if TYPE_CHECKING:
    from torch import fx


def without_conditions(signature: Any) -> Any:
    """A signature that takes all sizes; what is no signature of a recorded model stays."""
    if not isinstance(signature, TorchSignature) or signature.sizes is None:
        return signature
    return replace(signature, sizes=Sizes(signature.sizes.of_inputs))


def settled(model: Any, prepared: fx.GraphModule, signature: Any, examples: Examples) -> Any:
    """`signature` with the conditions that the sizes have to meet for `prepared` to return what the model returns.

    `prepared` has no conditions, and returns what the model returns for the examples: a condition that these break is
    none. Both are run on one item along the axes of each free size. Where they differ, that size has to be greater
    than 1. Where they do not, inequalities which one item breaks are none; all other conditions stay.
    """
    if not isinstance(signature, TorchSignature) or signature.sizes is None:
        return signature
    sizes = signature.sizes
    whole = _call(model, signature, sizes, examples)
    if whole is None:
        return signature
    conditions = [condition for condition in sizes.conditions if holds(condition, whole[1])]
    for name in _free(sizes):
        call = _call(model, signature, sizes, examples, name)
        broken = [] if call is None else [condition for condition in conditions if not holds(condition, call[1])]
        if call is None or any(condition[0] != "noteq" for condition in broken):
            continue
        equal = _equal(model, prepared, call[0])
        if equal:
            conditions = [condition for condition in conditions if condition not in broken]
        elif equal is False and not broken:
            conditions.append(("gt", name, 1))
    return replace(signature, sizes=replace(sizes, conditions=tuple(conditions)))


def _free(sizes: Sizes) -> list[str]:
    """The names that are sizes by themselves, and that no other size is computed from."""
    parts = [part for own in sizes.of_inputs if isinstance(own, tuple) for part in own]
    bound = set().union(*(names_in(part) for part in parts if isinstance(part, tuple)))
    return [name for name in dict.fromkeys(parts) if isinstance(name, str) and name not in bound]


def _equal(model: Any, prepared: Any, call: tuple[Sequence[Any], dict[str, Any]]) -> bool | None:
    """Whether both return the same but for rounding; None where the model itself fails."""
    try:
        expected, _ = outputs("the model", model, *call)
    except QirError:
        return None
    try:
        actual, _ = outputs("the prepared model", prepared, *call)
    except QirError:
        return False
    return len(expected) == len(actual) and all(map(close, expected, actual))


def _call(model: Any, signature: TorchSignature, sizes: Sizes, examples: Examples, one: str = "") -> Any:
    """The arguments of a call, with one item along each axis of the size `one`, and the sizes by name.

    None where the examples are not arranged as what was recorded.
    """
    from torch.utils import _pytree as pytree

    leaves, spec = pytree.tree_flatten((tuple(examples.inputs or ()), examples.named(model)))
    if len(leaves) != len(signature.leaves):
        return None
    known: dict[str, Any] = {}
    for number, leaf in enumerate(signature.leaves):
        own = sizes.of_inputs[leaf.index] if isinstance(leaf, Port) else None
        if isinstance(own, tuple):
            leaves[number] = _first(leaves[number], own, one)
            known.update(zip(own, leaves[number].shape, strict=True))
        elif own is not None:
            known[own] = leaves[number]
    return pytree.tree_unflatten(leaves, spec), known


def _first(tensor: Any, sizes: tuple[Expression, ...], name: str) -> Any:
    for axis, size in enumerate(sizes):
        if size == name:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor
