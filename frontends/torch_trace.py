"""Tracing a torch module symbolically, and finding the user's lines."""

from __future__ import annotations

import inspect
import operator
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import torch
from torch import fx, nn

from qir.errors import Loc, QirError
from qir.frontends.torch_autograd import traced_functions
from qir.frontends.torch_draws import RecordingDraws
from qir.frontends.torch_einops import einops_functions, recording_einops
from qir.frontends.torch_errors import untraceable
from qir.frontends.torch_kinds import TellsTensors
from qir.frontends.torch_lines import is_users
from qir.frontends.torch_lowerings import class_name, lowers
from qir.frontends.torch_names import called
from qir.frontends.torch_rates import described, follow_rates
from qir.frontends.torch_state import untouched
from qir.frontends.torch_training import Asked, regularizes, set_flags, users_frame
from qir.source_paths import shortened


class _Proxy(fx.Proxy):
    """Tells `x += y`, which changes a tensor that other names may mean too, from `x + y`."""


def _keep_in_place(name: str) -> None:
    def method(self: _Proxy, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", getattr(operator, f"i{name}"), (self, other), {}, name)

    setattr(_Proxy, f"__i{name}__", method)


for _name in ("add", "sub", "mul", "truediv", "pow"):
    _keep_in_place(_name)


_OPERATORS = frozenset(function for function in vars(operator).values() if callable(function))


def _autocast() -> tuple[bool, ...]:
    return tuple(torch.is_autocast_enabled(device) for device in ("cpu", "cuda"))


class _Tracer(fx.Tracer):
    """Keeps buffers symbolic and the user's source lines."""

    proxy_buffer_attributes = True

    def __init__(self, fixed: Mapping[str, Any], whole: Callable[[nn.Module], bool], asked: list[Asked]) -> None:
        super().__init__(autowrap_functions=einops_functions())
        self.fixed = fixed
        self.tensors: TellsTensors
        self.whole = whole
        self.asked = asked
        self.regularizers: dict[str, nn.Module] = {}
        self.autocast, self.gradients = _autocast(), torch.is_grad_enabled()

    def create_node(
        self, kind: str, target: Any, args: Any, kwargs: Any, name: str | None = None, type_expr: Any = None
    ) -> fx.Node:
        if kind in ("call_method", "call_function") and target not in _OPERATORS:
            method = target if kind == "call_method" else getattr(target, "__name__", "")
            name = called(name or method) if called(method) != method else name
        if self.autocast != _autocast():
            raise _refused("a part of the model runs under autocast", "keep that module whole: modules_to_exclude=[…]")
        if kind == "call_function" and kwargs.get("out") is not None:
            name = getattr(target, "__name__", target)
            raise _refused(f"forward writes into the argument out= of {name}", "use what the call returns")
        node = super().create_node(kind, target, args, kwargs, name, type_expr)
        node.meta[_LINE] = users_frame(sys._getframe(1), trace.__code__)
        node.meta[WITHOUT_GRADIENT] = torch.is_grad_enabled() != self.gradients
        return node

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = self.whole(m) or super().is_leaf_module(m, module_qualified_name)
        return leaf or class_name(m) in lowers.table

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        before = len(self.asked)
        self.tensors.tell(m)
        result = super().call_module(m, forward, args, kwargs)
        if not regularizes(m, self.asked[before:], args, kwargs, result):
            return result
        del self.asked[before:]
        path = self.path_of_module(m)
        self.regularizers[path] = m
        return self.create_proxy("call_module", path, args, kwargs)

    def create_arg(self, a: Any) -> Any:
        if type(a) is _Proxy:
            return a.node
        if type(a) is tuple:
            return tuple(map(self.create_arg, a))
        if isinstance(a, torch.Generator):
            raise _refused("forward draws from a torch.Generator of its own, whose state a graph can not keep",
                           "draw from torch's own, or keep that module whole: modules_to_exclude=[…]")  # fmt: skip
        if isinstance(a, dict) and type(a) is not dict:  # fx makes a plain one of it
            return self.create_node("call_function", type(a), (super().create_arg(dict(a)),), {})
        return super().create_arg(a)

    def _proxy_placeholder(self, name: str, *rest: Any) -> Any:
        return self.fixed[name] if name in self.fixed else super()._proxy_placeholder(name, *rest)


def _refused(message: str, help: str) -> QirError:
    """The error of a call that is just being traced, with the user's line."""
    loc = Loc(*users_frame(sys._getframe(1), trace.__code__))
    return QirError(message, stage="import", snippet=f"{loc}\n    {loc.source.strip()}", help=help)


def _left_out(model: nn.Module, given: int | None) -> dict[str, Any]:
    """The arguments of forward that keep their defaults: those after the `given`, or all that have one."""
    named = [
        parameter
        for parameter in inspect.signature(model.forward).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    return {
        parameter.name: parameter.default
        for number, parameter in enumerate(named)
        if parameter.default is not parameter.empty and (given is None or number >= given)
    }


def nothing_whole(module: nn.Module) -> bool:
    """The choice that keeps no module whole."""
    return False


@dataclass(frozen=True)
class Trace:
    """The calls that a model makes, and the tensors and other objects that they read from outside of it.

    `fixed` are the arguments of forward that were constants.
    `regularizers` are the paths of modules that return their argument, unless they are training; `inference_only` says
    why the calls are others in training.
    """

    graph: fx.Graph
    root: nn.Module
    constants: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    regularizers: Collection[str] = ()
    inference_only: str = ""

    def attribute(self, path: str) -> Any:
        """What a `get_attr` node reads."""
        return self.constants[path] if path in self.constants else reduce(getattr, path.split("."), self.root)


def trace(
    model: nn.Module,
    given: int | None = None,
    whole: Callable[[nn.Module], bool] = nothing_whole,
    concrete: Mapping[str, Any] | None = None,
) -> Trace:
    """The calls that the model makes in evaluation mode, with `given` positional arguments.

    Arguments with a default that are not given keep it; when the number is not known, all that have one. `concrete`
    fixes others by name. Modules of which `whole` is true are called, not looked into.

    Raises QirError, showing the user's line, where they depend on data.
    """
    if isinstance(model, fx.GraphModule):
        return Trace(model.graph, model)
    if model._forward_hooks or model._forward_pre_hooks:
        raise QirError("torch.fx does not see the hooks of the model itself", stage="import",
                       help="put the model into another module, or remove the hooks")  # fmt: skip
    fixed = {**_left_out(model, given), **(concrete or {})}
    with untouched(model, _holds) as changed, recording_einops():
        tracer = _Tracer(fixed, whole, set_flags(model))
        traced = _traced(model, tracer)
        if state := changed():
            again = _traced(model, _Tracer(fixed, whole, []))
            if described(traced.graph) != described(again.graph):
                message = f"forward changes {state[0]} and computes with it, and a graph keeps no state"
                raise QirError(message, stage="import", help="keep that module whole: modules_to_exclude=[…]")
        if tracer.asked and not _follows(model, traced, tracer):
            traced = replace(traced, inference_only=str(tracer.asked[0]))
        return replace(traced, regularizers=tracer.regularizers.keys(), fixed=fixed)


_MOVES = {"to", "type_as", "float", "double", "half", "bfloat16", "contiguous", "cuda", "cpu"}


def _holds(now: Any, before: Any) -> bool:
    """Whether an attribute is what it was, or only put on the device and into the dtype of an input."""
    if not isinstance(now, fx.Proxy) or not isinstance(before, torch.Tensor):
        return now is before
    root = now.tracer.root  # type: ignore[attr-defined]
    node: Any = now.node
    while node.op == "call_method" and node.target in _MOVES:
        node = node.args[0]
    read = reduce(getattr, str(node.target).split("."), root) if node.op == "get_attr" else None
    return read is now or read is before


def _follows(model: nn.Module, traced: Trace, tracer: _Tracer) -> bool:
    """Whether the calls are the same in training, but for rates of dropout, which follow the flag from now on."""
    still = {part for module in tracer.regularizers.values() for part in module.modules()}
    asked = set_flags(model, True, still)
    try:
        other = _traced(model, _Tracer(tracer.fixed, lambda module: module in still or tracer.whole(module), asked))
    except QirError:  # in training it takes other arguments, for example
        return False
    same = traced.constants.keys() == other.constants.keys()
    for path, constant in traced.constants.items() if same else ():
        same = same and (constant is other.constants[path] or _equal(constant, other.constants[path]))
    return same and follow_rates(traced.graph, other.graph)


def _equal(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else bool(a == b)


def _traced(model: nn.Module, tracer: _Tracer) -> Trace:
    before = set(vars(model))
    try:
        with RecordingDraws(tracer), traced_functions(tracer), TellsTensors(model) as tracer.tensors:
            tracer.tensors.tell(model)
            graph = tracer.trace(model)
    except QirError:
        raise
    except Exception as error:  # whatever the model's own code raises when run on proxies
        if lowers.of_layer(model) is not None:
            return Trace(_one_call(model, tracer.fixed), model)
        raise untraceable("torch.fx can not trace this model", model, error) from error
    made = {name for name in tracer.tensor_attrs.values() if name in vars(model)} - before
    return Trace(graph, model, {name: vars(model).pop(name) for name in made})


def _one_call(layer: nn.Module, fixed: Mapping[str, Any]) -> fx.Graph:
    """A call of the model, which is itself a layer."""
    graph = fx.Graph()
    names = [name for name in inspect.signature(layer.forward).parameters if name not in fixed]
    given = tuple(graph.placeholder(name) for name in names)
    graph.output(graph.create_node("call_module", "", given, dict(fixed), type(layer).__name__.lower()))
    return graph


def number_of_arguments(star: fx.Node, given: int | None) -> int:
    """How many arguments the `*args` of a traced forward stands for: those `given`, or as many as forward reads.

    Raises QirError when that can not be told.
    """
    if given is not None:
        return given
    indices = [user.args[1] if user.target is operator.getitem else None for user in star.users]
    if str(star.target).startswith("**") or not all(isinstance(index, int) and index >= 0 for index in indices):
        file, line = users_line(next(iter(star.users)))
        loc = Loc(file, line)
        raise QirError(f"how many arguments {star.target} stands for is not known", stage="import",
                       snippet=f"{loc}\n    {loc.source.strip()}", help="give example_inputs=(…)")  # fmt: skip
    return max((index for index in indices if isinstance(index, int)), default=-1) + 1


_LINE = "users_line"
WITHOUT_GRADIENT = "without_gradient"
"""The key in `meta` of whether a call is made under torch.no_grad."""


_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')


def users_line(node: fx.Node) -> tuple[str, int]:
    """File and line of the deepest frame of the call that is not torch's own; empty when there is none."""
    if _LINE in node.meta:
        return tuple(node.meta[_LINE])
    for frame in reversed(list(_FRAME.finditer(node.stack_trace or ""))):
        if is_users(file := shortened(frame["file"])):
            return file, int(frame["line"])
    return "", 0
