"""Attention, as frameworks keep it whole, and the matrix products and the softmax that it consists of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qir.ops import Attribute, OpDef, declare
from qir.parts import Parts
from qir.traits import Composed
from qir.types import UNKNOWN, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

FAMILY = "attention"


def scaled_dot_product(graph: Graph, node: Node) -> Sequence[Value]:
    """softmax(query @ key.T * scale + mask) @ value, in the steps and with the rounding of torch's own math kernel.

    Raises QirError where the mask's dtype or, with `is_causal`, a sequence length is not known.
    """
    on = Parts(graph, node)
    query, key, value = node.operands[:3]
    narrow = query.type.dtype if query.type.dtype in ("f16", "bf16") else None
    if narrow:
        query, key, value = (on.cast(part, "f32") for part in (query, key, value))
    if node.attr("enable_gqa"):
        key, value = (_repeated(on, part, on.size(query, -3)) for part in (key, value))
    scores = attention_scores(on, query, key, node.attr("scale"))
    mask = node.operand("mask")
    if node.attr("is_causal"):
        mask = on.constant(np.tril(np.ones((on.size(query, -2), on.size(key, -2)), bool)))
    attended: Value = on.MatMul(masked_softmax(on, scores, mask), value)
    return [on.cast(attended, narrow) if narrow else attended]


def attention_scores(on: Parts, query: Value, key: Value, scale: float | None) -> Value:
    """query @ key.T * scale, half of the scale on either side; 1 / sqrt of the last axis where it is None."""
    scale = 1.0 / math.sqrt(on.size(query, -1)) if scale is None else scale
    root = math.sqrt(abs(scale))
    turned = on.composite("SwapAxes", [key], axis0=-2, axis1=-1)[0]
    scores: Value = on.MatMul(_scaled(on, query, math.copysign(root, scale)), _scaled(on, turned, root))
    return scores


def _scaled(on: Parts, x: Value, factor: float) -> Value:
    return x if factor == 1.0 else on.Mul(x, factor)


def _repeated(on: Parts, x: Value, heads: int) -> Value:
    """Every head of `x` as often as it takes to have `heads` of them."""
    own = on.size(x, -3)
    repeated: Value = on.Gather(x, np.repeat(np.arange(own), heads // own), axis=on.rank(x) - 3)
    return repeated


def masked_softmax(on: Parts, scores: Value, mask: Value | None) -> Value:
    """The softmax over the last axis of what a mask lets through: 0 where it lets nothing through.

    A mask of booleans says what counts; one of floats is added. Raises QirError when its dtype is not known.
    """
    if mask is None:
        return on.Softmax(scores, axis=-1)
    on.needs(mask.type.dtype is not None, "the dtype of its mask is not known")
    complete = _lets_through(mask)
    if mask.type.dtype == "bool":
        shares = on.Softmax(on.Where(mask, scores, -math.inf), axis=-1)
        return shares if complete else on.Where(mask, shares, 0.0)
    scores = on.Add(scores, mask)
    if complete:
        return on.Softmax(scores, axis=-1)
    closed = on.Equal(on.ReduceMax(scores, [-1], keepdims=1), -math.inf)
    return on.Where(closed, 0.0, on.Softmax(on.Where(closed, 0.0, scores), axis=-1))


def _lets_through(mask: Value) -> bool:
    """Whether the mask is known to let something through in every row."""
    if mask.weight is None or mask.weight.data is None or mask.weight.trainable:
        return False
    array = mask.array
    passes = array if array.dtype == bool else array > -np.inf
    return bool(passes.any(-1).all())


def _attended_type(node: Node) -> Sequence[Type]:
    query, value = node.operands[0].type, node.operands[2].type
    if query.shape is None or value.shape is None:
        return [TensorType(query.dtype) if query.dtype else UNKNOWN]
    batch = query.shape[:-2] if node.attr("enable_gqa") or query.shape[:-2] == value.shape[:-2] else None
    if batch is None:
        batch = (None,) * max(len(query.shape) - 2, len(value.shape) - 2)
    return [TensorType(query.dtype, (*batch, query.shape[-2], value.shape[-1]))]


SCALED_DOT_PRODUCT_ATTENTION = declare(
    OpDef(
        "qir.ScaledDotProductAttention", ("query", "key", "value", "mask"), 3, 4,
        attributes={"is_causal": Attribute("ANY", False), "scale": Attribute("ANY"),
                    "enable_gqa": Attribute("ANY", False)},
        traits=(Composed(FAMILY, scaled_dot_product),),
        expand=scaled_dot_product, infer=_attended_type,
        doc="`softmax(query @ key.T * scale + mask) @ value`; scale is 1 / sqrt of the last axis unless given, "
            "`is_causal` lets each place see itself and those before, `enable_gqa` shares heads of key and value.",
    )
)  # fmt: skip
