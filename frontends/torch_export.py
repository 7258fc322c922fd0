"""The second torch frontend: what `torch.export` records of a run on example inputs, over the same lowerings.

It survives what symbolic tracing does not: control flow on shapes and flags, `len`, tensors made from sizes, item
assignment. A layer's calls carry the layer's path, so both importers give the same paths.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.export.graph_signature import ConstantArgument
from torch.utils import _pytree as pytree

from qir.attributes import TRAINING, Port
from qir.errors import Loc, QirError
from qir.frontends.torch_aten import (
    FOLLOWS,
    RECURRENT,
    REORDERED,
    all_calls,
    as_written,
    aten,
    changes,
    following,
    functional,
    has_flag,
    is_noted,
    lowering_of,
    operator_name,
)
from qir.frontends.torch_callers import Callers
from qir.frontends.torch_calls import CHECKS, lowering_of_layer, main_node, mark_order, opaque, same_kind
from qir.frontends.torch_computed import DeviceOf
from qir.frontends.torch_flags import Given
from qir.frontends.torch_in_place import overwrite, puts_back
from qir.frontends.torch_lowerings import Builder, Unlowered
from qir.frontends.torch_names import CallNames, RecordedNames
from qir.frontends.torch_program import Recording, export, state_at, type_of_example
from qir.frontends.torch_regions import REGIONS
from qir.frontends.torch_signature import exported_signature
from qir.frontends.torch_span_lowering import SpanLowering
from qir.frontends.torch_spans import BEGIN, END
from qir.frontends.torch_table import tried
from qir.frontends.torch_trace import nothing_whole, users_line
from qir.frontends.torch_views import InPlaceOnView
from qir.frontends.torch_weights import Weights
from qir.frontends.torch_whole import WHOLE
from qir.graph import Graph, Node, Value
from qir.torch_signature import Fixed
from qir.types import UNKNOWN


def import_exported(
    model: nn.Module | torch.export.ExportedProgram,
    example_inputs: Sequence[Any],
    example_keywords: Mapping[str, Any] | None = None,
    *,
    whole: Callable[[nn.Module], bool] = nothing_whole,
    dynamic: bool = True,
    layers: tuple[type[nn.Module], ...] = (),
) -> Graph:
    """The graph of `model` as it runs on the example inputs.

    With `dynamic`, the sizes of batch and sequence are symbols where the model allows it. Modules of which `whole` is
    true stay opaque; those of the classes `layers` are lowered without a look into them. Raises QirError when
    torch.export can not follow the model, when it updates its buffers, or when it changes a tensor of which a view is
    read later.
    """
    made = (
        Recording(model)
        if isinstance(model, torch.export.ExportedProgram)
        else export(model, tuple(example_inputs), dict(example_keywords or {}), whole, dynamic, layers)
    )
    try:
        return ProgramImporter(model, made).run()
    except InPlaceOnView:
        return ProgramImporter(model, replace(made, program=made.program.run_decompositions({}))).run()


@dataclass
class ProgramImporter:
    """Walks one exported program and builds our graph."""

    model: Any
    recording: Recording
    program: torch.export.ExportedProgram = field(init=False)
    given: list[Given] = field(init=False)
    graph: Graph = field(default_factory=Graph)
    known: dict[fx.Node, Any] = field(default_factory=dict)
    devices: dict[torch.device, Value] = field(default_factory=dict)
    weights: Weights = field(init=False)
    names: CallNames = field(init=False)
    recorded: RecordedNames = field(init=False)
    spans: SpanLowering = field(init=False)
    leaves: list[Port | Fixed] = field(default_factory=list)
    callers: Callers = field(init=False)
    in_order: list[Node] = field(default_factory=list)
    position: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)

    def run(self) -> Graph:
        """The graph."""
        self.program, self.given = self.recording.program, list(self.recording.given)
        self.graph.inference_only = self.recording.inference_only
        if sum(map(is_noted, all_calls(self.program))) != len(self.given):
            self._forget_flags()
        self.graph.name = re.sub(r"\W", "", type(self.model).__name__) or "main"
        nodes = list(self.program.graph.nodes)
        self.spans = SpanLowering(self.recording.spans)
        self.recorded, self.callers = RecordedNames(nodes), Callers(self.model, self.recording)
        specs = self.program.graph_signature.input_specs
        self.names = CallNames([spec.arg.name for spec in specs if spec.kind.name == "USER_INPUT"])
        if isinstance(self.model, nn.Module):
            self.weights = Weights.of_module(self.graph, self.model)
        else:
            state = {**self.program.state_dict, **self.program.constants}
            self.weights = Weights(self.graph, state.items(), self.program.constants)
        self.position = {node: (number,) for number, node in enumerate(nodes)}
        kinds = iter(specs)
        for node in nodes:
            if node.op == "placeholder":
                self._input(node, next(kinds))
            elif node.op == "get_attr":
                self.known[node] = getattr(self.program.graph_module, str(node.target))
            elif node.op == "output":
                self._output(node)
            else:
                self.call(node)
        if isinstance(self.model, nn.Module):
            self.weights.add_unread()
        self.finish()
        self.graph.signature = exported_signature(self.program, self.leaves)
        return self.graph

    def _forget_flags(self) -> None:
        """What calls were given is known for others than were recorded in the end."""
        left = sum(node.target in FOLLOWS for node in all_calls(self.program))
        lost = left < len(self.given) and any(given.rate != 0 for given in self.given)
        if lost or any(given.flag for given in self.given):
            reason = "a call that follows train() and eval() is computed"
            self.graph.inference_only = self.graph.inference_only or reason
        self.given = []

    def finish(self) -> None:
        """Rank and name the calls."""
        mark_order(self.in_order)
        self.names.give()

    def _input(self, node: fx.Node, spec: Any) -> None:
        kind = spec.kind.name
        if kind == "USER_INPUT" and isinstance(spec.arg, ConstantArgument):
            self.known[node] = spec.arg.value
            self.leaves.append(Fixed(spec.arg.name, spec.arg.value))
            return
        if kind == "USER_INPUT":
            self.leaves.append(Port(len(self.graph.inputs)))
            self.known[node] = self.graph.input(node.name, type_of_example(node.meta.get("val")))
            if isinstance(example := node.meta.get("val"), torch.Tensor):
                self.devices.setdefault(example.device, self.known[node])
            return
        if kind not in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
            raise QirError(f"the model has an input of kind {kind.lower()}, which a graph has not", stage="import")
        self.known[node] = self.weights.of(state_at(self.program, self.model, spec.target))

    # -- calls -------------------------------------------------------------------------------------------------------

    def resolve(self, argument: Any) -> Any:
        match argument:
            case fx.Node():
                return self.known[argument]
            case tuple() | list():
                return same_kind(argument, map(self.resolve, argument))
            case dict():
                return {key: self.resolve(item) for key, item in argument.items()}
            case slice():
                return slice(*map(self.resolve, (argument.start, argument.stop, argument.step)))
            case torch.device() if argument in self.devices:
                return DeviceOf(self.devices[argument], argument)
        return argument

    def call(self, node: fx.Node) -> None:
        target: Any = node.target
        name = str(getattr(target, "_opname", getattr(target, "__name__", target)))
        if node in self.spans.parts and is_noted(node):
            self.given.pop(0)
        if node in self.spans.parts or (not node.users and (target is BEGIN or name.startswith(CHECKS))):
            return
        if node in self.spans.results:
            self.known[node] = self.spans.results[node]
            return
        args, kwargs = self.resolve(node.args), self.resolve(node.kwargs)
        if target is operator.getitem and isinstance(args[0], list | tuple):
            self.known[node] = args[0][args[1]]
            return
        passes = target is END or (target is aten.alias.default and self.callers.regularizer(node) is None)
        if (passes and not self.callers.is_identity(node)) or target is aten.lift_fresh_copy.default:
            self.known[node] = args[0]
            return
        if puts_back(node, *args):
            self.known[node] = args[0]
            return
        if target is WHOLE:
            build = Builder(self.graph, self.weights.of)
            self.known[node] = self.recording.calls[args[1]].build(build, args[0])
            self.place(build, node)
            return
        if target is BEGIN:
            self.known[node] = None
            self.spans.begin(self, node, *args)
            return
        if name in REGIONS:
            self.known[node] = REGIONS[name](self, node, *args)
            return
        build = Builder(self.graph, self.weights.of)
        if target is aten.softmax.int and self.callers.rate(node):
            path = self.callers.scope(node)
            self.graph.inference_only = f"the attention {path} drops shares in training, between the calls of its parts"
        if target in FOLLOWS:
            given = self.given.pop(0) if self.given and is_noted(node) else Given(False, self.callers.rate(node))
            if given.flag or self.callers.follows_training(node):
                args = following(target, args, given.rate or 0.0)
        elif has_flag(target) and target not in RECURRENT:
            self.graph.inference_only = self.graph.inference_only or f"{target} follows train() and eval()"
        result = self._lowered(build, node, target, args, kwargs)
        if isinstance(result, Unlowered):
            layer = self.callers.only_call_of(node)
            args, named = (args[:1], {}) if layer else as_written(target, args)
            whole = layer or (functional(target) if changes(node) else target)
            result = self.kept(build, whole, args, named if layer else {**named, **kwargs}, str(result))
        self.place(build, node, result)
        self.known[node] = result
        if changes(node):
            overwrite(self, node, args[0], result)

    def _lowered(self, build: Builder, node: fx.Node, target: Any, args: Any, kwargs: Any) -> Any:
        if (module := self.callers.regularizer(node)) is not None:
            result = tried(build, lowering_of_layer(module), args, kwargs)
            return build("qir.InTraining", *args) if isinstance(result, Unlowered) else result
        if target in RECURRENT and self.callers.layer(node):
            args = (*args[:6], TRAINING, *args[7:])
        if target in REORDERED:
            target, args = REORDERED[target](*args, **kwargs)
            kwargs = {}
        if target is F.batch_norm and self.callers.layer(node):
            args = (*args[:5], TRAINING, *args[6:])
        result = tried(build, lowering_of(target), args, kwargs)
        if isinstance(result, Value) and isinstance(node.meta.get("val"), tuple | list):
            build.undo()
            return Unlowered("it has several results")
        return result

    def kept(self, build: Builder, target: Any, args: Any, kwargs: Any, reason: str = "") -> Any:
        if any(isinstance(arg, fx.GraphModule) for arg in args):
            raise QirError(f"the model calls {target}, which takes functions", stage="import",
                           help="keep the module whole that calls it: modules_to_exclude=[…]")  # fmt: skip
        return opaque(build, operator_name(target), args, kwargs, target, reason)

    def place(self, build: Builder, node: fx.Node, result: Any = None) -> None:
        """Give new nodes their types, locations and, where a layer made the call, the layer's path."""
        layer, scope = self.callers.layer(node), self.callers.scope(node)
        loc = Loc(*users_line(node), scope)
        for new in build.added:
            new.locs = (loc,)
        if isinstance(result, Value) and result.node in build.added:
            known = type_of_example(node.meta.get("val"))
            result.type = result.type if known == UNKNOWN else known
        whole = self.model.get_submodule(layer) if layer and isinstance(self.model, nn.Module) else self
        main = next((new for new in build.added if new.host is whole), None)
        main = main or (main_node(build.added, layer) if layer else None)
        if main is not None and layer is not None:
            self.names.add(main, layer.replace(".", "_"))
            main.module = layer
            if isinstance(whole, nn.Module) and not main.definition.opaque:
                main.host = whole
        elif build.added and not self.callers.in_layer(node):
            self.names.add(build.added[-1], self.recorded.of(node))
        self.in_order += build.added

    # -- output ------------------------------------------------------------------------------------------------------

    def _output(self, node: fx.Node) -> None:
        specs = self.program.graph_signature.output_specs
        leaves = []
        for spec, returned in zip(specs, node.args[0], strict=True):  # type: ignore[arg-type]
            if spec.kind.name != "USER_OUTPUT":
                raise QirError(f"the model updates {spec.target} in forward", stage="import",
                               help="keep that module whole, or update the buffer outside of forward")  # fmt: skip
            value = self.resolve(returned)
            if isinstance(value, torch.Tensor):
                value = self.weights.of(value)
            if isinstance(value, Value):
                self.graph.outputs.append(value)
                value = Port(len(self.graph.outputs) - 1)
            leaves.append(value)
        spec = self.program.call_spec.out_spec
        structure = leaves[0] if spec is None else pytree.tree_unflatten(leaves, spec)
        self.graph.structure = None if structure == Port(0) else structure
