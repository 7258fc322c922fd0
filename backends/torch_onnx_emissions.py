"""The table of ONNX operators as torch functions: what torch's own layers and functions do not cover.

    @computes("Expand")
    def expand(x, shape):
        return x.expand(torch.broadcast_shapes(x.shape, shape.tolist()))

A function takes the operands, None for those left out, and the attributes that it names. `results` is the number of
results. The emissions of `torch_emissions` come first, where they take the node; the functions here take every node of
their operator, so they read shapes, axes and limits from tensors, when they are called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnx import helper

from qir.backends.torch_emissions import Emission, call
from qir.backends.torch_onnx_arrays import SAME_BYTES
from qir.errors import QirError
from qir.graph import Node
from qir.types import DTYPES, NAMES, NUMPY

FUNCTIONS: dict[str, Callable[..., Any]] = {}

_SPECIAL = {np.dtype(theirs): ours for ours, (_, theirs) in SAME_BYTES.items()}


def computes(*ops: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the function of operators. Raises QirError when one already has one."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for op in ops:
            if op in FUNCTIONS:
                raise QirError(f"{op} is already computed by {FUNCTIONS[op].__name__}")
            FUNCTIONS[op] = function
        return function

    return register


def general_emission(node: Node) -> Emission | None:
    """A call of the operator's function; None when it has none."""
    function = FUNCTIONS.get(node.op)
    if function is None:
        return None
    named = inspect.signature(function).parameters
    options: dict[str, Any] = {}
    for name in node.definition.attributes:
        value = node.attr(name)
        if isinstance(value, np.ndarray):
            options |= {name: value.item(), "dtype": torch_dtype(helper.np_dtype_to_tensor_dtype(value.dtype))}
        elif name in named:
            options[name] = value
    known = {"op": node.op, "results": len(node.results)}
    return call(function, *node.operands, **options, **{name: known[name] for name in known if name in named})


def torch_dtype(number: int) -> torch.dtype:
    """The torch dtype of an element type of `onnx.TensorProto`. Raises QirError when torch has none."""
    dtype = NUMPY[NAMES[number]]
    found = _SPECIAL.get(dtype) or getattr(torch, dtype.name, None)
    if not isinstance(found, torch.dtype):
        raise QirError(f"torch has no dtype {NAMES[number]}", help=f"dtypes are {', '.join(DTYPES)}")
    return found


def listed(tensor: torch.Tensor | None) -> list[Any] | None:
    """The elements of a vector, or the one of a scalar; None when it is left out."""
    return None if tensor is None else tensor.reshape(-1).tolist()
