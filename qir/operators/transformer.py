"""Transformer layers as torch has them, and the attention, linear layers and norms that they consist of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from qir.operators.attention import FAMILY
from qir.operators.multihead import WEIGHTS as ATTENTION_WEIGHTS
from qir.operators.parts import Parts
from qir.ops import Attribute, OpDef, declare
from qir.traits import Composed, Stateful
from qir.types import Type

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

_ATTENTION = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
_DECODER_INPUTS = ("tgt", "memory", "tgt_mask", "memory_mask", "tgt_key_padding_mask", "memory_key_padding_mask")
INPUTS = {
    "TransformerEncoderLayer": ("src", "src_mask", "src_key_padding_mask"),
    "TransformerEncoder": ("src", "mask", "src_key_padding_mask"),
    "TransformerDecoderLayer": _DECODER_INPUTS, "TransformerDecoder": _DECODER_INPUTS,
    "Transformer": ("src", "tgt", "src_mask", "tgt_mask", "memory_mask", "src_key_padding_mask",
                    "tgt_key_padding_mask", "memory_key_padding_mask"),
}  # fmt: skip
"""What each layer is called with; its weights follow."""


def _layer_weights(attentions: Sequence[str], norms: int) -> Iterator[str]:
    yield from (f"{attention}.{name}" for attention in attentions for name in _ATTENTION)
    for part in ("linear1", "linear2", *(f"norm{number}" for number in range(1, norms + 1))):
        yield from (f"{part}.weight", f"{part}.bias")


def _stack_weights(kind: str, layers: int) -> Iterator[str]:
    for number in range(layers):
        yield from (f"layers.{number}.{name}" for name in weight_names(f"{kind}Layer"))
    yield from ("norm.weight", "norm.bias")


def weight_names(kind: str, attribute: Callable[[str], Any] = int) -> tuple[str, ...]:
    """The names of the weights in the state of a layer with these attributes; it may lack biases and the last norm."""
    if kind == "Transformer":
        sides = (("encoder", "TransformerEncoder"), ("decoder", "TransformerDecoder"))
        return tuple(f"{side}.{name}" for side, stack in sides
                     for name in _stack_weights(stack, attribute(f"num_{side}_layers")))  # fmt: skip
    if kind in ("TransformerEncoder", "TransformerDecoder"):
        return tuple(_stack_weights(kind, attribute("num_layers")))
    if kind == "TransformerEncoderLayer":
        return tuple(_layer_weights(("self_attn",), 2))
    return tuple(_layer_weights(("self_attn", "multihead_attn"), 3))


def weights_of(node: Node) -> dict[str, Value | None]:
    """The weights by name, None where there is none."""
    kind = node.op.removeprefix("qir.")
    names, given = weight_names(kind, node.attr), node.operands[len(INPUTS[kind]) :]
    return dict(zip(names, [*given, *[None] * (len(names) - len(given))], strict=True))


class _Layer:
    """The parts of one layer of a stack."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.on, self.node, self.weights = Parts(graph, node), node, weights_of(node)

    def attention(self, name: str, x: Value, key: Value, masks: Sequence[Value | None], causal: Any) -> Value:
        """The attention of `x` to `key`."""
        own = {weight: self.weights.get(f"{name}.{weight}") for weight in ATTENTION_WEIGHTS}
        return self.on.within(name).composite(
            "MultiheadAttention", [x, key, key, *masks, *own.values()], num_heads=self.node.attr("nhead"),
            dropout=self.node.attr("dropout"), batch_first=self.node.attr("batch_first"), need_weights=0,
            is_causal=int(causal),
        )[0]  # fmt: skip

    def dropout(self, name: str, x: Value) -> Value:
        """A dropout, if the layer has any."""
        p = self.node.attr("dropout")
        return self.on.within(name).Dropout(x, p) if p else x

    def norm(self, name: str, x: Value) -> Value:
        """A layer norm."""
        return norm(self.on, name, x, self.weights, self.node.attr("layer_norm_eps"))

    def feed_forward(self, last: str, x: Value) -> Value:
        """linear2(dropout(activation(linear1(x)))), behind the dropout `last`."""
        inner = self.linear("linear1", x)
        active = self.on.Gelu(inner) if self.node.attr("activation") == "gelu" else self.on.Relu(inner)
        return self.dropout(last, self.linear("linear2", self.dropout("dropout", active)))

    def linear(self, name: str, x: Value) -> Value:
        """A linear layer."""
        return self.on.within(name).linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])


def norm(on: Parts, name: str, x: Value, weights: dict[str, Value | None], epsilon: float) -> Value:
    """A layer norm over the last axis."""
    operands = [x, weights[f"{name}.weight"], weights[f"{name}.bias"]]
    return on.within(name).made("LayerNormalization", operands, 1, axis=-1, epsilon=epsilon)[0]


def encoder_layer(graph: Graph, node: Node) -> Sequence[Value]:
    """Attention and a feed-forward block, each with a residual and a norm before or behind it."""
    layer, x = _Layer(graph, node), node.operands[0]
    mask, padding, causal = node.operand("src_mask"), node.operand("src_key_padding_mask"), node.attr("is_causal")

    def attend(x: Value) -> Value:
        return layer.dropout("dropout1", layer.attention("self_attn", x, x, (padding, mask), causal))

    blocks = [attend, lambda x: layer.feed_forward("dropout2", x)]
    return [_residuals(layer, x, blocks)]


