"""einops: its patterns come apart into reshapes, transpositions and reductions.

einops works on any tensor for which it is given a backend. Here the tensor is a value of the graph, and the backend
builds what the lowerings of torch's own methods build. Symbolic tracing is told to keep the calls for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import fx

from qir.frontends.torch_lowerings import Builder, Unlowered, known, lowers
from qir.graph import Value


@dataclass(frozen=True)
class _Size:
    """The size of an axis, computed when the model runs; built once it is asked for."""

    build: Builder
    built: Callable[[], Value]

    def __mul__(self, other: Any) -> _Size:
        return self if other == 1 else _Size(self.build, lambda: self.build("Mul", _plain(self), _plain(other)))

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> _Size:
        return _Size(self.build, lambda: self.build("qir.FloorDivide", _plain(self), _plain(other)))

    def __rfloordiv__(self, other: Any) -> _Size:
        return _Size(self.build, lambda: self.build("qir.FloorDivide", _plain(other), _plain(self)))


def _plain(size: Any) -> Any:
    return size.built() if isinstance(size, _Size) else size


def _computed(build: Builder, size: Value) -> _Size:
    return _Size(build, lambda: size)


@dataclass(frozen=True)
class _Tensor:
    """A value of the graph with this many axes, as einops sees it."""

    build: Builder
    value: Value
    rank: int

    @property
    def shape(self) -> tuple[int | _Size, ...]:
        """A number for every axis of a weight; what is known of other tensors may be so in the examples alone."""
        sizes = (self.value.weight is not None and self.value.type.shape) or (None,) * self.rank
        return tuple(
            size
            if isinstance(size, int)
            else _Size(self.build, partial(self.build, "qir.AxisSize", self.value, axis=axis))
            for axis, size in enumerate(sizes)
        )

    def moved(self, method: str, *args: Any) -> _Tensor:
        """What the lowering of a method of torch.Tensor makes of it."""
        value = lowers.table[f"Tensor.{method}"](self.build, self.value, *args)
        if value is not self.value:
            value.hint = method
        return _Tensor(self.build, value, self.rank if value.type.rank is None else value.type.rank)


@cache
def _backends() -> tuple[type, type]:
    """What einops calls for values of a graph, and for what symbolic tracing passes around; einops finds subclasses."""
    from einops._backends import AbstractBackend

    class GraphBackend(AbstractBackend):
        framework_name = __name__

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, _Tensor)

        def reshape(self, x: _Tensor, shape: Sequence[Any]) -> _Tensor:
            sizes = [_plain(size) for size in shape]
            return _Tensor(x.build, x.moved("reshape", *sizes).value, len(sizes))

        def transpose(self, x: _Tensor, axes: Sequence[int]) -> _Tensor:
            return x.moved("permute", *axes)

        def reduce(self, x: _Tensor, operation: str, axes: Sequence[int]) -> _Tensor:
            method = {"min": "amin", "max": "amax"}.get(operation, operation)
            if f"Tensor.{method}" not in lowers.table or operation in ("prod", "any", "all"):
                raise Unlowered(f"a reduction of kind {operation}")
            return _Tensor(x.build, x.moved(method, tuple(axes)).value, x.rank - len(axes))

        def add_axes(self, x: _Tensor, n_axes: int, pos2len: dict[int, Any]) -> _Tensor:
            sizes: list[Any] = [-1] * n_axes
            for place, length in pos2len.items():
                x = _Tensor(x.build, x.moved("unsqueeze", place).value, x.rank + 1)
                sizes[place] = _plain(length)
            return _Tensor(x.build, x.moved("expand", *sizes).value, n_axes)

        def is_float_type(self, x: _Tensor) -> bool:
            return (x.value.type.dtype or "f32")[0] in "fb"

        def stack_on_zeroth_dimension(self, tensors: Sequence[_Tensor]) -> _Tensor:
            first = tensors[0]
            stacked = lowers.table[torch.stack](first.build, [tensor.value for tensor in tensors])
            return _Tensor(first.build, stacked, first.rank + 1)

    class ProxyBackend(AbstractBackend):
        framework_name = fx.__name__

        def is_appropriate_type(self, tensor: Any) -> bool:
            return isinstance(tensor, fx.Proxy)

        def einsum(self, pattern: str, *tensors: Any) -> Any:
            return torch.einsum(pattern, *tensors)

    return GraphBackend, ProxyBackend


@lowers("einops.einops.reduce")
def reduce(build: Builder, tensor: Any, pattern: str, reduction: Any, **axes_lengths: Any) -> Value:
    """Reshape, Transpose, a reduction, Expand."""
    known(isinstance(reduction, str), "a reduction by a function of the user's")
    _backends()
    rank = _rank(tensor, pattern)
    given = (
        [_Tensor(build, part, rank) for part in tensor] if isinstance(tensor, list) else _Tensor(build, tensor, rank)
    )
    sizes = {name: _computed(build, size) if isinstance(size, Value) else size for name, size in axes_lengths.items()}
    found: _Tensor = _applied()(given, pattern, reduction, **sizes)
    return found.value


def _rank(tensor: Any, pattern: str) -> int:
    """The number of axes of the tensor, or of each in a list. Raises Unlowered where nothing tells."""
    from einops.parsing import ParsedExpression

    listed = isinstance(tensor, list)
    first = tensor[0] if listed else tensor
    known(isinstance(first, Value), "the input is no tensor")
    left = ParsedExpression(pattern.partition("->")[0])
    if not left.has_ellipsis:
        return len(left.composition) - listed
    known(first.type.rank is not None, "'...' stands for an unknown number of axes")
    return int(first.type.rank)


@cache
def _applied() -> Callable[..., Any]:
    """einops' own function for all of its patterns."""
    import einops.einops

    function: Callable[..., Any] = einops.einops.reduce
    return function


def einops_functions() -> tuple[Callable[..., Any], ...]:
    """The functions of einops of which symbolic tracing keeps the calls, under whatever name a model has them."""
    return (_applied(),) if find_spec("einops") else ()


@contextmanager
def recording_einops() -> Iterator[None]:
    """Inside, calls of einops on what symbolic tracing passes around are kept as calls."""
    if not find_spec("einops"):
        yield
        return
    import einops
    import einops.layers.torch as layers

    original = _applied()
    _backends()

    def recorded(tensor: Any, pattern: str, reduction: Any, **axes_lengths: Any) -> Any:
        first = tensor[0] if isinstance(tensor, list) else tensor
        if not isinstance(first, fx.Proxy):
            return original(tensor, pattern, reduction, **axes_lengths)
        return first.tracer.create_proxy("call_function", original, (tensor, pattern, reduction), axes_lengths)

    def rearranged(self: Any, input: Any) -> Any:
        return recorded(input, self.pattern, "rearrange", **self.axes_lengths)

    def reduced(self: Any, input: Any) -> Any:
        return recorded(input, self.pattern, self.reduction, **self.axes_lengths)

    places: list[tuple[Any, str, Any]] = [
        (einops.einops, "reduce", recorded), (einops, "reduce", recorded),
        (layers.Rearrange, "forward", rearranged), (layers.Reduce, "forward", reduced),
    ]  # fmt: skip
    kept = [(home, name, getattr(home, name)) for home, name, _ in places]
    try:
        for home, name, function in places:
            setattr(home, name, function)
        yield
    finally:
        for home, name, function in kept:
            setattr(home, name, function)
