"""What the lowering tables of all frameworks have in common: the table, its builder, and how a lowering is tried.

    @lowers(torch.relu, F.relu, nn.ReLU, "Tensor.relu")
    def relu(build, input, inplace=False):
        return build("Relu", input)

A lowering's parameters have the framework's names, so Python itself binds the arguments of a call. For a layer, the
call's arguments come first and every other parameter is read from the layer's attribute of that name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from qir.attributes import TRAINING
from qir.errors import QirError
from qir.graph import Graph, Node, Value

Spelling = Callable[..., Any] | type | str
Lowering = Callable[..., Any]


class Unlowered(Exception):
    """Raised by a lowering for arguments that it does not cover; the call then stays opaque, for this reason."""


class Table:
    """Spellings (functions, classes of layers, names), each with the function that lowers it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table: dict[Spelling, Lowering] = {}

    def __call__(self, *spellings: Spelling) -> Callable[[Lowering], Lowering]:
        """Register a lowering. Raises QirError when a spelling already has one."""

        def register(lowering: Lowering) -> Lowering:
            for spelling in dict.fromkeys(spellings):
                if spelling in self.table:
                    first = self.table[spelling].__name__
                    raise QirError(
                        f"{spelling} is already lowered by {first}", help=f"remove one of the two {self.name}s"
                    )
                self.table[spelling] = lowering
            return lowering

        return register


class Builder:
    """What a lowering builds with: adds nodes to a graph and keeps a list of them."""

    def __init__(self, graph: Graph, weight_of: Callable[[Any], Value]) -> None:
        """`weight_of` makes values of the framework's tensors, and raises Unlowered for what is none."""
        self.graph = graph
        self.weight_of = weight_of
        self.added: list[Node] = []
        self.constants: list[Value] = []

    def __call__(self, op: str, *operands: Any, **attrs: Any) -> Value:
        """The first result of a new node. Tensors and numbers become constants.

        Attributes that are None are left out, and so are operands that are None at the end.
        """
        return self.several(op, None, *operands, **attrs)[0]

    def several(self, op: str, results: int | None, *operands: Any, **attrs: Any) -> list[Value]:
        """The results of a new node, as many as `results` says."""
        known(not any(map(_holds_value, attrs.values())), "an argument that is computed")
        values = [self.value(operand) for operand in operands]
        while values and values[-1] is None:
            values.pop()
        kept = {name: value for name, value in attrs.items() if value is not None}
        node = self.graph.add(op, values, kept, results=results)
        self.added.append(node)
        return list(node.results)

    def value(self, operand: Any) -> Value | None:
        """`operand` as a value of the graph. Raises Unlowered for what no operand can be."""
        match operand:
            case None | Value():
                return operand
            case bool() | int() | float() | np.ndarray():
                return self._constant(operand)
        return self.weight_of(operand)

    def indices(self, numbers: Sequence[int]) -> Value:
        """A constant vector of i64."""
        return self._constant(np.array(numbers, np.int64))

    def _constant(self, data: Any) -> Value:
        self.constants.append(self.graph.constant(data))
        return self.constants[-1]

    def undo(self) -> None:
        """Take back what was built."""
        for node in reversed(self.added):
            self.graph.erase(node)
        for value in self.constants:
            if value in self.graph.nx:
                self.graph.remove_weight(value)
        self.added.clear()
        self.constants.clear()


def numbers(value: Any, count: int) -> tuple[int, ...]:
    """A number repeated `count` times, or the numbers of a sequence of that length. Raises Unlowered for others."""
    items = tuple(value) if isinstance(value, list | tuple) else (value,) * count
    if len(items) == 1:
        items *= count
    if len(items) != count or not all(isinstance(item, int) for item in items):
        raise Unlowered(f"{value!r} is not {count} known numbers")
    return items


def unless(trivial: int, items: tuple[int, ...]) -> tuple[int, ...] | None:
    """`items`, or None when all of them are `trivial`, which is what the operator does without the attribute."""
    return None if all(item == trivial for item in items) else items


def known(condition: bool, reason: str) -> None:
    """Raise Unlowered with `reason` unless `condition`."""
    if not condition:
        raise Unlowered(reason)


def _holds_value(attribute: Any) -> bool:
    return isinstance(attribute, Value) or (isinstance(attribute, list | tuple) and any(map(_holds_value, attribute)))


def is_plain(value: Any) -> bool:
    """Whether a nest of tuples and lists holds numbers, strings and None alone: nothing that is computed."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def one_node(op: str, bind: Callable[..., tuple[Sequence[Any], dict[str, Any]]],
             results: Callable[[Sequence[Value]], Any] | None = None) -> Lowering:  # fmt: skip
    """The lowering of a call to one node.

    `bind` has the call's parameters, and returns operands and attributes; `results` arranges two results.
    """

    def lowering(build: Builder, *args: Any, **kwargs: Any) -> Any:
        operands, attrs = bind(*args, **kwargs)
        known(is_plain(tuple(attrs.values())), "an argument that is computed")
        return build(op, *operands, **attrs) if results is None else results(build.several(op, 2, *operands, **attrs))

    given = inspect.signature(bind)
    first = inspect.Parameter("build", inspect.Parameter.POSITIONAL_ONLY)
    lowering.__signature__ = given.replace(parameters=[first, *given.parameters.values()])  # type: ignore[attr-defined]
    lowering.__name__ = op.rpartition(".")[2].lower()
    return lowering


_MISSING = object()


@cache
def _parameters(lowering: Lowering) -> list[str]:
    """The names of the arguments of the calls that it lowers."""
    return list(inspect.signature(lowering).parameters)[1:]


def bound(lowering: Lowering, layer: Any) -> Lowering:
    """The lowering, with every parameter that a call leaves out read from the layer."""
    parameters = _parameters(lowering)

    def call(build: Builder, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(parameters, args, strict=False)) | kwargs
        for name in parameters:
            if name not in given and (value := getattr(layer, name, _MISSING)) is not _MISSING:
                given[name] = TRAINING if name == "training" else value
        return lowering(build, **given)

    return call


def tried(build: Builder, lowering: Lowering | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the lowering makes of the call; where it does not cover the arguments or there is none, Unlowered."""
    if lowering is None:
        return Unlowered("nothing lowers it yet")
    try:
        return lowering(build, *args, **kwargs)
    except (Unlowered, TypeError, QirError) as reason:
        build.undo()
        if isinstance(reason, TypeError) and "argument" not in str(reason):
            raise
        return Unlowered(str(reason.message if isinstance(reason, QirError) else reason))
