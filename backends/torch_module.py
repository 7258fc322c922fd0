"""The torch backend: a graph as an `fx.GraphModule` of real, named layers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from qir.attributes import Port, Symbol, TrainingMode
from qir.backends import (  # noqa: F401  (they fill the table)
    torch_composed,
    torch_elementwise,
    torch_functions,
    torch_indexing,
    torch_integer,
    torch_layers,
    torch_movement,
    torch_products,
    torch_reductions,
    torch_sizes,
    torch_transformer,
    torch_windows,
)
from qir.backends.torch_calls import opaque_call
from qir.backends.torch_emissions import Emission
from qir.backends.torch_inputs import emit_inputs
from qir.backends.torch_modules import Call, Constant, InferenceOnly
from qir.backends.torch_named import framework_object
from qir.backends.torch_onnx import emission_of, has_emission
from qir.backends.torch_onnx_arrays import to_numpy, to_torch
from qir.backends.torch_parts import (
    as_tensor,
    identifier,
    method_name,
    put,
    same_kind,
)
from qir.backends.torch_places import attribute, weight_places
from qir.backends.torch_quantizers import Quantizer, share_grids
from qir.errors import QirError
from qir.evaluate import Runner
from qir.facts import FUNCTIONALS_LIFTED, MODULES_UNROLLED, is_quantizer
from qir.graph import Graph, Node, Value
from qir.nests import map_nested
from qir.order import weights_in
from qir.paths import Paths
from qir.text.printing import value_names
from qir.types import ScalarType


def emit_torch(graph: Graph, *, share: bool = False) -> fx.GraphModule:
    """A module that computes `graph`: a layer for every computation, at its module path, in evaluation mode.

    Parameters and buffers have the paths of the weights, tied ones stay tied. They are copies unless `share`.
    Raises QirError when a functional call has no layer (run `lift-functionals`), when a layer is called twice (run
    `unroll-modules`), or when operators have no torch emission, listing all of them.
    """
    for fact in (FUNCTIONALS_LIFTED, MODULES_UNROLLED):
        for node in fact.check(graph):
            raise QirError("the torch backend needs a layer of its own for this call", node,
                           help=f"run the pass that gives {fact.name!r}")  # fmt: skip
    nodes = graph.nodes()
    _check_emittable(nodes)
    return _Emitter(graph, nodes, share).run()


def executor(graph: Graph) -> Runner:
    """Runs the graph in torch, on the CPU: from numpy arrays to numpy arrays."""
    module = emit_flat(graph)

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            return [to_numpy(result) for result in module(*map(to_torch, inputs))]

    return run


def emit_flat(graph: Graph) -> fx.GraphModule:
    """`emit_torch`, sharing the weights, of a module from the graph's inputs one by one to a tuple of its outputs."""
    flat = graph.copy()
    flat.signature, flat.structure = None, tuple(map(Port, range(len(flat.outputs))))
    return emit_torch(flat, share=True)


def _check_emittable(nodes: Sequence[Node]) -> None:
    missing = [node for node in nodes if not node.op.startswith("torch.") and not has_emission(node)]
    if missing:
        kinds = sorted({node.op for node in missing})
        raise QirError(
            f"{len(kinds)} operators have no torch emission", missing[0], stage="emit torch", snippet="\n".join(kinds)
        )


