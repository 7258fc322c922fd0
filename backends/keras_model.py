"""The Keras backend: a graph of whole calls as a flat Functional model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np

from qir.attributes import Port
from qir.backends.keras_layers import ChoiceLayer, FunctionLayer, Number, SharedLayer
from qir.errors import QirError
from qir.graph import Graph, Node, Value
from qir.keras_signature import KerasSignature
from qir.nests import map_nested
from qir.types import NUMPY, ScalarType, TensorType
from qir.weights import Weight


def emit_keras(graph: Graph) -> keras.Model:
    """A Functional model that computes `graph`, in which every node is a layer, called once.

    Layers of Keras and such as stay whole are copies of those of the model that the graph is of; they keep their names
    where no other has the same. Further calls of a layer are layers that share its weights. Variables are copies.
    Raises QirError for a node that is no call of Keras, and for a layer whose configuration does not make it again.
    """
    return Emitter(graph).run()


_DTYPES = {name: str(dtype) for name, dtype in NUMPY.items() if name != "str"} | {
    "f8e4m3fn": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
    "str": "string",
}


class Emitter:
    """Makes a layer of every node of a graph of whole calls."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.nodes = graph, graph.nodes()
        self.known: dict[Value, Any] = {}
        self.copies: dict[int, keras.Layer] = {}
        """The new layer for each layer of the model, by identity."""
        self.places: dict[int, tuple[keras.Layer, int]] = {}
        """The new layer, and number among its variables, of each variable of the model, by identity."""
        self.sources: list[tuple[keras.Layer, int, Any]] = []
        self.names = _names(self.nodes)
        self.signature: KerasSignature = graph.signature

    def run(self) -> keras.Model:
        """The model."""
        for value, keywords in zip(self.graph.inputs, self.signature.inputs, strict=True):
            self.known[value] = keras.Input(**keywords)
        for node in self.nodes:
            if isinstance(node.host, keras.Layer):
                self._copy(node)
        for node in self.nodes:
            self.call(node)
        inputs = map_nested(self.signature.structure, lambda port: self.known[self.graph.inputs[port.index]])
        arrangement = Port(0) if self.graph.structure is None else self.graph.structure
        outputs = map_nested(arrangement, lambda port: self.known[self.graph.outputs[port.index]])
        model = keras.Model(inputs, outputs, name=self.graph.name)
        for layer, index, data in self.sources:
            array = keras.ops.convert_to_numpy(data.value) if isinstance(data, keras.Variable) else data.array
            layer.variables[index].assign(np.array(array))  # a copy: jax deletes the memory of what it trains
        return model

    def _copy(self, node: Node) -> None:
        """Make the layer again that a node calls, unless it is there."""
        host = node.host
        if id(host) in self.copies:
            return
        try:
            copy = type(host).from_config({**host.get_config(), "name": self.names[node]})
            if not copy.built and (build := host.get_build_config()) is not None:
                copy.build_from_config(build)
        except Exception as error:  # whatever the layer's own class raises
            raise QirError(f"the layer {node.module} can not be made again from its configuration: {error}", node,
                           help=f"give {type(host).__name__} a get_config that returns the arguments of __init__"
                           ) from error  # fmt: skip
        self.copies[id(host)] = copy
        for index, variable in enumerate(host.variables):
            self.places[id(variable)] = copy, index
            self.sources.append((copy, index, variable))

    def call(self, node: Node) -> None:
        """Call the layer of a node."""
        if all(isinstance(result.type, ScalarType) for result in node.results):
            return  # a number, computed by the layers that read it
        if isinstance(node.host, keras.Layer):
            args, kwargs = map_nested(_arguments(node), partial(self._filled, node))
            layer, mode = self.copies[id(node.host)], kwargs.pop("training", None)
            if self.names[node] != layer.name or mode is not None:
                layer = SharedLayer(layer, mode, name=self.names[node])
            outputs = layer(*args, **kwargs)
        else:
            outputs = self.function(node.op, self.names[node], node.operands, _arguments(node), node.results)
        self.known.update(zip(node.results, keras.tree.flatten(outputs), strict=True))

    def _filled(self, node: Node, part: Any) -> Any:
        if not isinstance(part, Port):
            return part
        value = node.operands[part.index]
        if value not in self.known:
            name = f"module_{value.hint}_{len(self.known)}"
            self.known[value] = self.function("keras.ops.convert_to_tensor", name, [value], ((Port(0),), {}), [value])
        return self.known[value]

    def function(
        self, op: str, name: str, operands: Sequence[Value], arguments: tuple[Any, Any], results: Sequence[Value]
    ) -> Any:
        """The results of a function of Keras as a layer; one that reads no tensor has the model's first input."""
        home, _, function = op.partition(".")
        if home != "keras":
            raise QirError(f"{op} is no call of Keras", stage="emit", help="emit a graph of whole calls")
        tensors = [value for value in operands if value.weight is None and not isinstance(value.type, ScalarType)]
        tensors = list(dict.fromkeys([*tensors, *(of for value in operands for of in _measured(value))]))
        tensors = tensors or self.graph.inputs[:1]
        held = {value: self.held(value.weight) for value in operands if value.weight and value.weight.paths}
        place = {value: Port(number) for number, value in enumerate([*tensors, *held])}

        def moved(part: Any) -> Any:
            return _operand(operands[part.index], place) if isinstance(part, Port) else part

        weights = list(map(self.described, held.values()))
        if function == "ops.TrainingChoice":
            return ChoiceLayer(name=name)([self.known[value] for value in tensors])
        args, kwargs = map_nested(arguments, moved)
        known = all(isinstance(value.type, TensorType) and value.type.shape is not None for value in results)
        layer = FunctionLayer(function, args, kwargs, weights, list(map(spec_of, results)) if known else (), name=name)
        layer.build()
        for index, variable in enumerate(each for each in held.values() if id(each) not in self.places):
            self.sources.append((layer, index, variable))
        self.places.update((id(variable), (owner, index)) for owner, index, variable in self.sources)
        inputs = [self.known[value] for value in tensors]
        return layer(inputs[0] if len(inputs) == 1 else inputs)

    def held(self, weight: Weight) -> Any:
        """The object that a weight is, whichever values refer to it."""
        return weight.data

    def described(self, variable: Any) -> dict[str, Any]:
        """How a layer makes a weight: new, or as a variable of the layer that has it."""
        if id(variable) in self.places:
            owner, index = self.places[id(variable)]
            return {"owner": owner, "index": index}
        return {
            "name": variable.name, "shape": tuple(variable.shape), "dtype": variable.dtype,
            "initializer": "zeros", "trainable": variable.trainable, "regularizer": variable.regularizer,
            "constraint": variable.constraint,
        }  # fmt: skip


