"""The names that quantized tensors have in the float ONNX model of a graph, and in its layers.

The ONNX model is made first and the names are read from it, so they can not disagree with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qir.encodings import Encoding
from qir.encodings_entry import Place
from qir.encodings_format_0 import layer_port
from qir.facts import is_quantizer
from qir.graph import Graph, Node, Value
from qir.pipeline import Pipeline
from qir.quantizers import quantizers
from qir.text import value_names


@dataclass(frozen=True)
class FloatModel:
    """The graph of the float ONNX model, and the name there of the tensor that each quantizer rounds."""

    graph: Graph
    names: dict[Node, str]


def float_model(graph: Graph, opset: int = 21) -> FloatModel:
    """`graph` without quantizers, in the operators of ONNX.

    A tensor that only training reads is not there, and has no name. Two quantizers whose encodings are not shared round
    two tensors: where they would round one, the second rounds an Identity of it. Calls that ONNX has no operators for
    stay as they are.
    """
    copy, twins = graph.copy_with_map()
    rounded = [(node, twins[node]) for node in quantizers(graph)]
    for _, twin in rounded:
        twin.attrs["encoding"] = Encoding("u8")  # uncalibrated, so that it outlives the expansions around it
    legalize = f"legalize-onnx{{opset={opset}}}"
    Pipeline.parse(f"{legalize},expand-opaque,{legalize}").run(copy)
    tensors: dict[Node, Value] = {}
    grids: dict[Value, Encoding] = {}
    for node, twin in rounded:
        if twin.erased:
            continue
        tensor = twin.operands[0]
        if grids.setdefault(tensor, node.attrs["encoding"]) is not node.attrs["encoding"]:
            tensor = copy.add("Identity", [tensor], like=twin, hint=tensor.hint).result
        copy.replace(twin.result, tensor)
        copy.erase(twin)
        tensors[node] = tensor
    names = value_names(copy)
    return FloatModel(copy, {node: names[tensor] for node, tensor in tensors.items()})


def is_parameter(node: Node) -> bool:
    """Whether a quantizer rounds a weight."""
    return node.operands[0].weight is not None


def place_of(node: Node) -> Place:
    """What an encodings file does not say of the tensor that a quantizer rounds."""
    return Place(node.attrs["encoding"], node.operands[0].type.static, is_parameter(node))


def layer_ports(node: Node) -> Iterator[tuple[str, str, int]]:
    """The tensor that a quantizer rounds as a layer's result, or else as operands of layers: layer, side, port.

    A tensor with several quantizers is named by its readers. What no layer writes or reads is named by the quantizer.
    """
    tensor = node.operands[0]
    written = tensor.node
    alone = sum(is_quantizer(use.node) for use in tensor.uses) == 1
    if alone and written is not None and written.module is not None and not is_quantizer(written):
        yield written.module, "output", tensor.port
        return
    read = [use for use in node.result.uses if use.node.module is not None and not is_quantizer(use.node)]
    yield from ((use.node.module or "", "input", use.port) for use in read)
    if not read and node.module is not None:
        yield node.module, "output", 0


def quantizers_by_name(graph: Graph, opset: int = 21) -> dict[str, list[Node]]:
    """The quantizers of `graph` by every name that a file may have for their tensors.

    Those are the tensor's name in the float ONNX model, a weight's paths in the state, and `layer:output:0`.
    """
    found: dict[str, list[Node]] = {}
    for node, name in float_model(graph, opset).names.items():
        weight = node.operands[0].weight
        others = weight.paths if weight is not None else [layer_port(*port) for port in layer_ports(node)]
        for known in dict.fromkeys([name, *others]):
            found.setdefault(known, []).append(node)
    return found
