"""Which initializers of an ONNX model are parameters, which training changes. ONNX itself does not say."""

from __future__ import annotations

import numpy as np
import onnx

from qir.frontends.onnx_checks import STANDARD
from qir.frontends.onnx_versions import schema_at
from qir.ops import VOCABULARY_OPSET, OpDef, definition
from qir.traits import Elementwise, Weighted

FLOATS = ("float64", "float32", "float16", "bfloat16")

PARAMETERS = ("scale", "Scale", "B", "bias", "slope", "W", "R")
"""What ONNX calls the operands of layers that are parameters."""


def is_weight(node: onnx.NodeProto, port: int) -> bool:
    """Whether operand number `port` is what the operator multiplies with, or adds to the product."""
    known = _definition(node)
    weighted = None if known is None else known.trait(Weighted)
    return weighted is not None and port in (weighted.weight, weighted.bias)


def _definition(node: onnx.NodeProto) -> OpDef | None:
    """What is known about the operator; None for operators of other domains and those that there are no more."""
    if node.domain not in STANDARD or schema_at(node.op_type, VOCABULARY_OPSET) is None:
        return None
    return definition(node.op_type)


def is_parameter(node: onnx.NodeProto, port: int, array: np.ndarray) -> bool:
    """Whether an initializer that is operand number `port` is a parameter.

    A weight, bias, scale or slope of a layer is one, the table of an embedding, and a vector that is added to or
    multiplied with a tensor; masks, statistics and tables of other kinds are none.
    """
    known = _definition(node)
    if known is None or array.dtype.name not in FLOATS:
        return False
    if is_weight(node, port) or (node.op_type == "Gather" and port == 0 and array.ndim == 2):
        return True
    if known.trait(Elementwise):
        return array.size == max(array.shape, default=0) > 1
    return port > 0 and port < len(known.operands) and known.operands[port] in PARAMETERS
