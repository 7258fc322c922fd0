"""What of a forward depends on `self.training`: the calls that are given the flag, and what forward itself asks of it.

While a model is recorded, no module of it is training, and the flags can be recognized. A call that is given a flag
follows `train()` and `eval()` afterwards. Where forward asks for the value, it is recorded or called once more with
the flags up, and both are compared.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch.nn.functional as F
from torch import nn

from qir.attributes import TRAINING
from qir.frontends.torch_calls import follows_training, is_special
from qir.frontends.torch_lines import is_users
from qir.source_paths import shortened


@dataclass(frozen=True)
class Asked:
    """A module whose flag forward asked for, and the user's line that did."""

    owner: nn.Module
    line: str

    def __str__(self) -> str:
        return f"forward computes something else in training: it asks for self.training at {self.line}"


class TrainingFlag(int):
    """Stands for `self.training` during the trace; notes when its value is asked for."""

    owner: nn.Module
    asked: list[Asked]

    @classmethod
    def of(cls, owner: nn.Module, asked: list[Asked], value: bool) -> TrainingFlag:
        """The flag of a module."""
        flag = cls(value)
        flag.owner, flag.asked = owner, asked
        return flag

    @property
    def plain(self) -> bool:
        """Its value, which nobody asked for."""
        return int.__gt__(self, 0)

    def __bool__(self) -> bool:
        self.note()
        return self.plain

    def __int__(self) -> int:
        self.note()
        return int(self.plain)

    __index__ = __int__

    def __eq__(self, other: object) -> bool:
        self.note()
        return self.plain == other

    def __hash__(self) -> int:
        return hash(self.plain)

    def __repr__(self) -> str:
        return "training"

    __str__ = __repr__

    def note(self) -> None:
        """Note that its value is asked for."""
        frame: FrameType | None = sys._getframe(2)
        if frame is not None and frame.f_code.co_filename != F.__file__:  # those functions pass it on
            self.asked.append(Asked(self.owner, ":".join(map(str, users_frame(frame, None)))))


def users_frame(frame: FrameType | None, last: Any) -> tuple[str, int]:
    """File and line of the innermost frame before the code `last` that is not torch's own; empty if there is none."""
    while frame is not None and frame.f_code is not last:
        if is_users(frame.f_code.co_filename):
            return shortened(frame.f_code.co_filename), frame.f_lineno
        frame = frame.f_back
    return "", 0


def flag_by_name(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], dict[str, Any]]:
    """The arguments of a call of a Python function; where a flag is one of them, it and those behind it by name."""
    place = next((place for place, value in enumerate(args) if value is TRAINING), None)
    if place is None:
        return args, dict(kwargs)
    names = list(inspect.signature(function).parameters)
    return args[:place], {**dict(zip(names[place:], args[place:], strict=False)), **kwargs}


def set_flags(model: nn.Module, training: bool = False, without: Collection[nn.Module] = ()) -> list[Asked]:
    """Give the modules flags that can be recognized; returns the list of what will be asked of them.

    Torch's layers hand theirs to compiled functions, which take nothing but a plain one: theirs, those of batch norms
    and those of modules in `without` are plain and not up; but hooks of such a layer may ask for its flag, and no layer
    with hooks is called in a compiled function. `untouched` takes it back.
    """
    asked: list[Asked] = []
    for module in model.modules():
        of_torch = type(module).__module__.startswith("torch.nn.modules.") and not is_special(module)
        own = of_torch or follows_training(module) or module in without
        vars(module)["training"] = False if own else TrainingFlag.of(module, asked, training)
    return asked


def regularizes(module: nn.Module, asked: Sequence[Asked], args: Any, kwargs: Any, result: Any) -> bool:
    """Whether a call of a module without state returned its one argument after asking for its own flag alone."""
    returned = len(args) == 1 and not kwargs and result is args[0]
    if not returned or not asked or any(other.owner is not module for other in asked):
        return False
    return not [*module.parameters(), *module.buffers(), *module.children()]