class _Emitter:
    """Walks the nodes in order and builds the fx graph and the tree of layers."""

    def __init__(self, graph: Graph, nodes: list[Node], share: bool) -> None:
        self.graph = graph
        self.nodes = nodes
        self.share = share
        self.root = nn.Module()
        self.modules: dict[str, nn.Module] = {"": self.root}
        self.weights = [value for value in weights_in(graph, nodes) if value.weight and value.weight.paths]
        self.places = weight_places(nodes, self.weights)
        self.named = {self.places[p]: value for value in self.weights if value.weight for p in value.weight.paths}
        self.fx = fx.Graph()
        self.known: dict[Value, Any] = {}
        self.tensors: dict[Value, torch.Tensor] = {}
        self.unread: set[str] = set()
        self.opaque: dict[nn.Module, tuple[str, nn.Module]] = {}
        self.names = value_names(graph, nodes=nodes)
        self.constants = 0

    def run(self) -> fx.GraphModule:
        """The module."""
        self.known.update(emit_inputs(self.graph, self.fx))
        if self.graph.inference_only:
            path = Paths(self.graph).new("", "inference_only")
            self._set_module(path, InferenceOnly())
            self.fx.call_module(path, (self.graph.inference_only,))
        emissions = [(node, self._emission(node)) for node in self.nodes]
        share_grids((n.attrs["encoding"], e.target) for n, e in emissions if isinstance(e.target, Quantizer))
        for node, emission in sorted(emissions, key=lambda pair: len(pair[0].module or "")):
            self._attach(node, emission)
        self._name_weights()
        for node, emission in emissions:
            self._call(node, emission)
        for path in sorted(self.unread):  # an fx module keeps only what its code reads
            self.fx.get_attr(path)
        self.fx.output(self._arranged(self.graph.structure))
        module = fx.GraphModule(self.root, self.fx, identifier(self.graph.name))
        return module.eval()

    # -- layers ------------------------------------------------------------------------------------------------------

    def _emission(self, node: Node) -> Emission:
        emission = emission_of(node, emit_torch) or opaque_call(node)
        if isinstance(node.host, nn.Module) and emission.target is node.host:
            return Emission(self._opaque_layer(node), emission.args, emission.kwargs)
        if isinstance(emission.target, nn.Module) or node.module is None:
            return emission
        training = next((name for name, value in emission.kwargs.items() if isinstance(value, TrainingMode)), None)
        kwargs = {name: value for name, value in emission.kwargs.items() if name != training}
        layer = Call(emission.target, node.op.rpartition(".")[2], training)
        return Emission(layer, emission.args, kwargs, emission.owns)

    def _opaque_layer(self, node: Node) -> nn.Module:
        """A copy of the framework's own layer that holds this module's tensors: one for all of its calls."""
        if node.host not in self.opaque:
            known = {id(value.weight.data): self._tensor(value) for value in self.weights if value.weight}
            computed = [
                tensor
                for module in node.host.modules()
                for tensor in vars(module).values()
                if isinstance(tensor, torch.Tensor) and not tensor.is_leaf
            ]  # torch.nn.utils.weight_norm keeps one
            known |= {id(tensor): tensor.detach().clone() for tensor in computed}
            self.opaque[node.host] = self._path(node), deepcopy(node.host, known)
        return self.opaque[node.host][1]

    def _attach(self, node: Node, emission: Emission) -> None:
        """Put a layer at its path and its weights into it."""
        if not isinstance(emission.target, nn.Module):
            return
        path, layer = self._path(node), emission.target
        named = {name: self.named.get(f"{path}.{name}") for name in layer._buffers if name not in emission.owns}
        # An integer layer's own weight may stand where the model has one that another layer reads, too.
        unread = {name: value for name, value in named.items() if value is not None and not value.uses}
        for name, value in {**unread, **emission.owns}.items():
            if value is not None:
                part, _, own = name.rpartition(".")
                persistent = value.weight is None or value.weight.persistent
                put(layer.get_submodule(part), own, self._tensor(value), persistent)
        self._set_module(path, layer)

    def _path(self, node: Node) -> str:
        """Where the layer goes; a quantizer goes beside the layer whose tensor it rounds."""
        if not is_quantizer(node):
            if node.module is None:
                raise QirError("this call needs a layer", node, help="run lift-functionals")
            return self.opaque[node.host][0] if node.host in self.opaque else attribute(node.module)
        return f"{identifier(self.names[node.result])}_quantizer" if node.module is None else attribute(node.module)

    def _set_module(self, path: str, module: nn.Module) -> None:
        if (existing := self._module(path)) is not None:
            for child, inner in existing.named_children():
                module.add_module(child, inner)
        parent, _, name = path.rpartition(".")
        self._container(parent).add_module(name, module)
        self.modules[path] = module

    def _module(self, path: str) -> nn.Module | None:
        """The module at a path, if there is one."""
        if path not in self.modules:
            parent, _, name = path.rpartition(".")
            owner = self._module(parent)
            found = None if owner is None else owner._modules.get(name)
            if found is None:
                return None
            self.modules[path] = found
        return self.modules[path]

    def _container(self, path: str) -> nn.Module:
        """The module at a path, made if there is none."""
        if (found := self._module(path)) is None:
            found = nn.Module()
            self._set_module(path, found)
        return found

    # -- weights -----------------------------------------------------------------------------------------------------

    def _tensor(self, value: Value) -> Any:
        """The one tensor of a weight."""
        if value not in self.tensors:
            self.tensors[value] = as_tensor(value, self.share)
        return self.tensors[value]

    def _weight(self, value: Value) -> Any:
        """What stands for a weight in a call: a number, or a read of the module's attribute."""
        weight = value.weight
        assert weight is not None
        if isinstance(value.type, ScalarType):
            return weight.data
        if value not in self.known:
            path = self.places[weight.paths[0]] if weight.paths else f"_constant_{self.constants}"
            self.constants += not weight.paths
            if weight.paths and (weight.persistent or self._has(path)):
                self.known[value] = self.fx.get_attr(path)
                self.unread.discard(path)
            else:  # what an fx module reads of its own goes into its state; a layer's may be left out
                self._set_module(path, Constant(self._tensor(value)))
                self.known[value] = self.fx.call_module(path)
        return self.known[value]

    def _has(self, path: str) -> bool:
        parent, _, name = path.rpartition(".")
        owner = self._module(parent)
        return owner is not None and (name in owner._parameters or name in owner._buffers or name in vars(owner))

    def _name_weights(self) -> None:
        """Give the module every name of a weight of its state that no layer owns."""
        for path, value in self.named.items():
            if value.weight is not None and value.weight.persistent and not self._has(path):
                parent, _, name = path.rpartition(".")
                put(self._container(parent), name, self._tensor(value), True)
                self.unread.add(path)

    # -- calls -------------------------------------------------------------------------------------------------------

    def _call(self, node: Node, emission: Emission) -> None:
        args, kwargs = self._resolve(emission.args), self._resolve(emission.kwargs)
        name = identifier(self.names[node.result])
        if isinstance(emission.target, nn.Module):
            made = self.fx.create_node("call_module", self._path(node), args, kwargs, name)
        elif (method := method_name(emission.target)) is not None:  # written as x.size(), which survives pickling
            made = self.fx.create_node("call_method", method, args, kwargs, name)
        else:
            made = self.fx.create_node("call_function", emission.target, args, kwargs, name)
        if node.loc is not None:
            made.meta["source"] = str(node.loc)
        several = len(node.results) > 1
        places = emission.places or [(port,) if several else () for port in range(len(node.results))]
        for value, place in zip(node.results, places, strict=True):
            self.known[value] = made
            for port in place:
                self.known[value] = self.fx.call_function(operator.getitem, (self.known[value], port))

    def _resolve(self, argument: Any) -> Any:
        return map_nested(argument, self._leaf)

    def _leaf(self, part: Any) -> Any:
        if isinstance(part, Value):
            return self.known[part] if part in self.known else self._weight(part)
        return framework_object(part.name) if isinstance(part, Symbol) else part

    def _arranged(self, structure: Any) -> Any:
        outputs = [self._resolve(value) for value in self.graph.outputs]
        if structure is None:
            return outputs[0] if len(outputs) == 1 else tuple(outputs)

        def arrange(part: Any) -> Any:
            match part:
                case Port(index):
                    return outputs[index]
                case dict() if type(part) is not dict:
                    items = {key: arrange(item) for key, item in part.items()}
                    named = all(isinstance(key, str) and key.isidentifier() for key in items)
                    return self.fx.call_function(type(part), () if named else (items,), items if named else {})
                case dict():
                    return {key: arrange(item) for key, item in part.items()}
                case tuple() if hasattr(part, "n_fields"):  # torch.return_types
                    return self.fx.call_function(type(part), (tuple(map(arrange, part)),))
                case tuple() | list():
                    return same_kind(part, map(arrange, part))
            return part

        return arrange(structure)
