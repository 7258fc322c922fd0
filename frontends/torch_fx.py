"""The torch frontend: a module, traced symbolically by `torch.fx`, as a graph."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

import qir.frontends.torch_layers
import qir.frontends.torch_tensors  # noqa: F401  (fills the table)
from qir.attributes import TRAINING, Port, Symbol
from qir.errors import Loc, QirError
from qir.frontends.torch_lowerings import (
    Builder,
    Lowering,
    Unlowered,
    lowers,
    make_weight,
    type_of_tensor,
)
from qir.graph import Graph, Node, Value
from qir.traits import MovesData, Stateful
from qir.types import UNKNOWN, TensorType, Type


class _TrainingFlag(int):
    """Stands for `self.training` during the trace, so that a call that was given the flag can be told."""


class _Tracer(fx.Tracer):
    """Keeps buffers symbolic and the user's source lines."""

    proxy_buffer_attributes = True
    record_stack_traces = True


@dataclass(frozen=True)
class _Shape:
    """`x.shape`, until one of its sizes is asked for."""

    of: Value


def import_torch(
    model: nn.Module, example_inputs: Sequence[Any] | None = None, *, batch: str | None = "batch"
) -> Graph:
    """The graph of `model`, weights by reference, one node for every call of a layer or function.

    `example_inputs` (positional arguments) give the inputs their types, axis 0 becoming the symbol `batch` where all
    of them agree on its size; without them types stay unknown. The model is not changed. A call that nothing lowers
    becomes an opaque node. Raises QirError when the model can not be traced, pointing at the user's line.
    """
    return _Importer(model, _trace(model), example_inputs, batch).run()


@contextmanager
def _symbolic_training(model: nn.Module) -> Iterator[None]:
    """Inside, every module's training flag is false and can be recognized."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = _TrainingFlag(0)  # type: ignore[assignment]
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def _trace(model: nn.Module) -> fx.GraphModule:
    if isinstance(model, fx.GraphModule):
        return model
    with _symbolic_training(model):
        tracer = _Tracer()
        try:
            graph = tracer.trace(model)
        except Exception as error:  # whatever the model's own code raises when run on proxies
            raise _untraceable(error) from error
        return fx.GraphModule(tracer.root, graph)


def _untraceable(error: Exception) -> QirError:
    """An error that shows the deepest line of the user's own code."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(Loc(_shortened(trace.tb_frame.f_code.co_filename), trace.tb_lineno))
        trace = trace.tb_next
    user = [loc for loc in frames if _is_users(loc.file)]
    snippet = f"{user[-1]}\n    {user[-1].source.strip()}" if user else None
    first = str(error).strip().splitlines() or [type(error).__name__]
    return QirError(
        f"torch.fx can not trace this model: {first[0]}",
        snippet=snippet,
        stage="import",
        help="keep Python control flow and len() off tensors, or wrap the function with torch.fx.wrap",
    )


_TORCH = str(Path(torch.__file__).parent)
_PACKAGES = str(Path(torch.__file__).parent.parent)
_HERE = str(Path(__file__).parent)


def _is_users(file: str) -> bool:
    return not file.startswith(("<", "torch/", _TORCH, _HERE)) and "importlib" not in file


def _shortened(file: str) -> str:
    """A path relative to the installed packages or the working folder, from where linecache still finds it."""
    for folder in (_PACKAGES, str(Path.cwd())):
        if file.startswith(folder + "/"):
            return file[len(folder) + 1 :]
    return file


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def _users_line(node: fx.Node) -> tuple[str, int]:
    frames = [(_shortened(m["file"]), int(m["line"])) for m in _FRAME.finditer(node.stack_trace or "")]
    users = [frame for frame in frames if _is_users(frame[0])]
    return users[-1] if users else ("", 0)


