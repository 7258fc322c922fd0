"""Emissions of reductions, running sums and of operators that pick or part elements."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from qir.backends.torch_emissions import Emission, call, emits, literal
from qir.errors import QirError
from qir.graph import Node


@emits("ArgMax", "ArgMin")
def place_of_extreme(node: Node) -> Emission:
    """torch.argmax or torch.argmin. Raises QirError when the last of equal elements counts."""
    if node.attr("select_last_index"):
        raise QirError("torch finds the first of equal elements", node)
    function = torch.argmax if node.op == "ArgMax" else torch.argmin
    return call(function, node.operands[0], node.attr("axis"), bool(node.attr("keepdims")))


@emits("ReduceProd")
def product(node: Node) -> Emission:
    """torch.prod along one axis, or of all elements. Raises QirError for several axes."""
    axes, keep = literal(node, 1), bool(node.attr("keepdims"))
    if axes is None and not keep:
        return call(torch.prod, node.operands[0])
    if axes is None or len(axes) != 1:
        raise QirError("the torch backend multiplies along one axis", node)
    return call(torch.prod, node.operands[0], axes[0], keep)


@emits("ReduceLogSumExp")
def log_sum_exp(node: Node) -> Emission:
    """torch.logsumexp. Raises QirError when the axes are not stated."""
    axes = literal(node, 1)
    if axes is None:
        raise QirError("the torch backend needs ReduceLogSumExp to state its axes", node)
    return call(torch.logsumexp, node.operands[0], tuple(axes), bool(node.attr("keepdims")))


@emits("CumSum")
def running_sum(node: Node) -> Emission:
    """torch.cumsum. Raises QirError for a sum from the end or without the element itself."""
    if node.attr("exclusive") or node.attr("reverse"):
        raise QirError("torch sums from the start, each element included", node)
    axis = literal(node, 1)
    return call(torch.cumsum, node.operands[0], axis[0] if isinstance(axis, list) else axis)


@emits("Trilu")
def triangle(node: Node) -> Emission:
    """torch.triu or torch.tril."""
    return call(torch.triu if node.attr("upper") else torch.tril, node.operands[0], literal(node, 1) or 0)


@emits("GatherElements")
def gather_elements(node: Node) -> Emission:
    """torch.gather."""
    data, indices = node.operands
    return call(torch.gather, data, node.attr("axis"), indices)


@emits("Split")
def split(node: Node) -> Emission:
    """torch.split into parts of stated sizes, torch.chunk into a number of parts."""
    sizes: Any = literal(node, 1)
    if len(node.results) == 1:
        return call(torch.clone, node.operands[0])
    if sizes is None:
        return call(torch.chunk, node.operands[0], len(node.results), node.attr("axis"))
    return call(torch.split, node.operands[0], sizes, node.attr("axis"))


@emits("DepthToSpace")
def depth_to_space(node: Node) -> Emission:
    """F.pixel_shuffle. Raises QirError for ONNX's other order of channels."""
    if node.attr("mode") != "CRD":
        raise QirError("torch has no DepthToSpace whose blocks come first", node)
    return call(F.pixel_shuffle, node.operands[0], node.attr("blocksize"))
