"""The names that quantized tensors have in the float ONNX model of a graph, and in its layers.

The ONNX model is made first and the names are read from it, so they can not disagree with it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from qir.encodings.encoding import Encoding
from qir.encodings.entry import Place
from qir.encodings.format_0 import layer_port
from qir.facts import is_quantizer
from qir.graph import Graph, Node, Value
from qir.pipeline import Pipeline
from qir.quantizers import is_parameter, quantizers
from qir.text.printing import value_names


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
            grids[tensor] = node.attrs["encoding"]
        copy.replace(twin.result, tensor)
        copy.erase(twin)
        tensors[node] = tensor
    names = value_names(copy)
    return FloatModel(copy, {node: names[tensor] for node, tensor in tensors.items()})


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
    read = list(_ports_that_read(node))
    yield from read
    if not read and node.module is not None:
        yield node.module, "output", 0


def _ports_that_read(node: Node) -> Iterator[tuple[str, str, int]]:
    """The operands of layers that a quantizer's result is."""
    for use in node.result.uses:
        if use.node.module is not None and not is_quantizer(use.node):
            yield use.node.module, "input", use.port


def quantizers_by_layer(graph: Graph) -> dict[str, Node]:
    """The quantizers of `graph` by the names that a model's state and layers have for their tensors.

    Those are a weight's paths, and for others the ports of the layers around them, as `layer:output:0`.
    """
    found: dict[str, Node] = {}
    for node in quantizers(graph):
        ports = [layer_port(*port) for port in (*layer_ports(node), *_ports_that_read(node))]
        found.update(dict.fromkeys(paths_of(node) or ports, node))
    return found


def quantizers_by_name(graph: Graph, wanted: Collection[str] | None = None) -> dict[str, list[Node]]:
    """The quantizers of `graph` by every name that a file may have for their tensors.

    Those are the names in the model's state and layers, and the names in its float ONNX model; the latter are left out
    where the former are all that is `wanted`, as not every model has a place in ONNX.
    """
    found = {name: [node] for name, node in quantizers_by_layer(graph).items()}
    if wanted is None or not set(wanted) <= set(found):
        for node, name in float_model(graph).names.items():
            if node not in (others := found.setdefault(name, [])):
                others.append(node)
    return found


def paths_of(node: Node) -> tuple[str, ...]:
    """The paths in the model's state of the weight that a quantizer rounds; none for other tensors."""
    weight = node.operands[0].weight
    return () if weight is None else weight.paths