def _arguments(node: Node) -> tuple[Any, Any]:
    return node.attrs.get("args", ()), node.attrs.get("kwargs", {})


def spec_of(value: Value) -> tuple[tuple[int | None, ...], str]:
    """Shape and dtype of a value as Keras has them."""
    assert isinstance(value.type, TensorType)
    shape = tuple(size if isinstance(size, int) else None for size in value.type.shape or ())
    return shape, "float32" if value.type.dtype is None else _DTYPES[value.type.dtype]


def _measured(value: Value) -> list[Value]:
    """The tensors whose sizes a number is computed from."""
    if value.node is None or not isinstance(value.type, ScalarType):
        return []
    if value.node.op == "qir.AxisSize":
        return value.node.operands
    return [tensor for operand in value.node.operands for tensor in _measured(operand)]


def _operand(value: Value, place: Mapping[Value, Port]) -> Any:
    """What stands for a value in the arguments of a layer."""
    if value in place:
        return place[value]
    if value.node is not None:
        operands = tuple(_operand(each, place) for each in value.node.operands)
        return Number(value.node.op, (*operands, *value.node.attrs.values()))
    return value.literal if isinstance(value.type, ScalarType) else value.array


def _names(nodes: list[Node]) -> dict[Node, str]:
    """A name for the layer of each node: its own where it is the only one of that name, else with those around it."""
    paths = {node: node.module or node.result.hint for node in nodes}
    own = {node: path.rpartition(".")[2] for node, path in paths.items()}
    count = Counter(own.values())
    names = {node: own[node] if count[own[node]] == 1 else path.replace(".", "_") for node, path in paths.items()}
    taken: set[str] = set()
    for node, name in names.items():
        number, wanted = 0, name
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        names[node] = name
    return names