def decoder_layer(graph: Graph, node: Node) -> Sequence[Value]:
    """Attention to itself, to the memory, and a feed-forward block, each with a residual and a norm."""
    layer, x, memory = _Layer(graph, node), node.operands[0], node.operands[1]
    own = node.operand("tgt_key_padding_mask"), node.operand("tgt_mask")
    others = node.operand("memory_key_padding_mask"), node.operand("memory_mask")

    def attend(x: Value) -> Value:
        return layer.dropout("dropout1", layer.attention("self_attn", x, x, own, node.attr("tgt_is_causal")))

    def look(x: Value) -> Value:
        seen = layer.attention("multihead_attn", x, memory, others, node.attr("memory_is_causal"))
        return layer.dropout("dropout2", seen)

    return [_residuals(layer, x, [attend, look, lambda x: layer.feed_forward("dropout3", x)])]


def _residuals(layer: _Layer, x: Value, blocks: Sequence[Any]) -> Value:
    for number, block in enumerate(blocks, 1):
        if layer.node.attr("norm_first"):
            x = layer.on.Add(x, block(layer.norm(f"norm{number}", x)))
        else:
            x = layer.norm(f"norm{number}", layer.on.Add(x, block(x)))
    return x


_OF_LAYER = ("nhead", "dropout", "activation", "layer_norm_eps", "batch_first", "norm_first")


def _stack(on: Parts, kind: str, inputs: Sequence[Any], weights: dict[str, Value | None], layers: int,
           flags: dict[str, Any]) -> Value:  # fmt: skip
    """Layer by layer, then the norm if there is one."""
    x: Value = inputs[0]
    shared = {name: on.node.attr(name) for name in _OF_LAYER} | flags
    for number in range(layers):
        own = [weights[f"layers.{number}.{name}"] for name in weight_names(f"{kind}Layer")]
        (x,) = on.within(f"layers.{number}").composite(f"{kind}Layer", [x, *inputs[1:], *own], **shared)
    if weights["norm.weight"] is None:
        return x
    return norm(on, "norm", x, weights, on.node.attr("norm_eps"))


def stack(graph: Graph, node: Node) -> Sequence[Value]:
    """The layers one after the other."""
    on, kind = Parts(graph, node), node.op.removeprefix("qir.")
    inputs = [node.operand(name) for name in INPUTS[kind]]
    return [_stack(on, kind, inputs, weights_of(node), node.attr("num_layers"), _hints(node, kind))]


def _hints(node: Node, kind: str) -> dict[str, bool]:
    """The hints that a mask is causal, for the layers of a stack: those that the call gave."""
    if kind == "TransformerEncoder":
        name = "src_is_causal" if node.op == "qir.Transformer" else "is_causal"
        return {"is_causal": node.attr(name) is True}
    return {name: node.attr(name) is True for name in ("tgt_is_causal", "memory_is_causal")}


def transformer(graph: Graph, node: Node) -> Sequence[Value]:
    """The encoder, and the decoder that looks at its result."""
    on, weights = Parts(graph, node), weights_of(node)
    given = {name: node.operand(name) for name in INPUTS["Transformer"]}
    x = given["src"]
    for side, kind in (("encoder", "TransformerEncoder"), ("decoder", "TransformerDecoder")):
        own = {name.removeprefix(f"{side}."): value for name, value in weights.items() if name.startswith(f"{side}.")}
        inputs = [x if name == "memory" else given["src_mask" if name == "mask" else name] for name in INPUTS[kind]]
        x = _stack(on.within(side), kind, inputs, own, node.attr(f"num_{side}_layers"), _hints(node, kind))
    assert x is not None
    return [x]


def _types(node: Node) -> Sequence[Type]:
    return [node.operands[1 if node.op == "qir.Transformer" else 0].type]


def _declare(kind: str, parts: Any, **own: Attribute) -> None:
    required, flag = 1 + ("Encoder" not in kind), Attribute("ANY", False)
    attributes = {
        "nhead": Attribute("INT", required=True), "dropout": Attribute("FLOAT", 0.1),
        "activation": Attribute("STRING", "relu"), "layer_norm_eps": Attribute("FLOAT", 1e-5), "batch_first": flag,
        "norm_first": flag, **own,
    }  # fmt: skip
    declare(
        OpDef(
            f"qir.{kind}", (*INPUTS[kind], "weights"), required, None, attributes=attributes,
            traits=(Stateful(), Composed(FAMILY, parts)), expand=parts, infer=_types, doc=f"torch.nn.{kind}.",
        )
    )  # fmt: skip


_FLAG, _HINT, _COUNT, _NORM = Attribute("ANY", False), Attribute("ANY"), Attribute("INT", 1), Attribute("ANY")
_NESTED = {"enable_nested_tensor": Attribute("ANY", True), "mask_check": Attribute("ANY", True)}
_declare("TransformerEncoderLayer", encoder_layer, is_causal=_FLAG)
_declare("TransformerDecoderLayer", decoder_layer, tgt_is_causal=_FLAG, memory_is_causal=_FLAG)
_declare("TransformerEncoder", stack, num_layers=_COUNT, norm_eps=_NORM, is_causal=_HINT, **_NESTED)
_declare("TransformerDecoder", stack, num_layers=_COUNT, norm_eps=_NORM, tgt_is_causal=_HINT, memory_is_causal=_FLAG)
_declare(
    "Transformer", transformer, num_encoder_layers=_COUNT, num_decoder_layers=_COUNT, norm_eps=_NORM,
    src_is_causal=_HINT, tgt_is_causal=_HINT, memory_is_causal=_FLAG, **_NESTED,
)  # fmt: skip