@dataclass
class _Importer:
    """Walks one fx graph and builds ours."""

    model: nn.Module
    traced: fx.GraphModule
    example_inputs: Sequence[Any] | None
    batch: str | None
    graph: Graph = field(default_factory=Graph)
    known: dict[fx.Node, Any] = field(default_factory=dict)
    weights: dict[int, Value] = field(default_factory=dict)
    paths: dict[int, tuple[str, ...]] = field(default_factory=dict)
    tensors: dict[int, torch.Tensor] = field(default_factory=dict)
    transient: set[str] = field(default_factory=set)
    in_order: list[Node] = field(default_factory=list)
    position: dict[fx.Node, int] = field(default_factory=dict)

    def run(self) -> Graph:
        """The graph."""
        self.graph.name = re.sub(r"\W", "", type(self.model).__name__) or "main"
        self._find_weights()
        self.position = {node: number for number, node in enumerate(self.traced.graph.nodes)}
        for node in self.traced.graph.nodes:
            self._step(node)
        for identity in self.paths:
            self._weight(self.tensors[identity])
        self._mark_order()
        return self.graph

    def _find_weights(self) -> None:
        """Every name of every parameter and buffer of the model."""
        named = [
            *self.model.named_parameters(remove_duplicate=False),
            *self.model.named_buffers(remove_duplicate=False),
        ]
        for path, tensor in named:
            self.paths[id(tensor)] = (*self.paths.get(id(tensor), ()), path)
            self.tensors[id(tensor)] = tensor
        for prefix, module in self.model.named_modules(remove_duplicate=False):
            hidden = module._non_persistent_buffers_set
            self.transient |= {f"{prefix}.{name}" if prefix else name for name in hidden}

    def _weight(self, tensor: torch.Tensor) -> Value:
        """The one value of this tensor; a literal for a tensor that is no part of the model's state."""
        if id(tensor) not in self.weights:
            paths = self.paths.get(id(tensor), ())
            weight = make_weight(tensor, paths, not set(paths) & self.transient)
            hint = paths[0] if paths else "c"
            if not paths:
                value = self.graph.constant(weight.array, hint)
            else:
                value = self.graph.weight(weight, type_of_tensor(tensor), hint)
            self.weights[id(tensor)] = value
            self.tensors[id(tensor)] = tensor
        return self.weights[id(tensor)]

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

    def _input(self, node: fx.Node) -> None:
        if node.args and not node.users:
            return
        number = len(self.graph.inputs)
        name = str(node.target).lstrip("*")
        self.known[node] = self.graph.input(name, self._input_type(number))

    def _input_type(self, number: int) -> Type:
        examples = self.example_inputs
        if examples is None:
            return UNKNOWN
        if number >= len(examples):
            raise QirError(f"the model has more inputs than the {len(examples)} example inputs", stage="import")
        example = examples[number]
        if not isinstance(example, torch.Tensor):
            return UNKNOWN
        sizes = {tensor.shape[0] for tensor in examples if isinstance(tensor, torch.Tensor) and tensor.ndim > 0}
        type = type_of_tensor(example)
        if self.batch is not None and len(sizes) == 1 and type.shape:
            return TensorType(type.dtype, (self.batch, *type.shape[1:]))
        return type

    def _attribute(self, path: str) -> Any:
        found: Any = self.traced
        for name in path.split("."):
            found = getattr(found, name)
        return self._weight(found) if isinstance(found, torch.Tensor) else found

    def _output(self, returned: Any) -> None:
        def arrange(part: Any) -> Any:
            if isinstance(part, fx.Node):
                part = self.known[part]
            if isinstance(part, torch.Tensor):
                part = self._weight(part)
            match part:
                case Value():
                    self.graph.outputs.append(part)
                    return len(self.graph.outputs) - 1
                case tuple() | list():
                    return _same_kind(part, map(arrange, part))
                case dict():
                    return {key: arrange(item) for key, item in part.items()}
                case None | bool() | str() | float():
                    return part
            raise QirError(f"the model returns a {type(part).__name__}, which a graph can not", stage="import")

        structure = arrange(returned)
        self.graph.structure = None if structure == 0 and isinstance(structure, int) else structure

    def _arguments(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def resolve(argument: Any) -> Any:
            match argument:
                case fx.Node():
                    return self.known[argument]
                case _TrainingFlag():
                    return TRAINING
                case tuple() | list():
                    return _same_kind(argument, map(resolve, argument))
                case dict():
                    return {key: resolve(item) for key, item in argument.items()}
                case slice():
                    return slice(*map(resolve, (argument.start, argument.stop, argument.step)))
            return argument

        return tuple(map(resolve, node.args)), {key: resolve(item) for key, item in node.kwargs.items()}

    def _builder(self) -> Builder:
        return Builder(self.graph, self._weight)

    def _call(self, node: fx.Node) -> None:
        args, kwargs = self._arguments(node)
        if (shape := self._shape_access(node, args)) is not None:
            self.known[node] = shape
            return
        lowering = lowers.of_method(str(node.target)) if node.op == "call_method" else lowers.of_function(node.target)
        name = f"Tensor.{node.target}" if node.op == "call_method" else _full_name(node.target)
        build = self._builder()
        result = self._lowered(build, lowering, args, kwargs)
        if result is None:
            result = self._opaque(build, name, args, kwargs, host=None if node.op == "call_method" else node.target)
        self._place(build.added, node, self._scope(node))
        self.known[node] = result
        if _is_in_place(node):
            self._overwrite(node, args[0] if args else kwargs.get("input"), result)

    def _shape_access(self, node: fx.Node, args: tuple[Any, ...]) -> Any:
        """What `x.shape`, `x.size()` and `x.shape[i]` stand for; None for other calls."""
        if node.target is getattr and args[1:] == ("shape",) and isinstance(args[0], Value):
            return _Shape(args[0])
        if node.op == "call_method" and node.target == "size" and len(node.args) == 1 and not node.kwargs:
            return _Shape(args[0])
        if node.target is operator.getitem and isinstance(args[0], _Shape) and isinstance(args[1], int):
            build = self._builder()
            result = build("qir.AxisSize", args[0].of, axis=args[1])
            self._place(build.added, node, self._scope(node))
            return result
        if node.target is operator.getitem and isinstance(args[0], list | tuple):
            return args[0][args[1]]
        return None

    def _lowered(
        self, build: Builder, lowering: Lowering | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """What the lowering makes of the call; None when there is none or it does not cover these arguments."""
        if lowering is None:
            return None
        try:
            return lowering(build, *args, **kwargs)
        except (Unlowered, TypeError) as reason:
            build.undo()
            if isinstance(reason, TypeError) and "argument" not in str(reason):
                raise
            return None

    # -- layers ------------------------------------------------------------------------------------------------------

    def _call_layer(self, node: fx.Node) -> None:
        path = str(node.target)
        layer = self.traced.get_submodule(path)
        args, kwargs = self._arguments(node)
        lowering = None if _is_special(layer) else lowers.of_layer(layer)
        build = self._builder()
        result = None
        if lowering is not None:
            result = self._lowered(build, _bound(lowering, layer), args, kwargs)
        if result is None:
            result = self._opaque(build, f"torch.nn.{type(layer).__name__}", args, kwargs, host=layer)
        main = _main_node(build.added, path)
        self._place([added for added in build.added if added is not main], node, path)
        if main is not None:
            self._place([main], node, self._scope(node))
            main.module, main.host = path, layer
        self.known[node] = result
        if getattr(layer, "inplace", False):
            self._overwrite(node, args[0] if args else kwargs.get("input"), result)

    # -- what is common to all calls ---------------------------------------------------------------------------------

    def _scope(self, node: fx.Node) -> str:
        """The path of the module whose forward made the call."""
        stack = [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        if node.op == "call_module" and stack and stack[-1] == str(node.target):
            stack.pop()
        return stack[-1] if stack else ""

    def _place(self, added: Sequence[Node], node: fx.Node, scope: str) -> None:
        """Give new nodes their location, and the last one the name that torch.fx gave the call."""
        loc = Loc(*_users_line(node), scope)
        for new in added:
            new.locs = (loc,)
        if added:
            added[-1].result.hint = node.name
        self.in_order += added

    def _opaque(self, build: Builder, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], host: Any) -> Value:
        operands: list[Value] = []

        def template(argument: Any) -> Any:
            match argument:
                case Value():
                    operands.append(argument)
                    return Port(len(operands) - 1)
                case torch.Tensor():
                    return template(self._weight(argument))
                case _Shape():
                    return template(self._opaque(build, "torch.Tensor.size", [argument.of], {}, None))
                case tuple() | list():
                    return _same_kind(argument, map(template, argument))
                case dict():
                    return {key: template(item) for key, item in argument.items()}
                case slice():
                    return slice(*map(template, (argument.start, argument.stop, argument.step)))
                case torch.dtype() | torch.device() | torch.memory_format() | torch.layout():
                    return Symbol(str(argument).replace("torch.", "torch.", 1))
            return argument

        attrs = {"args": tuple(map(template, args)), "kwargs": {key: template(item) for key, item in kwargs.items()}}
        op = name if name.startswith("torch.") else f"torch.{name}"
        node = self.graph.add(op, operands, {key: value for key, value in attrs.items() if value})
        node.host = host
        build.added.append(node)
        return node.result

    def _overwrite(self, node: fx.Node, target: Any, result: Any) -> None:
        """From here on, whoever reads what an in-place call changed reads its result."""
        if not isinstance(target, Value) or not isinstance(result, Value):
            return
        later = self.position[node]
        views = {target} | {v for v in _views(target) if v is not result}
        for other, value in list(self.known.items()):
            if isinstance(value, Value) and value in views and other is not node:
                used_later = any(self.position[user] > later for user in other.users)
                if value is not target and used_later:
                    raise QirError(
                        "an in-place call changes a tensor of which a view is read later", result.node, stage="import",
                        help="use the function that returns a new tensor instead",
                    )  # fmt: skip
                if value is target:
                    self.known[other] = result

    def _mark_order(self) -> None:
        """Rank the nodes whose order is part of their meaning: random draws, and layers that update shared state."""
        stateful = [node for node in self.in_order if not node.erased and node.definition.trait(Stateful)]
        shared = {
            node
            for node in stateful
            if any(v is not None and v.weight and not v.weight.trainable and len(v.uses) > 1 for v in node.operands)
        }
        ranked = [node for node in stateful if node.op != "BatchNormalization" or node in shared]
        opaque = [node for node in self.in_order if node.definition.opaque and not node.erased]
        if len(ranked) + len(opaque) > 1:
            chosen = {*ranked, *opaque}
            for rank, node in enumerate(node for node in self.in_order if node in chosen):
                node.order = rank


def _same_kind(sequence: Sequence[Any], items: Iterable[Any]) -> Any:
    """`items` as a list, or as a tuple of the sequence's class."""
    if isinstance(sequence, tuple):
        return type(sequence)(*items) if hasattr(sequence, "_fields") else tuple(items)
    return list(items)


def _views(value: Value) -> set[Value]:
    """The values that share memory with this one: what data movement made of it, and what it was made of."""
    found, stack = {value}, [value]
    while stack:
        seen = stack.pop()
        near = [r for use in seen.uses if use.node.definition.trait(MovesData) for r in use.node.results]
        if seen.node is not None and seen.node.definition.trait(MovesData):
            near.append(seen.node.operands[0])
        for other in near:
            if other not in found:
                found.add(other)
                stack.append(other)
    return found


def _bound(lowering: Lowering, layer: nn.Module) -> Lowering:
    """The lowering, with every parameter that a call leaves out read from the layer."""
    import inspect

    parameters = list(inspect.signature(lowering).parameters.values())[1:]

    def call(build: Builder, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip((p.name for p in parameters), args, strict=False)) | kwargs
        for parameter in parameters:
            if parameter.name not in given and hasattr(layer, parameter.name):
                value = getattr(layer, parameter.name)
                given[parameter.name] = TRAINING if parameter.name == "training" else value
        return lowering(build, **given)

    return call


def _is_special(layer: nn.Module) -> bool:
    """Whether calling the layer does more than its forward: hooks, parametrizations."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(hooks) or torch.nn.utils.parametrize.is_parametrized(layer)


def _is_in_place(node: fx.Node) -> bool:
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    return node.kwargs.get("inplace") is True or node.target in _IN_PLACE


_IN_PLACE: set[Callable[..., Any]] = {
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow,
    torch.relu_, torch.nn.functional.relu_,
}  # fmt: skip


def _main_node(added: Sequence[Node], path: str) -> Node | None:
    """Which node is the layer itself: the one that reads its weights, else the last."""
    for node in added:
        paths = [p for v in node.operands if v is not None and v.weight for p in v.weight.paths]
        if any(p.startswith(f"{path}.") for p in paths):
            return node
    return added[-1] if added else None


def _full_name(target: Any) -> str:
    module = getattr(target, "__module__", None) or "torch"
    return f"{module}.{getattr(target, '__name__', type(target).__name__)}"


