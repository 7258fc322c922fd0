"""A quantized graph as a Keras model that trains, and its weights back in the graph."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from qir.attributes import Port
from qir.backends.keras_model import Emitter, spec_of
from qir.backends.keras_operators import COMPUTED
from qir.encodings.encoding import FloatEncoding
from qir.errors import QirError
from qir.graph import Graph, Node
from qir.keras_signature import KerasSignature
from qir.weights import Weight


def emit_quantized_keras(graph: Graph) -> keras.Model:
    """A Functional model that computes a calibrated graph in float, rounding where it has quantizers.

    Every node is a layer; the weights are variables named by their paths, and train where the graph's do. The grids
    stay as they are. Raises QirError for an operator that is not written in `keras.ops`, and for one of Keras's own.
    """
    return _QuantizedEmitter(graph).run()


def trained_graph(graph: Graph, model: keras.Model) -> Graph:
    """A copy of the graph with the weights that the emitted model has now."""
    found = {variable.name: np.asarray(keras.ops.convert_to_numpy(variable.value)) for variable in model.weights}
    trained = graph.copy()
    for value in trained.weights():
        weight = value.weight
        if weight is not None and weight.paths and _name(weight) in found:
            value.weight = Weight(found[_name(weight)], weight.paths, trainable=weight.trainable)
    return trained


class _QuantizedEmitter(Emitter):
    """Makes a layer of every node of ONNX's vocabulary."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph)
        self.signature = _signature(graph)

    def call(self, node: Node) -> None:
        """Call the layer of a node."""
        if node.op == "Dropout":
            self.known[node.result] = self._dropout(node)
            return
        if node.op not in COMPUTED:
            raise QirError(f"{node.op} is not written in keras.ops", node, stage="emit",
                           help="train the torch simulator: quantized.simulator()")  # fmt: skip
        operands = [value for value in node.operands if value is not None]
        ports = iter(range(len(operands)))
        args = tuple(None if value is None else Port(next(ports)) for value in node.operands)
        attrs = _grid(node) if node.op == "qir.Quantize" else dict(node.attrs)
        outputs = self.function(f"keras.onnx.{node.op}", self.names[node], operands, (args, attrs), node.results)
        self.known.update(zip(node.results, keras.tree.flatten(outputs), strict=True))

    def _dropout(self, node: Node) -> Any:
        rate = node.operands[1].array if len(node.operands) > 1 else 0.5
        return keras.layers.Dropout(float(rate), name=self.names[node])(self.known[node.operands[0]])

    def held(self, weight: Weight) -> Any:
        """The weight itself: its data may be arranged otherwise than the framework's."""
        return weight

    def described(self, variable: Weight) -> dict[str, Any]:
        """How a layer makes a variable for the weight, or which has it."""
        if id(variable) in self.places:
            owner, index = self.places[id(variable)]
            return {"owner": owner, "index": index}
        array = variable.array
        return {"name": _name(variable), "shape": array.shape, "dtype": str(array.dtype), "initializer": "zeros",
                "trainable": variable.trainable and array.dtype.kind == "f"}  # fmt: skip


def _name(weight: Weight) -> str:
    """What the variable of a weight is called: its path, which torch wants without dots."""
    return weight.paths[0].replace(".", "-")


def _grid(node: Node) -> dict[str, Any]:
    """The grid of a quantizer, as arguments."""
    encoding = node.attr("encoding")
    rank = getattr(node.operands[0].type, "rank", None)
    if isinstance(encoding, FloatEncoding) or not encoding.calibrated or rank is None:
        raise QirError("this quantizer has no calibrated grid of integers", node, stage="emit",
                       help="calibrate the graph, with integer grids")  # fmt: skip
    scale, zero = encoding.broadcast(rank)
    return {"scale": np.asarray(scale, np.float32), "zero": np.asarray(zero, np.float32),
            "low": encoding.low, "high": encoding.high}  # fmt: skip


def _signature(graph: Graph) -> KerasSignature:
    """Inputs in a list, or one alone, with the names and types of the graph's."""
    described = []
    for value in graph.inputs:
        shape, dtype = spec_of(value)
        described.append({"batch_shape": (None, *shape[1:]), "dtype": dtype, "name": value.hint})
    ports = list(map(Port, range(len(described))))
    return KerasSignature(ports[0] if len(ports) == 1 else ports, described)
