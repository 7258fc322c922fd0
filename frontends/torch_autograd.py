"""Functions with a gradient of their own, `torch.autograd.Function`: their calls are recorded, not looked into."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import fx
from torch.autograd import Function
from torch.utils import _pytree as pytree

from qir.frontends.torch_calls import full_name, opaque
from qir.frontends.torch_lowerings import Builder
from qir.frontends.torch_training import TrainingFlag
from qir.frontends.torch_whole import CALLS, WHOLE, is_tensor, parts
from qir.graph import Value

_APPLY: Any = vars(Function)["apply"]


@dataclass
class Applied:
    """One call of a function: its arguments and what it returns, each a nest with tensors in it."""

    function: type[Function]
    arguments: Any
    returned: Any = None

    def like(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """New tensors like those that the function returns for these."""
        given = iter(tensors)
        args, kwargs = pytree.tree_map(lambda leaf: next(given) if is_tensor(leaf) else leaf, self.arguments)
        with torch.no_grad():
            self.returned = _original(self.function)(*args, **kwargs)
        return [torch.empty_like(leaf) for leaf in pytree.tree_leaves(self.returned) if is_tensor(leaf)]

    def build(self, build: Builder, operands: Sequence[Value]) -> list[Value]:
        """The tensors that the opaque call returns."""
        given = iter(operands)
        args, kwargs = pytree.tree_map(lambda leaf: next(given) if is_tensor(leaf) else leaf, self.arguments)
        apply = _original(self.function)
        whole = opaque(build, full_name(apply), args, kwargs, apply, "it has a gradient of its own")
        whole.hint = _called(self.function)
        return parts(build, whole, self.returned)


@contextmanager
def traced_functions(tracer: fx.Tracer) -> Iterator[None]:
    """Inside, `tracer` has calls of functions recorded that are given what it traces."""

    def apply(function: type[Function], *args: Any, **kwargs: Any) -> Any:
        own = _original(function)
        args, kwargs = pytree.tree_map(_plain, (args, kwargs))
        if _is_torchs(function) or not any(isinstance(leaf, fx.Proxy) for leaf in _leaves(args, kwargs)):
            return own(*args, **kwargs)
        return tracer.create_proxy("call_function", own, args, kwargs, _called(function))

    with _in_the_place_of_apply(apply):
        yield


@contextmanager
def recorded_functions() -> Iterator[dict[str, Applied]]:
    """Inside, torch.export records calls of functions as calls of WHOLE: those that are returned, by name."""
    applied: dict[str, Applied] = {}

    def apply(function: type[Function], *args: Any, **kwargs: Any) -> Any:
        own = _original(function)
        args, kwargs = pytree.tree_map(_plain, (args, kwargs))
        leaves = _leaves(args, kwargs)
        sizes = any(isinstance(leaf, torch.SymInt | torch.SymFloat | torch.SymBool) for leaf in leaves)
        if _is_torchs(function) or sizes or not any(map(is_tensor, leaves)):
            return own(*args, **kwargs)
        name = f"{_called(function)}:{len(applied)}"
        CALLS[name] = applied[name] = call = Applied(function, (args, kwargs))
        results = iter(WHOLE([leaf for leaf in leaves if is_tensor(leaf)], name))
        return pytree.tree_map(lambda leaf: next(results) if is_tensor(leaf) else leaf, call.returned)

    with _in_the_place_of_apply(apply):
        yield applied


@contextmanager
def _in_the_place_of_apply(apply: Callable[..., Any]) -> Iterator[None]:
    before = vars(Function)["apply"]
    try:
        Function.apply = classmethod(apply)  # type: ignore[assignment]
        yield
    finally:
        Function.apply = before  # type: ignore[method-assign]


def _original(function: type[Function]) -> Callable[..., Any]:
    return MethodType(_APPLY.__func__, function)


def _called(function: type[Function]) -> str:
    return function.__name__.lower()


def _is_torchs(function: type[Function]) -> bool:
    return function.__module__.partition(".")[0] == "torch"


def _leaves(args: Any, kwargs: Any) -> list[Any]:
    return pytree.tree_leaves((args, kwargs))


def _plain(leaf: Any) -> Any:
    """A training flag is asked for its value, which is noted."""
    return bool(leaf) if isinstance(leaf, TrainingFlag) else leaf
