"""The importers of Keras models: into ONNX's vocabulary, or into calls of Keras that stay whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras

from qir.attributes import Port
from qir.facts import computes
from qir.frontends.keras_calls import opaque, typed
from qir.frontends.keras_inputs import Inputs, described_input, inputs_of
from qir.frontends.keras_lowerings import KerasBuilder, call_of, public_function, type_of_tensor
from qir.frontends.keras_sizes import Size, value_of
from qir.frontends.keras_table import lowers
from qir.frontends.keras_trace import Call, Trace, Whole, indices_among, is_keras_own, opened, trace
from qir.frontends.keras_training import joined
from qir.frontends.keras_weights import KerasWeights
from qir.graph import Graph, Node, Value
from qir.keras_signature import KerasSignature
from qir.lowering import Unlowered, bound, tried


def import_keras(model: keras.Model, input_layer: Any = None) -> Graph:
    """The graph of a Keras model in inference, in ONNX's vocabulary.

    A layer that nothing lowers is the operations that its own code calls; what nothing lowers then is opaque.
    `input_layer` is a `keras.Input`, or a list or dict of them, for a model that was never called.
    """
    graph = _Lowering(_traced(model, input_layer)[1], model.name).run()
    graph.signature = None
    return graph


def import_whole_calls(model: keras.Model, input_layer: Any = None, whole: Whole = is_keras_own) -> Graph:
    """The graph of a Keras model in which every call of one of Keras's layers or operations is one opaque node.

    So are calls of the layers of which `whole` is true. Where the model does something else in training, both are in
    the graph.
    """
    inputs, inference = _traced(model, input_layer, whole)
    training = trace(model, inputs, whole, training=True, names=inference.names)
    graph = _Importer(joined(inference, training), model.name).run()
    graph.signature = replace(graph.signature, spread=inputs.spread)
    return graph


def _traced(model: keras.Model, input_layer: Any, whole: Whole = is_keras_own) -> tuple[Inputs, Trace]:
    """The model's inputs, and what it does with them in inference; inputs of unknown dtype that only index are i32."""
    inputs = inputs_of(model, input_layer)
    traced = trace(model, inputs, whole)
    if inputs.guessed and (found := indices_among(traced)):
        inputs = inputs.with_indices(found)
        traced = trace(model, inputs, whole, names=traced.names)
    return inputs, traced


class _Importer:
    """Makes an opaque node of each call of a trace."""

    def __init__(self, traced: Trace, name: str) -> None:
        self.trace = traced
        self.graph = Graph(name)
        self.weights = KerasWeights(self.graph, traced.names)
        self.known: dict[int, Any] = {}
        self.held = dict(traced.held)
        self.kept: list[Any] = [traced]
        """Kept alive, as tensors are known by identity."""

    def run(self) -> Graph:
        """The graph."""
        described = [described_input(tensor, number) for number, tensor in enumerate(_flat(self.trace.inputs))]
        for tensor, keywords in zip(_flat(self.trace.inputs), described, strict=True):
            self.known[id(tensor)] = self.graph.input(keywords["name"], type_of_tensor(tensor))
        self.graph.signature = KerasSignature(_ports_of(self.trace.inputs), described)
        for call in self.trace.calls:
            self.add(call)
        self.graph.outputs = [self.value(tensor) for tensor in keras.tree.flatten(self.trace.outputs)]
        structure = _ports_of(self.trace.outputs)
        self.graph.structure = None if structure == Port(0) else structure
        self._erase_unread()
        self.weights.settle()
        return self.graph

    def add(self, call: Call) -> None:
        """Add the nodes of a call."""
        build = self.builder()
        values = opaque(build, call, *self._arguments(call), "it is to stay whole")
        self.place(call, build.added)
        self.note(call, _flat(values))

    def builder(self) -> KerasBuilder:
        """What nodes are built with."""
        return KerasBuilder(self.graph, self.weights.of)

    def place(self, call: Call, added: list[Node]) -> None:
        """Say where the user wrote the call that the nodes are of, and which of them is the layer."""
        for node in added:
            node.locs = (call.loc,) if str(call.loc) else ()
        if call.module and (main := _main(added)) is not None:
            main.module = call.module

    def note(self, call: Call, values: list[Any]) -> None:
        """From here on, these are the values of the call's tensors."""
        self.known.update((id(tensor), value) for tensor, value in zip(_flat(call.outputs), values, strict=True))

    def _arguments(self, call: Call) -> tuple[Any, Any]:
        """The arguments of a layer but those that are None, or of the function that makes the operation."""
        given: Any = call.args, {name: part for name, part in call.kwargs.items() if part is not None}
        if not isinstance(call.operation, keras.Layer):
            given = call_of(call.operation, call.args, call.kwargs)
        args, kwargs = keras.tree.map_structure(self.value, given)
        return args, kwargs

    def value(self, leaf: Any) -> Any:
        """What stands for a tensor of the trace; anything else is itself."""
        if isinstance(leaf, slice):
            return slice(*map(self.value, (leaf.start, leaf.stop, leaf.step)))
        if id(leaf) in self.known or not isinstance(leaf, keras.KerasTensor):
            return self.known.get(id(leaf), leaf)
        if isinstance(leaf, Size):
            self.known[id(leaf)] = value_of(leaf, self.builder(), self.value)
            return self.known[id(leaf)]
        return self.weights.of(self.held[id(leaf)])

    def _erase_unread(self) -> None:
        """Leave out what no output depends on, such as masks that nothing asks for."""
        for value in reversed(list(self.known.values())):
            node = value.node if isinstance(value, Value) and value in self.graph.nx else None
            if node is not None and not node.erased:
                self.graph.erase_dead(node)


