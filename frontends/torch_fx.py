"""The torch frontend: a module, traced symbolically by `torch.fx`, as a graph."""

from __future__ import annotations

import operator
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.fx.immutable_collections import immutable_dict

from qir.attributes import TRAINING, Port
from qir.errors import Loc, QirError
from qir.frontends.torch_bodies import with_bodies
from qir.frontends.torch_calls import (
    CHECKS,
    SPECIAL,
    follows_training,
    full_name,
    function_of,
    is_in_place,
    is_special,
    lowering_of_layer,
    main_node,
    mark_order,
    opaque,
    same_kind,
    views,
    with_training_flag,
)
from qir.frontends.torch_examples import ExampleTypes
from qir.frontends.torch_lowerings import Builder, Unlowered
from qir.frontends.torch_names import CallNames
from qir.frontends.torch_signature import checked_constant, traced_signature, without_fixed
from qir.frontends.torch_sizes import shape_access
from qir.frontends.torch_table import lowers, tried
from qir.frontends.torch_trace import (
    WITHOUT_GRADIENT,
    Trace,
    nothing_whole,
    number_of_arguments,
    trace,
    users_line,
)
from qir.frontends.torch_training import TrainingFlag, flag_by_name
from qir.frontends.torch_weights import Weights
from qir.graph import Graph, Node, Value
from qir.torch_signature import Fixed, TorchSignature
from qir.types import ScalarType


