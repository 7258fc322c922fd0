"""Lowerings of torch's multi-head attention and transformer layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import Parameter, Signature, signature
from typing import Any

import torch.nn.functional as F
from torch import nn

from qir.attributes import TRAINING
from qir.frontends.torch_calls import is_special
from qir.frontends.torch_lowerings import Builder, Lowering, known, lowers
from qir.graph import Value
from qir.operators.multihead import WEIGHTS
from qir.operators.transformer import INPUTS, weight_names


@lowers(nn.MultiheadAttention)
def multihead_attention(
    build: Builder, query: Any, key: Any, value: Any, key_padding_mask: Any = None, need_weights: bool = True,
    attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False, *, num_heads: int,
    dropout: float, batch_first: bool, add_zero_attn: bool, modules: Callable[[], Iterable[nn.Module]],
) -> tuple[Value, Value | None]:  # fmt: skip
    """qir.MultiheadAttention."""
    layer, *inner = modules()
    _plain(inner, (nn.Linear,))
    own = dict(layer.named_parameters(remove_duplicate=False))
    return _multihead(
        build, [query, key, value, key_padding_mask, attn_mask, *map(own.get, WEIGHTS)], num_heads=num_heads,
        dropout=dropout, batch_first=batch_first, add_zero_attn=add_zero_attn, need_weights=need_weights,
        average_attn_weights=average_attn_weights, is_causal=is_causal,
    )  # fmt: skip


@lowers(F.multi_head_attention_forward)
def multi_head_attention_forward(
    build: Builder, query: Any, key: Any, value: Any, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any,
    in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool, dropout_p: float, out_proj_weight: Any,
    out_proj_bias: Any, training: Any = True, key_padding_mask: Any = None, need_weights: bool = True,
    attn_mask: Any = None, use_separate_proj_weight: bool = False, q_proj_weight: Any = None,
    k_proj_weight: Any = None, v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Value, Value | None]:  # fmt: skip
    """qir.MultiheadAttention."""
    known(static_k is None and static_v is None, "keys or values that are given as they are")
    known(not dropout_p or not training or training is TRAINING, "a dropout that is on in inference too")
    separate = [q_proj_weight, k_proj_weight, v_proj_weight] if use_separate_proj_weight else [None] * 3
    weights = [None if use_separate_proj_weight else in_proj_weight, *separate, in_proj_bias, out_proj_weight,
               out_proj_bias, bias_k, bias_v]  # fmt: skip
    return _multihead(
        build, [query, key, value, key_padding_mask, attn_mask, *weights], num_heads=num_heads,
        dropout=dropout_p if training else 0.0, batch_first=False, add_zero_attn=add_zero_attn,
        need_weights=need_weights, average_attn_weights=average_attn_weights, is_causal=is_causal,
    )  # fmt: skip


def _multihead(build: Builder, operands: list[Any], **attrs: Any) -> tuple[Value, Value | None]:
    """The result, and the shares where they are wanted."""
    flags = [attrs[name] for name in ("need_weights", "average_attn_weights", "is_causal")]
    known(all(isinstance(flag, bool) for flag in flags), "a computed flag")
    results = 2 if attrs["need_weights"] else 1
    node = build.graph.add("qir.MultiheadAttention", _values(build, operands), attrs, results=results)
    build.added.append(node)
    return node.result, node.results[1] if results == 2 else None


def _values(build: Builder, operands: Iterable[Any]) -> list[Value | None]:
    """The operands as values of the graph, without those that are left out at the end."""
    values = [build.value(operand) for operand in operands]
    while values[-1] is None:
        values.pop()
    return values


def _plain(modules: Iterable[nn.Module], kinds: tuple[type[nn.Module], ...]) -> None:
    """Raise Unlowered unless all of these are torch's own, without hooks and parametrizations."""
    for module in modules:
        own = isinstance(module, kinds) and type(module).__module__.startswith("torch.")
        known(own, "it holds a layer of the user's")
        known(not is_special(module), "a layer in it has hooks or parametrizations")


_ACTIVATIONS: dict[Any, str] = {F.relu: "relu", F.gelu: "gelu"}
_LAYERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
_STACKS = (nn.TransformerEncoder, nn.TransformerDecoder)
_PARTS = (
    *_LAYERS,
    *_STACKS,
    nn.ModuleList,
    nn.MultiheadAttention,
    nn.Linear,
    nn.Dropout,
    nn.LayerNorm,
    nn.ReLU,
    nn.GELU,
)


