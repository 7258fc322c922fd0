"""Multi-head attention as torch has it: projections, attention of every head, a projection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qir.operators.attention import FAMILY, attention_scores, causal_mask, masked_softmax
from qir.operators.parts import Parts
from qir.ops import Attribute, OpDef, declare
from qir.traits import Composed, Stateful
from qir.types import UNKNOWN, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

WEIGHTS = (
    "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight", "in_proj_bias", "out_proj.weight",
    "out_proj.bias", "bias_k", "bias_v",
)  # fmt: skip
"""The weights of torch.nn.MultiheadAttention by their names in its state."""


def multihead(graph: Graph, node: Node) -> Sequence[Value]:
    """The projections, the attention and the projection of its result, by the steps of torch's slow path.

    Raises QirError where the ranks are not known.
    """
    on = Parts(graph, node)
    batched, first = on.rank(node.operands[0]) == 3, bool(node.attr("batch_first"))
    query, *memory = _projected(on, batched, first)
    memory = [_with_more(on, part, name) for part, name in zip(memory, ("bias_k", "bias_v"), strict=True)]
    query, key, value = (_heads(on, part) for part in (query, *memory))
    mask = _mask(on, query, key)
    scores = attention_scores(on, query, key, None)
    if node.attr("need_weights"):
        shares = on.Softmax(_added(on, scores, mask), axis=-1)
    else:
        shares = masked_softmax(on, scores, on.Not(mask) if mask is not None and mask.type.dtype == "bool" else mask)
    if node.attr("dropout"):
        shares = on.Dropout(shares, node.attr("dropout"))
    joined = on.Transpose(on.MatMul(shares, value), perm=(0, 2, 1, 3))
    size = on.size(on.required("out_proj.weight"), 0)
    out = on.within("out_proj").linear(
        on.Reshape(joined, [0, 0, size]), node.operand("out_proj.weight"), node.operand("out_proj.bias")
    )
    result = _as_given(on, out, batched, first)
    if not node.attr("need_weights"):
        return [result]
    weights = on.ReduceMean(shares, [1], keepdims=0) if node.attr("average_attn_weights") else shares
    return [result, weights if batched else on.Squeeze(weights, [0])]


def _batch_first(on: Parts, x: Value, batched: bool, first: bool) -> Value:
    if not batched:
        return on.Unsqueeze(x, [0])
    return x if first else on.Transpose(x, perm=(1, 0, 2))


def _as_given(on: Parts, x: Value, batched: bool, first: bool) -> Value:
    if not batched:
        return on.Squeeze(x, [0])
    return x if first else on.Transpose(x, perm=(1, 0, 2))


def _projected(on: Parts, batched: bool, first: bool) -> list[Value]:
    """Query, key and value behind their projections, each [batch, length, size]."""
    given, packed = on.node.operands[:3], on.node.operand("in_proj_weight")
    bias, project = on.node.operand("in_proj_bias"), on.within("in_proj")
    turned = {part: _batch_first(on, part, batched, first) for part in dict.fromkeys(given)}
    if packed is not None and len(turned) == 1:
        return on.split(project.linear(turned[given[0]], packed, bias), 3, -1)
    weights = [on.node.operand(f"{name}_proj_weight") for name in "qkv"] if packed is None else on.split(packed, 3, 0)
    biases = [None] * 3 if bias is None else on.split(bias, 3, 0)
    return [project.linear(turned[part], *each) for part, *each in zip(given, weights, biases, strict=True)]


def _with_more(on: Parts, x: Value, name: str) -> Value:
    """Keys or values with a learned one and one of zeros behind them, where the layer has such."""
    one, learned = on.Slice(x, [0], [1], [1]), on.node.operand(name)
    more = [] if learned is None else [on.composite("ExpandAs", [learned, one])[0]]
    if on.node.attr("add_zero_attn"):
        more.append(on.composite("FullLike", [one], value=0.0)[0])
    return on.Concat(x, *more, axis=1) if more else x


def _added_keys(node: Node) -> int:
    """How many keys the layer has of its own."""
    return int(node.operand("bias_k") is not None) + int(node.attr("add_zero_attn"))


def _heads(on: Parts, x: Value) -> Value:
    """[batch, heads, length, size of a head]."""
    heads = on.node.attr("num_heads")
    return on.Transpose(on.Reshape(x, [0, 0, heads, on.size(x, 2) // heads]), perm=(0, 2, 1, 3))


def _mask(on: Parts, query: Value, key: Value) -> Value | None:
    """What all masks leave out, as booleans, or what they add, as floats."""
    node, heads = on.node, on.node.attr("num_heads")
    padding, mask = node.operand("key_padding_mask"), node.operand("attn_mask")
    if node.attr("is_causal") and padding is None and not node.attr("need_weights"):
        return on.Not(causal_mask(on, query, key))
    found = []
    if mask is not None:
        sizes = [on.axis(query, 0), heads, on.axis(mask, 1), on.axis(mask, 2)] if on.rank(mask) == 3 else []
        found.append(on.view(mask, sizes) if sizes else mask)
    if padding is not None:
        found.append(on.Unsqueeze(padding, [1, 2] if on.rank(padding) == 2 else [0, 1, 2]))
    on.needs(all(part.type.dtype is not None for part in found), "the dtype of its mask is not known")
    more = _added_keys(node)
    found = [on.Pad(part, [0, more], None, [-1]) for part in found] if more else found
    if len(found) < 2:
        return found[0] if found else None
    if all(part.type.dtype == "bool" for part in found):
        return on.Or(*found)
    return on.Add(*(on.Where(part, -math.inf, 0.0) if part.type.dtype == "bool" else part for part in found))


def _added(on: Parts, scores: Value, mask: Value | None) -> Value:
    if mask is None:
        return scores
    return on.Where(mask, -math.inf, scores) if mask.type.dtype == "bool" else on.Add(scores, mask)


def _types(node: Node) -> Sequence[Type]:
    query, key = node.operands[0].type, node.operands[1].type
    if query.shape is None or key.shape is None:
        return [TensorType(query.dtype) if query.dtype else UNKNOWN] * len(node.results)
    batched, first = len(query.shape) == 3, bool(node.attr("batch_first"))
    batch = (query.shape[0 if first else 1],) if batched else ()
    lengths = tuple(shape[-2] if first or not batched else shape[0] for shape in (query.shape, key.shape))
    heads = () if node.attr("average_attn_weights") else (node.attr("num_heads"),)
    more = _added_keys(node)
    seen = lengths[1] + more if isinstance(lengths[1], int) else None if more else lengths[1]
    return [query, TensorType(query.dtype, (*batch, *heads, lengths[0], seen))][: len(node.results)]


MULTIHEAD_ATTENTION = declare(
    OpDef(
        "qir.MultiheadAttention", ("query", "key", "value", "key_padding_mask", "attn_mask", *WEIGHTS), 3, 14,
        max_results=2,
        attributes={
            "num_heads": Attribute("INT", required=True), "dropout": Attribute("FLOAT", 0.0),
            "batch_first": Attribute("INT", 0), "add_zero_attn": Attribute("INT", 0),
            "need_weights": Attribute("INT", 1), "average_attn_weights": Attribute("INT", 1),
            "is_causal": Attribute("INT", 0),
        },
        traits=(Stateful(), Composed(FAMILY, multihead)), expand=multihead, infer=_types,
        doc="torch.nn.MultiheadAttention: the result, and with `need_weights` the shares that it is a mean by.",
    )
)  # fmt: skip
