"""Emissions of reductions, shape arithmetic and data movement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from qir.backends import torch_modules as modules
from qir.backends.torch_emissions import (
    Emission,
    call,
    emits,
    layer,
    literal,
)
from qir.errors import QirError
from qir.graph import Node
from qir.types import NAMES, NUMPY, ScalarType


@emits("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
def reduction(node: Node) -> Emission:
    """torch.mean, sum, amax or amin."""
    functions = {"ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax, "ReduceMin": torch.amin}
    axes = _axes(node)
    if not axes and (node.attr("keepdims") or node.attr("noop_with_empty_axes")):
        raise QirError(f"the torch backend needs {node.op} to state its axes", node)
    if not axes:
        return call(functions[node.op], node.operands[0])
    return call(functions[node.op], node.operands[0], dim=tuple(axes), keepdim=bool(node.attr("keepdims")))


def _axes(node: Node) -> list[int] | None:
    """The axes that operand 1 states, of which ONNX allows a single one without brackets."""
    axes: Any = literal(node, 1)
    return [axes] if isinstance(axes, int) else axes


@emits("Concat")
def concat(node: Node) -> Emission:
    """torch.cat."""
    return call(torch.cat, list(node.operands), dim=node.attr("axis"))


@emits("Flatten")
def flatten(node: Node) -> Emission:
    """torch.flatten to a matrix."""
    if node.attr("axis") != 1:
        return call(modules.flatten, node.operands[0], node.attr("axis"))
    return call(torch.flatten, node.operands[0], 1)


@emits("Reshape")
def reshape(node: Node) -> Emission:
    """torch.reshape; a 0 that copies a size is looked up."""
    shape = literal(node, 1)
    if 0 in shape and not node.attr("allowzero"):
        return call(modules.reshape, node.operands[0], tuple(shape))
    return call(torch.reshape, node.operands[0], tuple(shape))


@emits("Transpose")
def transpose(node: Node) -> Emission:
    """torch.permute. Raises QirError when the axes of no matrix are reversed."""
    perm = node.attr("perm")
    if not perm and node.operands[0].type.rank != 2:
        raise QirError("torch reverses the axes of matrices", node)
    return call(torch.permute, node.operands[0], perm) if perm else call(torch.t, node.operands[0])


@emits("qir.SwapAxes")
def swap_axes(node: Node) -> Emission:
    """torch.transpose."""
    return call(torch.transpose, node.operands[0], node.attr("axis0"), node.attr("axis1"))


@emits("Unsqueeze", "Squeeze")
def squeeze(node: Node) -> Emission:
    """torch.unsqueeze or torch.squeeze."""
    axes: Sequence[int] | None = _axes(node)
    if node.op == "Squeeze":
        return call(torch.squeeze, node.operands[0], *([] if axes is None else [tuple(axes)]))
    if len(axes or ()) == 1:
        return call(torch.unsqueeze, node.operands[0], (axes or [0])[0])
    return call(modules.unsqueeze, node.operands[0], tuple(sorted(axes or ())))


@emits("qir.AxisSize")
def axis_size(node: Node) -> Emission:
    """Tensor.size."""
    return call(torch.Tensor.size, node.operands[0], node.attr("axis"))


@emits("qir.Contiguous")
def contiguous(node: Node) -> Emission:
    """Tensor.contiguous."""
    return call(torch.Tensor.contiguous, node.operands[0])


@emits("Cast")
def cast(node: Node) -> Emission:
    """Tensor.to; torch.scalar_tensor of a Python number."""
    (x,), dtype = node.operands, getattr(torch, NUMPY[NAMES[node.attr("to")]].name)
    if x is not None and isinstance(x.type, ScalarType):
        return call(torch.scalar_tensor, x, dtype=dtype)
    return call(torch.Tensor.to, x, dtype)


@emits("Identity")
def identity(node: Node) -> Emission:
    """nn.Identity when it is a layer."""
    return layer(nn.Identity(), node.operands[0]) if node.module else call(modules.same, node.operands[0])