class _Lowering(_Importer):
    """Makes nodes of ONNX's vocabulary of each call of a trace."""

    def add(self, call: Call) -> None:
        """Add the nodes of a call; of those that it makes, where nothing lowers it."""
        build = self.builder()
        args, kwargs = self._arguments(call)
        if kwargs.get("training") is False:
            kwargs = {name: part for name, part in kwargs.items() if name != "training"}
        result = self._lowered(build, call, args, kwargs)
        if isinstance(result, Unlowered) and self._opened(call):
            return
        if isinstance(result, Unlowered):
            result = opaque(build, call, args, kwargs, str(result))
        values = [typed(build, value, tensor) for value, tensor in zip(_flat(result), _flat(call.outputs), strict=True)]
        self.place(call, build.added)
        self.note(call, values)

    def _lowered(self, build: KerasBuilder, call: Call, args: Any, kwargs: Any) -> Any:
        if isinstance(call.operation, keras.Layer):
            lowering = lowers.of_layer(call.operation)
            return tried(build, lowering and bound(lowering, call.operation), args, kwargs)
        function = public_function(type(call.operation))
        return tried(build, None if function is None else lowers.of_function(function), args, kwargs)

    def _opened(self, call: Call) -> bool:
        """Add the calls that a layer or operation makes, in its place. Returns whether its code can be followed."""
        try:
            inner = opened(call, self.trace.names)
        except Exception:  # Keras's own code computes with its backend's tensors there
            return False
        if not isinstance(call.operation, keras.Layer) and any(
            type(each.operation) is type(call.operation) for each in inner.calls
        ):
            return False
        self.kept.append(inner)
        self.held.update(inner.held)
        for each in inner.calls:
            self.add(each)
        self.note(call, [self.value(tensor) for tensor in _flat(inner.outputs)])
        return True


def _flat(nest: Any) -> list[Any]:
    found: list[Any] = keras.tree.flatten(nest)
    return found


def _ports_of(nest: Any) -> Any:
    """The nest with the number of each tensor in its place."""
    return keras.tree.pack_sequence_as(nest, list(map(Port, range(len(_flat(nest))))))


def _main(added: list[Node]) -> Node | None:
    """Which node is the layer itself: the first that computes with its weights, else the last that computes."""
    computing = [node for node in added if computes(node)]
    weighted = [node for node in computing if any(v is not None and v.weight and v.weight.paths for v in node.operands)]
    return next(iter(weighted or reversed(computing)), added[-1] if added else None)
