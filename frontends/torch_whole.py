"""Modules that stay whole while `torch.export` records the rest of a model."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import nn
from torch.utils import _pytree as pytree

from qir.errors import QirError
from qir.frontends.torch_calls import is_special, lowering_of_layer, main_node, opaque
from qir.frontends.torch_lowerings import Builder, Unlowered
from qir.frontends.torch_state import untouched
from qir.frontends.torch_table import tried
from qir.graph import Value

_LIBRARY = torch.library.Library("qir", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define("whole(Tensor[] tensors, str call) -> Tensor[]")  # type: ignore[no-untyped-call]
WHOLE = torch.ops.qir.whole.default
"""What `torch.export` records in the place of a module that stays whole."""


@dataclass
class Call:
    """One call of a module: its arguments and what it returns, each a nest with tensors in it."""

    path: str
    module: nn.Module
    arguments: Any
    returned: Any
    excluded: bool = True

    def like(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """New tensors like those that the module returned."""
        leaves = pytree.tree_leaves(self.returned)
        device = tensors[0].device if tensors else "cpu"
        return [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=device) for t in leaves if is_tensor(t)]

    def build(self, build: Builder, operands: Sequence[Value]) -> list[Value]:
        """The tensors that the module returns: from its lowering, or of an opaque call where it is excluded."""
        given = iter(operands)
        args, kwargs = pytree.tree_map(lambda leaf: next(given) if is_tensor(leaf) else leaf, self.arguments)
        lowering = None if self.excluded or is_special(self.module) else lowering_of_layer(self.module)
        lowered = tried(build, lowering, args, kwargs)
        if not isinstance(lowered, Unlowered):
            main = main_node(build.added, self.path)
            if main is not None:
                main.module, main.host = self.path, self.module
            return [leaf for leaf in pytree.tree_leaves(lowered) if isinstance(leaf, Value)]
        name = f"torch.nn.{type(self.module).__name__}"
        result = opaque(build, name, args, kwargs, self.module, "it is to stay whole")
        build.added[-1].module = self.path
        return parts(build, result, self.returned)


class Whole(Protocol):
    """What WHOLE stands for: it makes tensors like its results, and its place in a graph."""

    def like(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]: ...

    def build(self, build: Builder, operands: Sequence[Value]) -> list[Value]: ...


CALLS: MutableMapping[str, Whole] = WeakValueDictionary()
"""The calls that are being recorded, by the name that WHOLE is given."""


@torch.library.register_fake("qir::whole", lib=_LIBRARY)  # type: ignore[untyped-decorator]
def _like_the_recorded(tensors: Sequence[torch.Tensor], call: str) -> list[torch.Tensor]:
    return CALLS[call].like(tensors)


def is_tensor(leaf: Any) -> bool:
    """Whether it is a tensor."""
    return isinstance(leaf, torch.Tensor)


def observed(
    model: nn.Module, whole: Callable[[nn.Module], bool], layers: tuple[type[nn.Module], ...], args: Sequence[Any],
    keywords: Mapping[str, Any],
) -> dict[str, Call]:  # fmt: skip
    """The calls, by name, of the modules of which `whole` is true, and of the `layers`, in one run of the model.

    It runs in evaluation mode and without gradients.
    """
    calls: dict[str, Call] = {}
    modules = {path: module for path, module in model.named_modules()
               if path and (whole(module) or isinstance(module, layers))}  # fmt: skip
    if not modules:
        return calls
    with ExitStack() as stack:
        stack.enter_context(untouched(model))
        for path, module in modules.items():
            stack.callback(module.register_forward_hook(_observer(path, calls, whole(module)), with_kwargs=True).remove)
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.random.fork_rng(devices=[]))
        model.eval()(*deepcopy(list(args)), **deepcopy(dict(keywords)))
    return calls


def parts(build: Builder, whole: Value, returned: Any) -> list[Value]:
    """The tensors in the result of an opaque call that returned this nest."""
    leaves, _ = pytree.tree_flatten_with_path(returned)
    return [reduce(partial(_part, build), keys, whole) for keys, leaf in leaves if is_tensor(leaf)]


def _part(build: Builder, whole: Value, key: Any) -> Value:
    """What lies in a tuple, list or dict at an index, or in an object under a name."""
    if isinstance(key, pytree.GetAttrKey):
        return opaque(build, "torch.builtins.getattr", (whole, key.name), {}, getattr)
    index = key.idx if isinstance(key, pytree.SequenceKey) else key.key
    return opaque(build, "torch._operator.getitem", (whole, index), {}, operator.getitem)


@contextmanager
def kept_whole(calls: Mapping[str, Call]) -> Iterator[None]:
    """Inside, the modules that these calls are of have each of them recorded as a call of WHOLE."""
    modules = {call.path: call.module for call in calls.values()}
    before = {path: vars(module).get("forward") for path, module in modules.items()}
    try:
        CALLS.update(calls)
        for path, module in modules.items():
            vars(module)["forward"] = _forward(path, calls)
        yield
    finally:
        for path, module in modules.items():
            del vars(module)["forward"]
            if before[path] is not None:
                vars(module)["forward"] = before[path]


def _observer(path: str, calls: dict[str, Call], excluded: bool) -> Callable[..., None]:
    counts: Counter[str] = Counter()

    def note(module: nn.Module, args: Any, kwargs: Any, returned: Any) -> None:
        calls[f"{path}:{counts[path]}"] = Call(path, module, (args, kwargs), returned, excluded)
        counts[path] += 1

    return note


def _forward(path: str, calls: Mapping[str, Call]) -> Callable[..., Any]:
    """A forward that has the call recorded, and returns what was observed."""
    counts: Counter[str] = Counter()

    def forward(*args: Any, **kwargs: Any) -> Any:
        name = f"{path}:{counts[path]}"
        counts[path] += 1
        if name not in calls:
            raise QirError(f"{path} is called otherwise while torch.export looks on", stage="import")
        leaves, spec = pytree.tree_flatten((args, kwargs))
        if any(isinstance(leaf, torch.SymInt | torch.SymFloat) for leaf in leaves):
            raise QirError(f"{path} is to stay whole and is given a size", stage="import", help="exclude its parent")
        results = iter(WHOLE([leaf for leaf in leaves if is_tensor(leaf)], name))
        calls[name].arguments = spec.unflatten(leaves)
        returned, spec = pytree.tree_flatten(calls[name].returned)
        return spec.unflatten([next(results) if is_tensor(leaf) else leaf for leaf in returned])

    return forward
