"""In-place calls on views, in an exported program: what the tensors that share memory hold afterwards.

A change of a view is scattered into the tensor that it is a view of, and other views of that are taken again. Nothing
is written where nobody reads it later.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from qir.errors import Loc, QirError
from qir.frontends.torch_aten import REORDERED, aten, changes, lowering_of
from qir.frontends.torch_lowerings import Builder, Unlowered
from qir.frontends.torch_program import type_of_example
from qir.frontends.torch_table import tried
from qir.frontends.torch_trace import users_line
from qir.graph import Value

if TYPE_CHECKING:
    from qir.frontends.torch_export import ProgramImporter


class InPlaceOnView(QirError):
    """A view of a tensor that is changed in place is read later, and how is not known."""


Call = tuple[Any, tuple[Any, ...]]


def _as_base(base: Value, new: Value, *_: Any) -> Call:
    return aten.reshape_as.default, (new, base)


def _permuted_back(base: Value, new: Value, dims: Sequence[int]) -> Call:
    axes = [axis % len(dims) for axis in dims]
    return aten.permute.default, (new, [axes.index(axis) for axis in range(len(axes))])


def _sliced(base: Value, new: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Call:
    return aten.slice_scatter.default, (base, new, dim, start, None if end == 2**63 - 1 else end, step)


INVERSES: dict[Any, Callable[..., Call]] = {
    aten.slice.Tensor: _sliced,
    aten.select.int: lambda base, new, dim, index: (aten.select_scatter.default, (base, new, dim, index)),
    aten.diagonal.default: lambda base, new, *axes: (aten.diagonal_scatter.default, (base, new, *axes)),
    aten.transpose.int: lambda base, new, *axes: (aten.transpose.int, (new, *axes)),
    aten.t.default: lambda base, new: (aten.t.default, (new,)),
    aten.permute.default: _permuted_back,
    **dict.fromkeys((aten.view.default, aten.unsqueeze.default, aten.squeeze.default, aten.squeeze.dim), _as_base),
    aten.split.Tensor: lambda base, parts, size, dim=0: (aten.cat.default, (parts, dim)),
    aten.split_with_sizes.default: lambda base, parts, sizes, dim=0: (aten.cat.default, (parts, dim)),
    aten.chunk.default: lambda base, parts, chunks, dim=0: (aten.cat.default, (parts, dim)),
    aten.unbind.int: lambda base, parts, dim=0: (aten.stack.default, (parts, dim)),
}
"""For operators that make views: the call that gives the base now, of the base as it was and the views as they are."""

VIEWS = {*INVERSES, aten.expand.default, aten.detach.default}
"""Operators whose result always is a view, or views."""


class SharedMemory:
    """The tensors that share memory with the one that an in-place call changes."""

    def __init__(self, importer: ProgramImporter, node: fx.Node) -> None:
        self.importer, self.node, self.later = importer, node, importer.position[node]
        self.bases: list[Any] = [node.args[0]]
        """What is changed, what that is a view of, and so on."""
        while (base := _viewed(self.bases[-1])) is not None:
            self.bases.append(base)
        self.known = set(self.bases)

    def write(self, result: Value) -> None:
        """Let everyone who reads one of the tensors later read what is in it with `result` in the changed one.

        Raises InPlaceOnView where that can not be told.
        """
        read = self._read_later(self.bases[-1])
        values, place = self.importer.known, {base: number for number, base in enumerate(self.bases)}
        last = max((place[self._origin(node)] for node in read), default=0)
        values[self.bases[0]] = result
        for view, base in zip(self.bases[:last], self.bases[1:], strict=False):
            values[base] = self._base(view, base)
        for node in read:
            self._take(node)

    def _read_later(self, base: fx.Node) -> list[fx.Node]:
        """The tensors that share memory with `base`, itself included, and are read after the call."""
        position, found = self.importer.position, []
        stack = [base]
        while stack:
            node = stack.pop()
            stack += [user for user in node.users if _viewed(user) is node and position[user] < self.later]
            if any(position[user] > self.later for user in node.users):
                found.append(node)
        return found

    def _origin(self, node: Any) -> fx.Node:
        while node not in self.known:
            node = _viewed(node)
        return node  # type: ignore[no-any-return]

    def _base(self, view: fx.Node, base: fx.Node) -> Any:
        """What the base of a view holds now."""
        old, new = self.importer.known[base], self.importer.known[view]
        if _is_same(view):
            return new
        if view.target is operator.getitem:
            return [new if number == view.args[1] else part for number, part in enumerate(old)]
        if view.target not in INVERSES:
            raise InPlaceOnView(f"a view by {view.target} is changed in place")
        rest = self.importer.resolve(view.args[1:])
        return self._call(base, *INVERSES[view.target](old, new, *rest, **self.importer.resolve(view.kwargs)))

    def _take(self, view: fx.Node) -> None:
        """Take a view again."""
        base = _viewed(view)
        if view in self.known or base is None:
            return
        self._take(base)
        self.known.add(view)
        values = self.importer.known
        if _is_same(view):
            values[view] = values[base]
        elif view.target is operator.getitem:
            values[view] = values[base][view.args[1]]
        elif view.target in VIEWS:
            values[view] = self._call(view, view.target, self.importer.resolve(view.args))
        else:
            raise InPlaceOnView(f"a view by {view.target} is read after a change in place")

    def _call(self, like: fx.Node, target: Any, args: Any) -> Any:
        """The result of a call, which has the type of `like`."""
        kwargs: dict[str, Any] = {}
        if target in REORDERED:
            target, args = REORDERED[target](*args)
        build = Builder(self.importer.graph, self.importer.weights.of)
        lowering = lowering_of(target)
        result = tried(build, lowering, args, kwargs)
        if isinstance(result, Unlowered):
            raise InPlaceOnView(f"{target} is not lowered: {result}")
        for new in build.added:
            new.locs = (Loc(*users_line(self.node), self.importer.callers.scope(self.node)),)
        if isinstance(result, Value) and result.node in build.added:
            result.type = type_of_example(like.meta.get("val"))
        self.importer.in_order += build.added
        return result


def _viewed(node: Any) -> fx.Node | None:
    """The node whose result the result of `node` may be a view of, or the same as."""
    base = node.args[0] if node.op == "call_function" and node.args else None
    if not isinstance(base, fx.Node):
        return None
    if node.target is operator.getitem:
        return base if _viewed(base) is not None else None
    shares = isinstance(node.target, torch._ops.OpOverload) and any(
        returned.alias_info is not None for returned in node.target._schema.returns
    )
    return base if shares else None


def _is_same(node: fx.Node) -> bool:
    """Whether the result is the first argument: an alias, or an in-place call."""
    return node.target is aten.alias.default or changes(node)