def import_torch(
    model: nn.Module,
    example_inputs: Sequence[Any] | None = None,
    *,
    batch: str | None = "batch",
    whole: Callable[[nn.Module], bool] = nothing_whole,
    concrete: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph of `model`, weights by reference, one node for every call of a layer or function.

    `example_inputs` (positional arguments) give the inputs their types, axis 0 becoming the symbol `batch` where all
    of them agree on its size; without them types stay unknown. Arguments of forward that have a default and no example
    keep the default; `concrete` fixes others by name. Modules of which `whole` is true stay opaque. The model is not
    changed. A call that nothing lowers becomes an opaque node. Raises QirError when the model can not be traced,
    pointing at the user's line.
    """
    given = None if example_inputs is None else len(example_inputs)
    traced = trace(model, given, whole, concrete)
    examples = None if example_inputs is None else without_fixed(model.forward, example_inputs, concrete or {})
    return _Importer(model, traced, ExampleTypes(traced, examples, batch), whole).run()


@dataclass
class _Importer:
    """Walks one fx graph and builds ours."""

    model: nn.Module
    traced: Trace
    types: ExampleTypes
    whole: Callable[[nn.Module], bool]
    weights: Weights = field(init=False)
    names: CallNames = field(init=False)
    graph: Graph = field(default_factory=Graph)
    known: dict[fx.Node, Any] = field(default_factory=dict)
    held: defaultdict[Value, list[fx.Node]] = field(default_factory=lambda: defaultdict(list))
    in_order: list[Node] = field(default_factory=list)
    position: dict[fx.Node, int] = field(default_factory=dict)
    layers: set[str] = field(default_factory=set)
    constants: dict[fx.Node, Fixed] = field(default_factory=dict)

    def run(self) -> Graph:
        """The graph."""
        self.graph.inference_only = self.traced.inference_only
        self.graph.name = re.sub(r"\W", "", type(self.model).__name__) or "main"
        self.weights = Weights.of_module(self.graph, self.model)
        self.position = {node: number for number, node in enumerate(self.traced.graph.nodes)}
        self.names = CallNames([node.name for node in self.traced.graph.nodes if node.op == "placeholder"])
        self.layers = {str(node.target) for node in self.traced.graph.nodes if node.op == "call_module"}
        for node in self.traced.graph.nodes:
            self._step(node)
        self.graph.signature = self._signature()
        self.weights.add_unread()
        for node in reversed(self.in_order):
            if not node.erased and all(isinstance(result.type, ScalarType) for result in node.results):
                self.graph.erase_dead(node)
        mark_order(self.in_order)
        self.names.give()
        return self.graph

    # -- one fx node -------------------------------------------------------------------------------------------------

    def _step(self, node: fx.Node) -> None:
        match node.op:
            case "placeholder":
                self._input(node)
            case "get_attr":
                self.known[node] = self._attribute(str(node.target))
            case "output":
                self._output(node.args[0])
            case "call_module":
                self._call_layer(node)
            case _:
                self._call(node)
        self.types.tell(node, self.known.get(node))
        if node.meta.get(WITHOUT_GRADIENT) and not all(user.meta.get(WITHOUT_GRADIENT) for user in node.users):
            self.known[node] = self._detached(node, self.known[node])
        if isinstance(result := self.known.get(node), Value):
            self.held[result].append(node)

    def _signature(self) -> TorchSignature | None:
        if not isinstance(self.model, fx.GraphModule):
            return traced_signature(self.model.forward, self.traced.fixed, len(self.graph.inputs))
        ports = map(Port, range(len(self.graph.inputs)))
        arguments = [node for node in self.traced.graph.nodes if node.op == "placeholder"]
        leaves = (self.constants.get(node) or next(ports) for node in arguments if not node.args or node.users)
        return TorchSignature(tuple(leaves)) if self.constants else None

    def _input(self, node: fx.Node) -> None:
        if node.args and not node.users:
            return
        if (constant := checked_constant(node)) is not None:
            self.constants[node] = constant
            return
        name = str(node.target).lstrip("*")
        if name == node.target:
            self.known[node] = self.graph.input(name, self.types.of_input(len(self.graph.inputs)))
            return
        given = None if self.types.inputs is None else len(self.types.inputs) - len(self.graph.inputs)
        self.known[node] = [
            self.graph.input(f"{name}_{number}", self.types.of_input(len(self.graph.inputs)))
            for number in range(number_of_arguments(node, given))
        ]

    def _attribute(self, path: str) -> Any:
        found = self.traced.attribute(path)
        return self.weights.of(found) if isinstance(found, torch.Tensor) else found

    def _output(self, returned: Any) -> None:
        def arrange(part: Any) -> Any:
            if isinstance(part, fx.Node):
                part = self.known[part]
            if isinstance(part, torch.Tensor):
                part = self.weights.of(part)
            match part:
                case Value():
                    self.graph.outputs.append(part)
                    return Port(len(self.graph.outputs) - 1)
                case tuple() | list():
                    return same_kind(part, map(arrange, part))
                case dict():
                    items = {key: arrange(item) for key, item in part.items()}
                    return items if type(part) in (dict, immutable_dict) else type(part)(items)
                case None | bool() | str() | int() | float():
                    return part
            raise QirError(f"the model returns a {type(part).__name__}, which a graph can not", stage="import")

        structure = arrange(returned)
        self.graph.structure = None if structure == Port(0) else structure

    def _arguments(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def resolve(argument: Any) -> Any:
            match argument:
                case fx.Node():
                    return self.known[argument]
                case TrainingFlag():
                    return TRAINING
                case tuple() | list():
                    return same_kind(argument, map(resolve, argument))
                case dict():
                    return {key: resolve(item) for key, item in argument.items()}
                case slice():
                    return slice(*map(resolve, (argument.start, argument.stop, argument.step)))
            return argument

        return tuple(map(resolve, node.args)), {key: resolve(item) for key, item in node.kwargs.items()}

    def _call(self, node: fx.Node) -> None:
        if not node.users and getattr(node.target, "__name__", "").startswith(CHECKS):
            return
        args, kwargs = self._arguments(node)
        if node.target is operator.getitem and isinstance(args[0], list | tuple):
            self.known[node] = args[0][args[1]]
            return
        build = Builder(self.graph, self.weights.of)
        if (shape := shape_access(build, node.target, args)) is not None:
            self._place(build.added, node, self._scope(node))
            self.names.add_traced(node, build.added)
            self.known[node] = shape
            return
        if isinstance(node.target, type) and issubclass(node.target, dict):
            self.known[node] = node.target(*args)
            return
        lowering = lowers.of_method(str(node.target)) if node.op == "call_method" else lowers.of_function(node.target)
        name = f"Tensor.{node.target}" if node.op == "call_method" else full_name(node.target)
        norm = self.model.get_submodule(self._scope(node)) if node.target is F.batch_norm else None
        if follows_training(norm):
            args, kwargs = with_training_flag(*args, **kwargs)
        result = tried(build, lowering, args, kwargs)
        if isinstance(result, Unlowered):
            host = None if node.op == "call_method" else node.target
            result = opaque(build, name, *flag_by_name(host, args, kwargs), host, str(result))
        elif follows_training(norm):
            build.added[-1].module, build.added[-1].host = self._scope(node), norm
        self._place(build.added, node, self._scope(node))
        self.names.add_traced(node, build.added)
        self.known[node] = result
        if is_in_place(node):
            self._overwrite(node, args[0] if args else kwargs.get("input"), result)

    def _detached(self, node: fx.Node, result: Any) -> Any:
        """What a call made under torch.no_grad passes on to calls that are not."""
        if not isinstance(result, Value) or isinstance(result.type, ScalarType):
            return result
        build = Builder(self.graph, self.weights.of)
        detached = opaque(build, "Tensor.detach", [result], {}, None, "no gradient passes here")
        detached.type = result.type
        self._place(build.added, node, self._scope(node))
        return detached

    # -- layers ------------------------------------------------------------------------------------------------------

    def _call_layer(self, node: fx.Node) -> None:
        path = str(node.target)
        layer = self.traced.root.get_submodule(path)
        args, kwargs = self._arguments(node)
        build = Builder(self.graph, self.weights.of)
        result: Any = build("qir.InTraining", *args) if path in self.traced.regularizers else None
        result = (
            result
            or with_bodies(build, layer, args, import_torch)
            or self._kept_whole(layer)
            or tried(build, lowering_of_layer(layer), args, kwargs)
        )
        if isinstance(result, Unlowered):
            if not path:
                raise QirError(f"the model is a layer that is not lowered: {result}", stage="import")
            function, _ = function_of(layer)
            name = full_name(function) if function else f"torch.nn.{type(layer).__name__}"
            result = opaque(build, name, args, kwargs, layer, str(result))
        main = main_node(build.added, path)
        self._place([added for added in build.added if added is not main], node, path)
        if main is not None:
            self._place([main], node, self._scope(node))
            self.names.add(main, node.name)
            main.module, main.host = path or None, layer
        self.known[node] = result
        if vars(layer).get("inplace", False):
            self._overwrite(node, args[0] if args else kwargs.get("input"), result)

    def _kept_whole(self, layer: nn.Module) -> Unlowered | None:
        """Why no lowering may look into the layer; None when one may."""
        if self.whole(layer):
            return Unlowered("it is to stay whole")
        return Unlowered(SPECIAL) if is_special(layer) else None

    # -- what is common to all calls ---------------------------------------------------------------------------------

    def _scope(self, node: fx.Node) -> str:
        """The path of the module whose forward made the call."""
        for path, _ in reversed((node.meta.get("nn_module_stack") or {}).values()):
            if str(path) not in self.layers:  # reading an attribute is noted where its value is first passed on
                return str(path)
        return ""

    def _place(self, added: Sequence[Node], node: fx.Node, scope: str) -> None:
        """Give new nodes their location."""
        loc = Loc(*users_line(node), scope)
        for new in added:
            new.locs = (loc,)
        self.in_order += added

    def _overwrite(self, node: fx.Node, target: Any, result: Any) -> None:
        """From here on, whoever reads what an in-place call changed reads its result."""
        if not isinstance(target, Value) or not isinstance(result, Value) or isinstance(target.type, ScalarType):
            return
        if target.weight is not None and target.weight.paths:
            raise QirError(
                f"forward changes {target.weight.paths[0]} in place, and a graph keeps no state", result.node,
                stage="import", help="compute a new tensor and return it",
            )  # fmt: skip
        later = self.position[node]
        views_of_target = views(target) - {target, result}
        if any(self.position[user] > later for view in views_of_target for other in self.held[view]
               for user in other.users):  # fmt: skip
            raise QirError(
                "an in-place call changes a tensor of which a view is read later", result.node, stage="import",
                help="use the function that returns a new tensor instead",
            )  # fmt: skip
        changed = self.held.pop(target, [])
        self.known.update(dict.fromkeys(changed, result))
        self.held[result] += changed
