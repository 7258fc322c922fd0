"""Whether a model that torch.export recorded is right for sizes of 1, which torch.export takes for no free size."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qir.api.same_outputs import Examples, close, outputs
from qir.attributes import Port
from qir.errors import QirError
from qir.graph import Graph
from qir.size_expressions import Expression, evaluate, names_in
from qir.torch_signature import Sizes, TorchSignature

if TYPE_CHECKING:
    from torch import fx


def without_wrong_ones(model: Any, prepared: fx.GraphModule, graph: Graph, examples: Examples) -> TorchSignature | None:
    """The graph's signature with a condition for each size that may not be 1; None where all may that are free.

    Both modules are run on the examples with one item along the axes of that size. A size for which the model itself
    fails needs no condition.
    """
    signature = graph.signature
    if not isinstance(signature, TorchSignature) or signature.sizes is None:
        return None
    wrong = [name for name in _free(signature.sizes) if _differ(model, prepared, signature, examples, name)]
    conditions = (*signature.sizes.conditions, *(("gt", name, 1) for name in wrong))
    return replace(signature, sizes=replace(signature.sizes, conditions=conditions)) if wrong else None


def _free(sizes: Sizes) -> list[str]:
    """The names that are sizes by themselves, and that no other size is computed from."""
    parts = [part for own in sizes.of_inputs if isinstance(own, tuple) for part in own]
    bound = set().union(*(names_in(part) for part in parts if isinstance(part, tuple)))
    return [name for name in dict.fromkeys(parts) if isinstance(name, str) and name not in bound]


def _differ(model: Any, prepared: Any, signature: TorchSignature, examples: Examples, name: str) -> bool:
    cut = _cut(model, signature, examples, name)
    if cut is None:
        return False
    try:
        expected, _ = outputs("the model", model, *cut)
    except QirError:
        return False
    try:
        actual, _ = outputs("the prepared model", prepared, *cut)
    except QirError:
        return True
    return len(expected) != len(actual) or not all(map(close, expected, actual))


def _cut(model: Any, signature: TorchSignature, examples: Examples, name: str) -> Any:
    """The arguments of a call with one item along each axis of this size; None where these are no such arguments."""
    from torch.utils import _pytree as pytree

    leaves, spec = pytree.tree_flatten((tuple(examples.inputs or ()), examples.named(model)))
    if len(leaves) != len(signature.leaves) or signature.sizes is None:
        return None
    known: dict[str, Any] = {}
    for number, leaf in enumerate(signature.leaves):
        own = signature.sizes.of_inputs[leaf.index] if isinstance(leaf, Port) else None
        if isinstance(own, tuple):
            leaves[number] = _first(leaves[number], own, name)
            known.update(zip(own, leaves[number].shape, strict=True))
        elif own is not None:
            known[own] = leaves[number]
    if not all(evaluate(condition, known) for condition in signature.sizes.conditions):
        return None
    return pytree.tree_unflatten(leaves, spec)


def _first(tensor: Any, sizes: tuple[Expression, ...], name: str) -> Any:
    for axis, size in enumerate(sizes):
        if size == name:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor
