"""Emissions of Python numbers, and of operators whose sizes are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qir.backends.torch_emissions import Emission, call, emits
from qir.graph import Node
from qir.operators.computed_sizes import filled_in
from qir.types import NUMPY


def _dtype(name: str) -> torch.dtype:
    found: torch.dtype = getattr(torch, NUMPY[name].name)
    return found


@emits("qir.View")
def view(node: Node) -> Emission:
    """torch.reshape."""
    x, *size = node.operands
    return call(torch.reshape, x, tuple(filled_in(node.attr("shape"), size)))


@emits("qir.BroadcastTo")
def broadcast(node: Node) -> Emission:
    """Tensor.expand."""
    x, *sizes = node.operands
    return call(Tensor.expand, x, *filled_in(node.attr("size"), sizes))


@emits("qir.Repeat")
def repeat(node: Node) -> Emission:
    """Tensor.repeat."""
    x, *counts = node.operands
    return call(Tensor.repeat, x, *filled_in(node.attr("repeats"), counts))


@emits("qir.Part")
def part(node: Node) -> Emission:
    """x[..., start:stop:step]."""
    x, start, stop = (*node.operands, None, None)[:3]
    step = node.attr("step")
    index = (*(slice(None),) * node.attr("axis"), slice(start, stop, None if step == 1 else step))
    return call(Tensor.__getitem__, x, index)


@emits("qir.PadBy")
def pad(node: Node) -> Emission:
    """F.pad."""
    x, *amounts = node.operands
    return call(F.pad, x, tuple(filled_in(node.attr("pad"), amounts)), "constant", node.attr("value"))


@emits("qir.ResizeTo")
def resize(node: Node) -> Emission:
    """F.interpolate."""
    x, *sizes = node.operands
    options = {name: node.attr(name) for name in ("mode", "align_corners")}
    return call(F.interpolate, x, tuple(filled_in(node.attr("size"), sizes)), **options)


@emits("qir.JoinAxes")
def join(node: Node) -> Emission:
    """torch.flatten."""
    return call(torch.flatten, node.operands[0], node.attr("start"), node.attr("end"))


@emits("qir.OnDevice")
def on_device(node: Node) -> Emission:
    """Tensor.to."""
    dtype = node.attr("dtype")
    options = {} if dtype is None else {"dtype": _dtype(dtype)}
    return call(Tensor.to, node.operands[0], torch.device(node.attr("device")), **options)


def filled(like: Tensor | None, size: Sequence[int], value: Any, dtype: torch.dtype) -> Tensor:
    """A tensor that holds one number, on the device of `like`."""
    return torch.full(size, value, dtype=dtype, device=None if like is None else like.device)


def counted(like: Tensor | None, limits: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """The numbers from start to stop by step, on the device of `like`."""
    return torch.arange(*limits, dtype=dtype, device=None if like is None else like.device)


@emits("qir.Filled")
def make_filled(node: Node) -> Emission:
    """torch.full."""
    like, *sizes = (*node.operands, None)[: max(len(node.operands), 1)]
    return call(
        filled, like, tuple(filled_in(node.attr("shape"), sizes)), node.attr("value"), _dtype(node.attr("dtype"))
    )


@emits("qir.CountUp")
def make_counted(node: Node) -> Emission:
    """torch.arange."""
    like, *numbers = (*node.operands, None)[: max(len(node.operands), 1)]
    return call(counted, like, tuple(filled_in(node.attr("limits"), numbers)), _dtype(node.attr("dtype")))
