"""Random numbers that a model draws without a tensor to draw them for, in a symbolic trace."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.overrides import TorchFunctionMode

from qir.errors import QirError

_DRAWS = (torch.rand, torch.randn, torch.randint, torch.randperm, torch.normal)
_FILLS = ("bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_")


class RecordingDraws(TorchFunctionMode):
    """Inside, a draw is recorded as a call, where it would be drawn once and be a constant from then on."""

    def __init__(self, tracer: fx.Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _DRAWS and not any(isinstance(arg, fx.Proxy) for arg in (*args, *kwargs.values())):
            return self.tracer.create_proxy("call_function", function, args, kwargs)
        if getattr(function, "__name__", "") in _FILLS and isinstance(args[0], torch.Tensor):
            raise QirError("forward fills a new tensor with random numbers, which torch.fx takes for a constant",
                           stage="import", help="draw them with torch.rand or torch.randn")  # fmt: skip
        return function(*args, **kwargs)
