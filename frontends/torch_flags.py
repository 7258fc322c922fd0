"""What calls are given that compute otherwise in training, noted while torch.export records them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from qir.frontends.torch_rates import RATES, without_rate
from qir.frontends.torch_state import untouched
from qir.frontends.torch_training import Asked, TrainingFlag, regularizes, set_flags


@dataclass(frozen=True)
class Given:
    """What a call that draws or has statistics was given: whether the flag, and the rate if it is a dropout."""

    flag: bool
    rate: float | None = None


FLAGGED = {
    *RATES, F.batch_norm, F.instance_norm, F.rrelu, F.rrelu_, torch.batch_norm, torch.instance_norm, torch.rrelu,
    torch.rrelu_,
    *(getattr(torch, f"{kind}{ending}") for kind in ("dropout", "feature_dropout", "alpha_dropout",
                                                     "feature_alpha_dropout") for ending in ("", "_")),
}  # fmt: skip
"""Functions that compute otherwise in training."""


class FlagRecorder(TorchFunctionMode):
    """Notes what the calls of FLAGGED are given, and hands plain flags to all.

    The first argument of a call that is noted is recorded as an alias, which tells it from those that torch makes. Some
    of them return the very tensor that they are given, too, and torch.export would take the two for one. `x.data` is
    recorded as `x.detach()`: torch.export takes it for a constant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Given] = []
        self.asked: list[Asked] = []
        self.regularizers: set[nn.Module] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function == torch.Tensor.data.__get__:  # type: ignore[attr-defined]
            return args[0].detach()
        flags = [value for value in (*args, *kwargs.values()) if isinstance(value, TrainingFlag)]
        if function in FLAGGED and args:
            rate = float(without_rate(function, args, kwargs)[0]) if function in RATES else None
            self.given.append(Given(bool(flags), rate))
            args = (torch.ops.aten.alias(args[0]), *args[1:])
        elif flags:
            flags[0].note()
        if not flags:
            return function(*args, **kwargs)
        plain = [arg.plain if isinstance(arg, TrainingFlag) else arg for arg in args]
        return function(*plain, **{k: v.plain if isinstance(v, TrainingFlag) else v for k, v in kwargs.items()})


@contextmanager
def recording_flags(model: nn.Module, without: Collection[nn.Module] = ()) -> Iterator[FlagRecorder]:
    """Inside, no module is training, and the recorder notes what depends on that, but in the modules `without`."""
    started: list[int] = []

    def leave_a_trace(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """Let the call of a layer that returns its argument be recorded."""
        if torch.compiler.is_dynamo_compiling():  # a branch of torch.cond, which can not look into this
            return output
        first = started.pop()
        acts = module is not model and regularizes(module, recorder.asked[first:], args, kwargs, output)
        if acts:
            del recorder.asked[first:]
            recorder.regularizers.add(module)
        passes = (acts or type(module) is nn.Identity) and isinstance(output, torch.Tensor)
        return torch.ops.aten.alias(output) if passes else output

    def start(module: nn.Module, args: Any) -> None:
        if not torch.compiler.is_dynamo_compiling():
            started.append(len(recorder.asked))

    modules: Any = nn.modules.module
    hooks = [
        modules.register_module_forward_pre_hook(start),
        modules.register_module_forward_hook(leave_a_trace, with_kwargs=True),
    ]
    try:
        with untouched(model), FlagRecorder() as recorder:
            recorder.asked = set_flags(model, without=without)
            yield recorder
    finally:
        for hook in hooks:
            hook.remove()
            modules._global_forward_hooks_with_kwargs.pop(hook.id, None)  # torch leaves that behind


class _CallLog(FlagRecorder):
    """Notes the calls too, without their tensors and rates."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        compared: Any = (args, kwargs or {})
        if function in RATES:
            _, compared = without_rate(function, args, kwargs or {})
        follows = function in FLAGGED
        self.calls.append((function, pytree.tree_map(partial(_sign, follows), compared)))
        return super().__torch_function__(function, types, args, kwargs)


def _sign(follows: bool, argument: Any) -> Any:
    """What is compared of an argument: a flag is the same, up or down, where the call follows it."""
    if isinstance(argument, TrainingFlag):
        return "training" if follows else argument.plain
    return "tensor" if isinstance(argument, torch.Tensor) else repr(argument)


def rates_in_training(
    model: nn.Module, args: Any, keywords: Any, without: Collection[nn.Module], given: Sequence[Given]
) -> list[Given] | None:
    """What calls are given that follow rates of dropout which differ in training; None where more differs.

    `given` was recorded of a call of the model with these arguments. The flags of the modules in `without` stay down.
    """
    logs = []
    for training in (False, True):
        own, named = deepcopy((args, keywords))
        torch.manual_seed(0)
        with untouched(model), torch.no_grad(), _CallLog() as log:
            set_flags(model, training, without)
            model(*own, **named)
        logs.append(log)
    first, second = logs
    if first.calls != second.calls or first.given != list(given):
        return None
    pairs = list(zip(first.given, second.given, strict=True))
    if any(a.flag != b.flag or a.rate not in (0, b.rate) for a, b in pairs):
        return None
    return [a if a.rate == b.rate else replace(b, flag=True) for a, b in pairs]
