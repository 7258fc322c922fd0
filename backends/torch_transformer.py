"""Emissions of multi-head attention and of transformer layers, as torch's own layers."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from qir.backends.torch_composed import whole_layer
from qir.backends.torch_emissions import Emission, emits
from qir.graph import Node
from qir.operators.multihead import WEIGHTS
from qir.operators.transformer import INPUTS, weight_names, weights_of


@emits("qir.MultiheadAttention")
def multihead_attention(node: Node) -> Emission:
    """nn.MultiheadAttention, which takes torch's fast path where the model did."""
    weights: dict[str, Any] = {name: node.operand(name) for name in WEIGHTS}
    separate = weights["in_proj_weight"] is None
    options = {
        "embed_dim": weights["out_proj.weight"].type.shape[0], "num_heads": node.attr("num_heads"),
        "dropout": node.attr("dropout"), "bias": weights["out_proj.bias"] is not None,
        "add_bias_kv": weights["bias_k"] is not None, "add_zero_attn": bool(node.attr("add_zero_attn")),
        "kdim": weights["k_proj_weight"].type.shape[1] if separate else None,
        "vdim": weights["v_proj_weight"].type.shape[1] if separate else None,
        "batch_first": bool(node.attr("batch_first")),
    }  # fmt: skip
    flags = {name: bool(node.attr(name)) for name in ("need_weights", "average_attn_weights", "is_causal")}
    masks = {name: node.operand(name) for name in ("key_padding_mask", "attn_mask")}
    names = {name: port for port, name in enumerate(WEIGHTS, 5)}
    places = ((0,), (1,)) if node.attr("need_weights") else ((0,),)
    layer = nn.MultiheadAttention(device="meta", **options)
    if separate:
        _separate(layer)
    return whole_layer(node, layer, names, node.operands[:3], {**masks, **flags}, places)


def _separate(layer: nn.MultiheadAttention) -> None:
    """Give the layer three weights for query, key and value, where torch packs those of one size."""
    if layer._qkv_same_embed_dim:
        layer._qkv_same_embed_dim = False
        layer.register_parameter("in_proj_weight", None)
        for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = torch.empty(layer.embed_dim, layer.embed_dim, device="meta")
            layer.register_parameter(name, nn.Parameter(weight))


_STACKED = {"TransformerEncoder": nn.TransformerEncoderLayer, "TransformerDecoder": nn.TransformerDecoderLayer}


@emits(*(f"qir.{kind}" for kind in INPUTS))
def transformer(node: Node) -> Emission:
    """nn.TransformerEncoderLayer and the like, which take torch's fast paths where the model did."""
    kind = node.op.removeprefix("qir.")
    names = weight_names(kind, node.attr)
    inputs = dict(zip(INPUTS[kind], node.operands, strict=False))
    flags = {name: node.attr(name) for name in node.definition.attributes if name.endswith("is_causal")}
    first = len(INPUTS[kind])
    return whole_layer(node, _layer(node, kind), {name: first + place for place, name in enumerate(names)}, (),
                       {**inputs, **flags})  # fmt: skip


def _layer(node: Node, kind: str) -> nn.Module:
    """The layer that the attributes describe, without memory for its weights."""
    if kind in _STACKED:
        return _stack(node, kind, "", node.attr("num_layers"))
    if kind != "Transformer":
        return _part(node, getattr(nn, kind), "")
    sides = [_stack(node, f"Transformer{side.capitalize()}", f"{side}.", node.attr(f"num_{side}_layers"))
             for side in ("encoder", "decoder")]  # fmt: skip
    size: Any = weights_of(node)["encoder.layers.0.linear1.weight"].type.shape[1]  # type: ignore[union-attr,index]
    return nn.Transformer(size, node.attr("nhead"), custom_encoder=sides[0], custom_decoder=sides[1],
                          batch_first=node.attr("batch_first"), device="meta")  # fmt: skip


def _part(node: Node, kind: Any, prefix: str) -> nn.Module:
    """One layer, whose weights have names that begin with the prefix."""
    weights = weights_of(node)
    inner = weights[f"{prefix}linear1.weight"]
    assert inner is not None
    hidden, size = inner.type.shape  # type: ignore[misc]
    options = {name: node.attr(name) for name in ("nhead", "dropout", "activation", "layer_norm_eps", "batch_first",
                                                  "norm_first")}  # fmt: skip
    biased = weights[f"{prefix}linear1.bias"] is not None
    layer: nn.Module = kind(size, dim_feedforward=hidden, bias=biased, device="meta", **options)
    return layer


def _stack(node: Node, kind: str, prefix: str, count: int) -> nn.Module:
    """An encoder or decoder of `count` layers."""
    weights = weights_of(node)
    scale, bias = weights[f"{prefix}norm.weight"], weights[f"{prefix}norm.bias"]
    norm = None
    if scale is not None:
        norm = nn.LayerNorm(scale.type.shape, node.attr("norm_eps"), bias=bias is not None, device="meta")
    layer = _part(node, _STACKED[kind], f"{prefix}layers.0.")
    if kind == "TransformerDecoder":
        return nn.TransformerDecoder(layer, count, norm)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nested = {"enable_nested_tensor": node.attr("enable_nested_tensor"), "mask_check": node.attr("mask_check")}
        return nn.TransformerEncoder(layer, count, norm, **nested)  # type: ignore[arg-type]
