"""The importer of Keras models."""

from __future__ import annotations

from typing import Any

import keras

from qir.attributes import Port
from qir.frontends.keras_calls import opaque, with_types
from qir.frontends.keras_inputs import inputs_of
from qir.frontends.keras_lowerings import KerasBuilder, call_of, public_function, type_of_tensor
from qir.frontends.keras_table import lowers
from qir.frontends.keras_trace import Call, Trace, is_keras_own, trace
from qir.frontends.keras_weights import KerasWeights
from qir.graph import Graph, Value
from qir.lowering import Unlowered, bound, tried


def import_keras(model: keras.Model) -> Graph:
    """The graph of a built Keras model, in ONNX's vocabulary; calls that nothing lowers are opaque."""
    return _Importer(trace(model, inputs_of(model), whole=_stays_whole), model.name, lowered=True).run()


def import_whole_layers(model: keras.Model) -> Graph:
    """The graph of a Keras model in which every call of one of Keras's layers or operations is one opaque node."""
    return _Importer(trace(model, inputs_of(model)), model.name, lowered=False).run()


def _stays_whole(layer: keras.Layer) -> bool:
    return is_keras_own(layer)


class _Importer:
    """Makes nodes of the calls of a trace."""

    def __init__(self, traced: Trace, name: str, lowered: bool) -> None:
        self.trace, self.lowered = traced, lowered
        self.graph = Graph(name)
        self.weights = KerasWeights(self.graph, traced.names)
        self.known: dict[int, Value] = {}

    def run(self) -> Graph:
        """The graph."""
        for tensor in keras.tree.flatten(self.trace.inputs):
            name = "input" if tensor.name.startswith("keras_tensor") else tensor.name
            self.known[id(tensor)] = self.graph.input(name, type_of_tensor(tensor))
        for call in self.trace.calls:
            self._call(call)
        flat = keras.tree.flatten(self.trace.outputs)
        self.graph.outputs = [self._value(tensor) for tensor in flat]
        ports = list(map(Port, range(len(flat))))
        structure = keras.tree.pack_sequence_as(self.trace.outputs, ports) if flat else None
        self.graph.structure = None if structure == Port(0) else structure
        self._erase_unread()
        return self.graph

    def _value(self, leaf: Any) -> Any:
        """What stands for a tensor of the trace; anything else is itself."""
        if isinstance(leaf, keras.KerasTensor):
            variable = self.trace.variables.get(id(leaf))
            return self.known[id(leaf)] if variable is None else self.weights.of(variable)
        return leaf

    def _call(self, call: Call) -> None:
        build = KerasBuilder(self.graph, self.weights.of)
        args, kwargs = keras.tree.map_structure(self._value, (call.args, call.kwargs))
        result = self._lowered(build, call, args, kwargs)
        if isinstance(result, Unlowered):
            result = opaque(build, call, args, kwargs, str(result))
        flat = keras.tree.flatten(result)
        for tensor, value in zip(keras.tree.flatten(call.outputs), flat, strict=True):
            self.known[id(tensor)] = with_types(value, tensor)
        for node in build.added:
            node.locs = (call.loc,) if str(call.loc) else ()
        if build.added and call.module:
            build.added[-1].module = call.module

    def _lowered(self, build: KerasBuilder, call: Call, args: Any, kwargs: Any) -> Any:
        if not self.lowered:
            return Unlowered("every call is to stay whole")
        if isinstance(call.operation, keras.Layer):
            lowering = lowers.of_layer(call.operation)
            kwargs = {name: value for name, value in kwargs.items() if value is not None}
            return tried(build, lowering and bound(lowering, call.operation), args, kwargs)
        function = public_function(type(call.operation))
        lowering = None if function is None else lowers.of_function(function)
        return tried(build, lowering, *call_of(call.operation, args, kwargs))

    def _erase_unread(self) -> None:
        """Leave out what no output depends on, such as masks that nothing asks for."""
        for call in reversed(self.trace.calls):
            for tensor in keras.tree.flatten(call.outputs):
                node = self.known[id(tensor)].node if id(tensor) in self.known else None
                if node is not None and not node.erased:
                    self.graph.erase_dead(node)