def _activation(activation: Any) -> str:
    if isinstance(activation, nn.ReLU):
        return "relu"
    if isinstance(activation, nn.GELU) and activation.approximate == "none":
        return "gelu"
    known(activation in _ACTIVATIONS, "an activation other than relu and gelu")
    return _ACTIVATIONS[activation]


def _options_of_layer(layer: nn.TransformerEncoderLayer | nn.TransformerDecoderLayer) -> dict[str, Any]:
    """The attributes of a layer, which are those that it was made with. Raises Unlowered when it was changed since."""
    rates = {layer.self_attn.dropout, *(part.p for part in layer.modules() if isinstance(part, nn.Dropout))}
    epsilons = {part.eps for part in layer.modules() if isinstance(part, nn.LayerNorm)}
    known(len(rates) == len(epsilons) == 1, "dropouts or norms that differ from each other")
    return {
        "nhead": layer.self_attn.num_heads, "dropout": float(rates.pop()), "layer_norm_eps": epsilons.pop(),
        "activation": _activation(layer.activation), "batch_first": layer.self_attn.batch_first,
        "norm_first": layer.norm_first,
    }  # fmt: skip


def _options_of_stack(stack: nn.TransformerEncoder | nn.TransformerDecoder) -> dict[str, Any]:
    """The attributes of a stack. Raises Unlowered when its layers differ."""
    known(all(isinstance(layer, _LAYERS) for layer in stack.layers), "layers of the user's")
    first, *others = [_options_of_layer(layer) for layer in stack.layers]
    known(all(other == first for other in others), "layers that differ from each other")
    options = {**first, "num_layers": len(stack.layers), "norm_eps": None if stack.norm is None else stack.norm.eps}
    if isinstance(stack, nn.TransformerEncoder):
        options |= {"enable_nested_tensor": stack.use_nested_tensor, "mask_check": stack.mask_check}
    return options


def _options(layer: Any) -> dict[str, Any]:
    if isinstance(layer, _LAYERS):
        return _options_of_layer(layer)
    if isinstance(layer, _STACKS):
        return _options_of_stack(layer)
    sides = {"encoder": layer.encoder, "decoder": layer.decoder}
    known(all(isinstance(side, _STACKS) for side in sides.values()), "an encoder or decoder of the user's")
    encoder, decoder = (_options_of_stack(side) for side in sides.values())
    pairs = zip(sides, (encoder, decoder), strict=True)
    counts = {f"num_{side}_layers": options.pop("num_layers") for side, options in pairs}
    known({**encoder, **decoder} == encoder, "an encoder and a decoder that differ")
    return {**encoder, **counts}


def _transformer(kind: type[nn.Module]) -> Lowering:
    name, called = kind.__name__, list(signature(kind.forward).parameters.values())[1:]
    hints = {parameter.name: parameter.default for parameter in called if parameter.name.endswith("is_causal")}

    def lowering(build: Builder, *, modules: Callable[[], Iterable[nn.Module]], **given: Any) -> Value:
        layer, *inner = modules()
        _plain(inner, _PARTS)
        flags = {hint: given.get(hint, default) for hint, default in hints.items()}
        known(all(flag is None or isinstance(flag, bool) for flag in flags.values()), "a computed flag")
        options, own = _options(layer), dict(layer.named_parameters(remove_duplicate=False))
        names = weight_names(name, options.__getitem__)
        known(set(own) <= set(names), "weights that torch's layer has not")
        operands = _values(build, [*map(given.get, INPUTS[name]), *map(own.get, names)])
        return build(f"qir.{name}", *operands, **options, **flags)

    own = [Parameter("build", Parameter.POSITIONAL_OR_KEYWORD), *called, Parameter("modules", Parameter.KEYWORD_ONLY)]
    setattr(lowering, "__signature__", Signature(own))  # noqa: B010
    lowering.__name__ = name.lower()
    return lowers(kind)(lowering)


for _kind in (*_LAYERS, *_STACKS, nn.Transformer):
    _transformer(_kind)

ATTENTION_LAYERS: tuple[type[nn.Module], ...] = (nn.MultiheadAttention, *_LAYERS, *_STACKS, nn.Transformer)
"""The layers that choose among kernels when they run, by the mode and by whether there are gradients."""
