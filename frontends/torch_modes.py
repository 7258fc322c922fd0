"""Models that choose the modes of their layers themselves, in a `train` of their own."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from inspect import getsourcefile, getsourcelines
from typing import Any

import torch
from torch import nn


def own_modes(model: Any, excluded: Sequence[nn.Module | type] = ()) -> str:
    """Why `train()` of the model does something else than to set the mode of every layer; empty where it does that.

    It is tried on a copy, where a class has a `train` of its own. `excluded` modules and exact classes are kept whole,
    and so keep theirs.
    """
    kept = {id(module) for module in excluded} | {
        id(inner)
        for module in (model.modules() if isinstance(model, nn.Module) else ())
        if module in excluded or type(module) in excluded
        for inner in module.modules()
    }
    for path, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if type(module).train is not nn.Module.train and id(module) not in kept and not _sets_modes_alone(module):
            name = type(module).__qualname__
            return f"{name}.train{_line(type(module))} sets the modes of {path or 'the model'} in its own way"
    return ""


def _sets_modes_alone(module: nn.Module) -> bool:
    """Whether `train` sets all modes, and changes no state, in both modes."""
    try:
        twin = deepcopy(module)
    except (RuntimeError, TypeError):
        return False
    for mode in (True, False):
        twin.train(mode)
        if any(layer.training != mode for layer in twin.modules()):
            return False
    before = module.state_dict()
    return all(torch.equal(before[name], now) for name, now in twin.state_dict().items() if name in before)


def _line(kind: type) -> str:
    try:
        return f" ({getsourcefile(kind.train)}:{getsourcelines(kind.train)[1]})"  # type: ignore[attr-defined]
    except (OSError, TypeError):
        return ""
