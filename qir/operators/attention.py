"""Attention, as frameworks keep it whole, and the matrix products and the softmax that it consists of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from qir.operators.parts import Parts
from qir.ops import Attribute, OpDef, declare
from qir.traits import Composed, Stateful
from qir.types import UNKNOWN, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

FAMILY = "attention"


def scaled_dot_product(graph: Graph, node: Node) -> Sequence[Value]:
    """softmax(query @ key.T * scale + mask) @ value, in the steps and with the rounding of torch's own math kernel.

    Raises QirError where the mask's dtype is not known, or the rank where sizes are computed.
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
        mask = causal_mask(on, query, key)
    shares = masked_softmax(on, scores, mask)
    if node.attr("dropout"):
        shares = on.Dropout(shares, float(node.attr("dropout")))
    attended: Value = on.MatMul(shares, value)
    return [on.cast(attended, narrow) if narrow else attended]


def causal_mask(on: Parts, query: Value, key: Value) -> Value:
    """Whether a place of the query sees a place of the key: itself and those before."""
    given = [None if x.type.shape is None else x.type.shape[-2] for x in (query, key)]
    sizes = [size for size in given if isinstance(size, int)]
    if len(sizes) == 2:
        return on.constant(np.tril(np.ones(sizes, bool)))
    first, step = np.array(0), np.array(1)
    rows, columns = (on.Range(first, on.Squeeze(on.length(x, -2), [0]), step) for x in (query, key))
    seen: Value = on.GreaterOrEqual(on.Unsqueeze(rows, [1]), columns)
    return seen


def attention_scores(on: Parts, query: Value, key: Value, scale: float | None) -> Value:
    """query @ key.T * scale, half of the scale on either side; 1 / sqrt of the last axis where it is None."""
    turned = on.composite("SwapAxes", [key], axis0=-2, axis1=-1)[0]
    size = None if query.type.shape is None else query.type.shape[-1]
    if scale is None and not isinstance(size, int):
        width = on.cast(on.length(query, -1), query.type.dtype or "f32")
        root = on.Pow(width, -0.25)
        computed: Value = on.MatMul(on.Mul(query, root), on.Mul(turned, root))
        return computed
    scale = 1.0 / math.sqrt(on.size(query, -1)) if scale is None else scale
    half = math.sqrt(abs(scale))
    scores: Value = on.MatMul(_scaled(on, query, math.copysign(half, scale)), _scaled(on, turned, half))
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
                    "enable_gqa": Attribute("ANY", False), "dropout": Attribute("FLOAT", 0.0)},
        traits=(Stateful(), Composed(FAMILY, scaled_dot_product)),
        expand=scaled_dot_product, infer=_attended_type,
        doc="`softmax(query @ key.T * scale + mask) @ value`; scale is 1 / sqrt of the last axis unless given, "
            "`is_causal` lets each place see itself and those before, `enable_gqa` shares heads of key and value, "
            "`dropout` is that of the softmax in training.",
    )
)  # fmt: skip
