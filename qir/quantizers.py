"""The quantizers of a graph and their encodings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qir.encodings.encoding import Encoding, ProductEncoding
from qir.facts import is_quantizer
from qir.graph import Graph, Node, Value
from qir.traits import Clamps


def quantizers(graph: Graph) -> list[Node]:
    """The quantizer nodes in canonical order."""
    return [node for node in graph.nodes() if is_quantizer(node)]


def quantizer_of(value: Value | None) -> Node | None:
    """The quantizer that computes `value`, if one does."""
    node = None if value is None else value.node
    return node if node is not None and is_quantizer(node) else None


def is_parameter(node: Node) -> bool:
    """Whether a quantizer rounds a weight."""
    return node.operands[0].weight is not None


def is_fixed(node: Node) -> bool:
    """Whether the scale of a quantizer is given, so that no data changes it."""
    return bool(node.attr("fixed")) and node.attrs["encoding"].calibrated


def replace_encodings(graph: Graph, new: Mapping[Encoding, Encoding]) -> None:
    """Let every quantizer that holds a key of `new` hold its value, in the factors of products too."""
    products: dict[Encoding, Encoding] = {}
    for node in quantizers(graph):
        old = node.attrs["encoding"]
        if isinstance(old, ProductEncoding):
            if old not in products:
                first, second = new.get(old.input, old.input), new.get(old.weight, old.weight)
                changed = first is not old.input or second is not old.weight
                products[old] = ProductEncoding(old.dtype, input=first, weight=second) if changed else old
            node.attrs["encoding"] = products[old]
        else:
            node.attrs["encoding"] = new.get(old, old)


def within_clamps(encoding: Encoding, nodes: Sequence[Node]) -> Encoding:
    """The encoding, ended within the limits of the clamps before its quantizers."""
    for node in nodes:
        clamp = node.operands[0].node
        trait = None if clamp is None else clamp.definition.trait(Clamps)
        if trait is not None and clamp is not None and (limits := trait.range(clamp)) is not None:
            encoding = encoding.within(*limits)
    return encoding
