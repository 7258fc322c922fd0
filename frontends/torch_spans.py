"""Calls that `torch.export` records as calls of others, with their arguments, so that one lowering takes each.

`F.normalize` is recorded as calls of four operators. Two operators of qir stand around those: `BEGIN` reads the tensors
and sizes that the function was given, `END` passes on a tensor that it returned. The lowering of the function is tried
first, as for `torch.fx`; where it does not cover the arguments, the parts are lowered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from types import FunctionType
from typing import Any

import torch
from torch import nn
from torch.fx._symbolic_trace import _wrapped_fns_to_patch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from qir.attributes import TRAINING
from qir.frontends.torch_aten import SINGLE_CALL
from qir.frontends.torch_calls import SPECIAL, is_special, lowering_of_layer, opaque
from qir.frontends.torch_flags import FLAGGED
from qir.frontends.torch_lowerings import Builder, Lowering, class_name
from qir.frontends.torch_table import lowers, tried
from qir.frontends.torch_training import TrainingFlag
from qir.frontends.torch_whole import is_tensor, parts
from qir.graph import Value

_LIBRARY = torch.library.Library("qir", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("begin(Tensor[] tensors, SymInt[] sizes, str span) -> Tensor")  # type: ignore[no-untyped-call]
_LIBRARY.define("end(Tensor result, Tensor begun, str span, int number) -> Tensor")  # type: ignore[no-untyped-call]
BEGIN, END = torch.ops.qir.begin.default, torch.ops.qir.end.default


@torch.library.register_fake("qir::begin", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _begun(tensors: Sequence[torch.Tensor], sizes: Sequence[Any], span: str) -> torch.Tensor:
    return torch.empty(0)


@torch.library.register_fake("qir::end", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _ended(result: torch.Tensor, begun: torch.Tensor, span: str, number: int) -> torch.Tensor:
    return torch.empty_strided(result.shape, result.stride(), dtype=result.dtype, device=result.device)


@dataclass(frozen=True)
class Span:
    """A call of a function or layer: the arguments and what it returned, each a nest with tensors in it."""

    of: Callable[..., Any]
    arguments: Any
    returned: Any

    def lowered(
        self, build: Builder, tensors: Sequence[Any], sizes: Sequence[Any], follows: bool
    ) -> list[Value] | None:
        """What stands for the tensors that the call returns; None where its lowering does not cover the arguments.

        `follows` says that it is given the training flag of a layer of torch's.
        """
        given, numbers = iter(tensors), iter(sizes)

        def known(leaf: Any) -> Any:
            if is_tensor(leaf):
                return next(given)
            if isinstance(leaf, TrainingFlag):
                return TRAINING
            return next(numbers) if isinstance(leaf, torch.SymInt) else leaf

        args, kwargs = pytree.tree_map(known, self.arguments)
        if follows and "training" in kwargs:
            kwargs["training"] = TRAINING
        if stays_whole(self.of):
            name = f"torch.nn.{type(self.of).__name__}"
            return parts(build, opaque(build, name, args, kwargs, self.of, SPECIAL), self.returned)
        result = tried(build, lowering_of_span(self.of), args, kwargs)
        found = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Value)]
        if len(found) == sum(map(is_tensor, pytree.tree_leaves(self.returned))):
            return found
        build.undo()
        return None


def lowering_of_span(of: Callable[..., Any]) -> Lowering | None:
    """The lowering of a function, a method of Tensor, or a layer."""
    if isinstance(of, nn.Module):
        return lowering_of_layer(of)
    is_method = getattr(torch.Tensor, of.__name__, None) is of
    return lowers.of_method(of.__name__) if is_method else lowers.of_function(of)


@cache
def _is_operator(name: str) -> bool:
    """Whether ATen has an operator of that name, with one result."""
    packet = getattr(torch.ops.aten, name, None)
    return packet is not None and all(len(getattr(packet, each)._schema.returns) == 1 for each in packet.overloads())


def is_span(function: Any) -> bool:
    """Whether it is a function in Python that has a lowering, and calls operators of other names."""
    if not isinstance(function, FunctionType) or function in FLAGGED or _is_operator(function.__name__.strip("_")):
        return False
    return lowering_of_span(function) is not None


class SpanRecorder(TorchFunctionMode):
    """Records the calls of functions of several operators."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: dict[str, Span] = {}
        self.numbers = count()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = partial(self.record, function, function) if is_span(function) else function
        return call(*args, **(kwargs or {}))

    def record(self, of: Callable[..., Any], call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """What `call` returns; the call is one of the function or layer `of`."""
        if torch.compiler.is_dynamo_compiling():  # a branch of torch.cond, which can not look into this
            return call(*args, **kwargs)
        leaves = pytree.tree_leaves((args, kwargs))
        tensors = list(filter(is_tensor, leaves))
        name = f"{getattr(of, '__name__', '')}:{next(self.numbers)}"
        versions = [tensor._version for tensor in tensors]
        begun = BEGIN(tensors, [leaf for leaf in leaves if isinstance(leaf, torch.SymInt)], name)
        result = call(*args, **kwargs)
        returned, arranged = pytree.tree_flatten(result)
        new = list(filter(is_tensor, returned))
        shares = any(torch._C._is_alias_of(each, tensor) for each in new for tensor in tensors)  # type: ignore[attr-defined]
        if (shares and not stays_whole(of)) or versions != [tensor._version for tensor in tensors]:
            return result
        self.spans[name] = Span(of, (args, kwargs), result)
        ends = iter([END(each, begun, name, number) for number, each in enumerate(new)])
        return arranged.unflatten([next(ends) if is_tensor(leaf) else leaf for leaf in returned])


@contextmanager
def recording_spans(model: nn.Module, kept: Collection[nn.Module]) -> Iterator[Mapping[str, Span]]:
    """Inside, calls of functions and layers of several operators are recorded with their arguments.

    So are functions that a lowering takes and that `torch.fx.wrap` was told of.
    Those of the modules in `kept` are not.
    """
    layers = [module for path, module in model.named_modules() if path and module not in kept and _is_layer(module)]
    with SpanRecorder() as recorder, ExitStack() as stack:
        for layer in layers:
            vars(layer)["_call_impl"] = partial(recorder.record, layer, layer._call_impl)
            stack.callback(vars(layer).pop, "_call_impl")
        for (_, name), module in _wrapped_fns_to_patch.items():
            function = module.get(name)
            if isinstance(function, FunctionType) and lowers.of_function(function) is not None:
                stack.callback(module.__setitem__, name, function)
                module[name] = partial(recorder.record, function, function)
        yield recorder.spans


def stays_whole(of: Any) -> bool:
    """Whether it is a layer that no lowering may look into."""
    return isinstance(of, nn.Module) and _is_leaf(of) and is_special(of)


def _is_leaf(module: nn.Module) -> bool:
    """Whether torch.fx calls the layer and does not look into it."""
    named = type(module).__module__.startswith("torch.nn.") or class_name(module) in lowers.table
    return named and not isinstance(module, nn.Sequential)


def _is_layer(module: nn.Module) -> bool:
    """Whether it is a layer that stays whole, or that has a lowering and is not recorded as a single call."""
    single = type(module).__module__.startswith("torch.nn.modules.") and type(module).__name__ in SINGLE_CALL
    lowered = _is_leaf(module) and not single and lowers.of_layer(module) is not None
    return lowered or stays_whole(module)
