"""The second torch frontend: what `torch.export` records of a run on example inputs, over the same lowerings.

It survives what symbolic tracing does not: control flow on shapes and flags, `len`, tensors made from sizes, item
assignment. A layer's calls carry the layer's path, so both importers give the same paths.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils import _pytree as pytree

from qir.attributes import TRAINING, Port
from qir.errors import Loc, QirError
from qir.frontends import (  # noqa: F401  (they fill the table)
    torch_activations,
    torch_layers,
    torch_pooling,
    torch_tensors,
)
from qir.frontends.torch_calls import main_node, mark_order, opaque, same_kind
from qir.frontends.torch_lowerings import DTYPES, Builder, Lowering, Unlowered, lowers, make_weight, type_of_tensor
from qir.frontends.torch_trace import recording_flags, users_line
from qir.graph import Graph, Node, Value
from qir.types import UNKNOWN, ScalarType, TensorType, Type

aten = torch.ops.aten

REORDERED: dict[Any, Any] = {
    aten.batch_norm.default: lambda x, weight, bias, mean, var, training, momentum, eps, cudnn: (
        F.batch_norm, (x, mean, var, weight, bias, training, momentum, eps)
    ),
    aten.embedding.default: lambda weight, indices, padding_idx=-1, scale_grad=False, sparse=False: (
        F.embedding, (indices, weight, None if padding_idx == -1 else padding_idx, None, 2.0, scale_grad, sparse)
    ),
}  # fmt: skip
"""ATen operators whose arguments come in another order than those of the function that they implement."""

_REGIONS: dict[str, Any] = {
    "wrap_with_set_grad_enabled": lambda enabled, body, *operands: (body, operands, enabled),
    "wrap_with_autocast": lambda device, dtype, enabled, cache, body, *operands: (
        (body, operands, True) if not enabled else _no_autocast()
    ),
}
"""Blocks under a context that torch.export keeps as one call: their calls, their operands, whether gradients pass."""


def _no_autocast() -> Any:
    raise QirError("a part of the model runs under autocast", stage="import", help="keep that module whole")


CHECKS = ("_assert", "sym_constrain_range", "_check")
FOLLOWS = {aten.dropout.default: F.dropout, aten.feature_dropout.default: F.dropout2d}


def import_exported(
    model: nn.Module | torch.export.ExportedProgram,
    example_inputs: Sequence[Any],
    example_keywords: Mapping[str, Any] | None = None,
) -> Graph:
    """The graph of `model` as it runs on the example inputs.

    Axis 0 of the inputs stays symbolic where the model allows it. Raises QirError when torch.export can not follow the
    model, when it updates its buffers, or when it changes a tensor of which a view is read later.
    """
    program, flags = (
        (model, [])
        if isinstance(model, torch.export.ExportedProgram)
        else _export(model, tuple(example_inputs), dict(example_keywords or {}))
    )
    try:
        return _Importer(model, program, flags).run()
    except InPlaceOnView:
        return _Importer(model, program.run_decompositions({}), flags).run()


class InPlaceOnView(QirError):
    """A view of a tensor that is changed in place is read later."""


def _export(
    model: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[torch.export.ExportedProgram, list[bool]]:
    """The exported program, and for every call with a training flag whether it was given the module's own."""
    failures: list[Exception] = []
    for dynamic in (True, False):
        shapes = pytree.tree_map(_first_axis, (args, keywords)) if dynamic else None
        shapes = None if shapes is None else (*shapes[0], *shapes[1].values())
        if dynamic and (keywords or not any(shapes or ())):
            continue
        try:
            with recording_flags(model) as flags, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                program = torch.export.export(model, args, keywords, dynamic_shapes=shapes, strict=False)
            return program, flags
        except Exception as error:  # torch.export raises whatever the model's own code raises, and much of its own
            failures.append(error)
    raise _unexportable(failures[-1]) from failures[-1]


def _first_axis(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.shape[0] > 1:
        return {0: torch.export.Dim.AUTO}
    return None


def _unexportable(error: Exception) -> QirError:
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    user = re.findall(r'File "([^"]+)", line (\d+)', str(error))
    snippet = None
    if user:
        loc = Loc(user[-1][0], int(user[-1][1]))
        snippet = f"{loc}\n    {loc.source.strip()}"
    return QirError(
        f"torch.export can not follow this model: {lines[0]}", stage="import", snippet=snippet,
        help="a branch on tensor data needs torch.cond, or leave that module whole",
    )  # fmt: skip


def _type_of(value: Any) -> Type:
    if isinstance(value, torch.Tensor):
        shape = tuple(size if isinstance(size, int) else _symbol(size) for size in value.shape)
        return TensorType(DTYPES.get(value.dtype), shape)
    if isinstance(value, torch.SymInt | int) and not isinstance(value, bool):
        return ScalarType("int")
    if isinstance(value, torch.SymFloat | float):
        return ScalarType("float")
    if isinstance(value, torch.SymBool | bool):
        return ScalarType("bool")
    return UNKNOWN


def _symbol(size: Any) -> str | None:
    text = str(size)
    return text if re.fullmatch(r"[A-Za-z]\w*", text) else None


@dataclass
class _Importer:
    """Walks one exported program and builds our graph."""

    model: Any
    program: torch.export.ExportedProgram
    flags: list[bool]
    graph: Graph = field(default_factory=Graph)
    known: dict[fx.Node, Any] = field(default_factory=dict)
    weights: dict[int, Value] = field(default_factory=dict)
    in_order: list[Node] = field(default_factory=list)
    position: dict[fx.Node, int] = field(default_factory=dict)

    def run(self) -> Graph:
        """The graph."""
        self.graph.name = re.sub(r"\W", "", type(self.model).__name__) or "main"
        nodes = list(self.program.graph.nodes)
        self.position = {node: number for number, node in enumerate(nodes)}
        specs = iter(self.program.graph_signature.input_specs)
        for node in nodes:
            if node.op == "placeholder":
                self._input(node, next(specs))
            elif node.op == "get_attr":
                self.known[node] = getattr(self.program.graph_module, str(node.target))
            elif node.op == "output":
                self._output(node)
            else:
                self._call(node)
        self._keep_unread()
        mark_order(self.in_order)
        names = self.program.module_call_graph[0].signature.forward_arg_names
        self.graph.signature = (list(names), self.program.call_spec.in_spec)
        return self.graph

    def _input(self, node: fx.Node, spec: Any) -> None:
        kind = spec.kind.name
        if kind == "USER_INPUT":
            self.known[node] = self.graph.input(node.name, _type_of(node.meta.get("val")))
            return
        if kind not in ("PARAMETER", "BUFFER", "CONSTANT_TENSOR"):
            raise QirError(f"the model has an input of kind {kind.lower()}, which a graph has not", stage="import")
        tensor = self._state(spec.target)
        self.known[node] = self._weight(tensor, spec.target, constant=kind == "CONSTANT_TENSOR")

    def _state(self, path: str) -> torch.Tensor:
        found: Any = self.program.state_dict.get(path)
        if found is None:
            found = self.program.constants[path]
        if isinstance(self.model, nn.Module):
            owner, _, name = path.rpartition(".")
            with suppress(AttributeError):
                found = getattr(self.model.get_submodule(owner), name)
        return torch.as_tensor(found) if not isinstance(found, torch.Tensor) else found

    def _weight(self, tensor: torch.Tensor, path: str, constant: bool) -> Value:
        if id(tensor) not in self.weights:
            names = () if constant else self._names(tensor, path)
            persistent = path in self.program.state_dict
            weight = make_weight(tensor, names, persistent)
            self.weights[id(tensor)] = (
                self.graph.weight(weight, type_of_tensor(tensor), path)
                if names
                else self.graph.constant(weight.array, "c")
            )
        return self.weights[id(tensor)]

    def _names(self, tensor: torch.Tensor, path: str) -> tuple[str, ...]:
        if not isinstance(self.model, nn.Module):
            return (path,)
        named = [
            *self.model.named_parameters(remove_duplicate=False), *self.model.named_buffers(remove_duplicate=False)
        ]  # fmt: skip
        return tuple(name for name, other in named if other is tensor) or (path,)

    def _keep_unread(self) -> None:
        """State that no call reads is state of the model all the same."""
        if isinstance(self.model, nn.Module):
            for path, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
                self._weight(tensor, path, constant=False)

    # -- calls -------------------------------------------------------------------------------------------------------

    def _resolve(self, argument: Any) -> Any:
        match argument:
            case fx.Node():
                return self.known[argument]
            case tuple() | list():
                return same_kind(argument, map(self._resolve, argument))
            case dict():
                return {key: self._resolve(item) for key, item in argument.items()}
            case slice():
                return slice(*map(self._resolve, (argument.start, argument.stop, argument.step)))
        return argument

    def _call(self, node: fx.Node) -> None:
        target: Any = node.target
        name = str(getattr(target, "_opname", getattr(target, "__name__", target)))
        if not node.users and name.startswith(CHECKS):
            return
        args, kwargs = self._resolve(node.args), self._resolve(node.kwargs)
        if target is operator.getitem and isinstance(args[0], list | tuple):
            self.known[node] = args[0][args[1]]
            return
        if name in _REGIONS:
            self.known[node] = self._region(node, *_REGIONS[name](*args))
            return
        mutates = isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable
        build = Builder(self.graph, self._literal)
        result = self._lowered(build, node, target, args, kwargs)
        if result is None:
            result = self._whole(build, _functional(target) if mutates else target, args, kwargs)
        self._place(build, node, result)
        self.known[node] = result
        if mutates:
            self._overwrite(node, args[0], result)

    def _region(self, node: fx.Node, body: fx.GraphModule, operands: Sequence[Any], gradients: bool) -> list[Any]:
        """The results of a block of calls that ran under a context; without gradients, cut off from them."""
        returned: Any = ()
        arguments = iter(operands)
        for inner in body.graph.nodes:
            self.position[inner] = self.position[node]
            if inner.op == "placeholder":
                self.known[inner] = next(arguments)
            elif inner.op == "get_attr":
                self.known[inner] = getattr(body, str(inner.target))
            elif inner.op == "output":
                returned = self._resolve(inner.args[0])
            else:
                self._call(inner)
        if gradients:
            return list(returned)
        return [self._detached(node, value) for value in returned]

    def _detached(self, node: fx.Node, value: Any) -> Any:
        if not isinstance(value, Value) or value.type.dtype is None or value.type.dtype[0] not in "fbc":
            return value
        build = Builder(self.graph, self._literal)
        result = self._whole(build, aten.detach.default, [value], {})
        result.type = value.type
        self.in_order += build.added
        return result

    def _literal(self, tensor: torch.Tensor) -> Value:
        return self._weight(tensor, "c", constant=True)

    def _lowered(self, build: Builder, node: fx.Node, target: Any, args: Any, kwargs: Any) -> Any:
        if target in REORDERED:
            target, args = REORDERED[target](*args, **kwargs)
            kwargs = {}
        lowering = _lowering_of(target)
        if lowering is None:
            return None
        if target is F.batch_norm and self._layer(node):
            args = (*args[:5], TRAINING, *args[6:])
        elif target in FOLLOWS:
            given = bool(self.flags) and self.flags.pop(0)
            args = (*args[:2], TRAINING) if given or self._layer(node) else args
        try:
            return lowering(build, *args, **kwargs)
        except (Unlowered, TypeError, QirError) as reason:
            build.undo()
            if isinstance(reason, TypeError) and "argument" not in str(reason):
                raise
            return None

    def _whole(self, build: Builder, target: Any, args: Any, kwargs: Any) -> Any:
        if isinstance(target, torch._ops.OpOverload):
            name = f"torch.ops.{target._schema.name.replace('::', '.')}.{target._overloadname}"
        else:
            name = f"torch.{getattr(target, '__module__', '')}.{getattr(target, '__name__', target)}"
        return opaque(build, name, args, kwargs, target)

    def _place(self, build: Builder, node: fx.Node, result: Any) -> None:
        """Give new nodes their types, locations and, where a layer made the call, the layer's path."""
        layer, scope = self._layer(node), self._scope(node)
        loc = Loc(*users_line(node), scope)
        for new in build.added:
            new.locs = (loc,)
        if build.added:
            build.added[-1].result.hint = node.name
        if isinstance(result, Value) and result.node is not None and result.node in build.added:
            known = _type_of(node.meta.get("val"))
            if known != UNKNOWN:
                result.type = known
        main = main_node(build.added, layer) if layer else None
        if main is not None and layer is not None:
            main.module = layer
            if isinstance(self.model, nn.Module) and not main.definition.opaque:
                main.host = self.model.get_submodule(layer)
        self.in_order += build.added

    def _stack(self, node: fx.Node) -> list[tuple[str, str]]:
        stack = (node.meta.get("nn_module_stack") or {}).values()
        return [(re.sub(r"@\d+", "", str(path)), str(kind)) for path, kind in stack]

    def _layer(self, node: fx.Node) -> str | None:
        """The path of the torch.nn layer that makes the call, when it is one that a single call computes."""
        stack = self._stack(node)
        if not stack or not stack[-1][1].startswith("torch.nn.modules."):
            return None
        path, kind = stack[-1]
        return path if kind.rpartition(".")[2] in _SINGLE_CALL else None

    def _scope(self, node: fx.Node) -> str:
        stack = self._stack(node)
        if self._layer(node):
            stack = stack[:-1]
        return stack[-1][0] if stack else ""

    def _overwrite(self, node: fx.Node, target: Any, result: Any) -> None:
        """From here on, whoever reads what an in-place call changed reads its result."""
        changed = node.args[0]
        if not isinstance(target, Value) or not isinstance(result, Value) or not isinstance(changed, fx.Node):
            return
        if target.weight is not None and target.weight.paths:
            raise QirError(
                f"the model changes its state {target.weight.paths[0]} in forward", result.node, stage="import"
            )
        later = self.position[node]
        for other in aliases(changed):
            if self.known.get(other) is target:
                self.known[other] = result
            elif self.position[other] < later and any(self.position[user] > later for user in other.users):
                raise InPlaceOnView("an in-place call changes a tensor of which a view is read later", result.node)

    # -- output ------------------------------------------------------------------------------------------------------

    def _output(self, node: fx.Node) -> None:
        specs = self.program.graph_signature.output_specs
        leaves = []
        for spec, returned in zip(specs, node.args[0], strict=True):  # type: ignore[arg-type]
            if spec.kind.name != "USER_OUTPUT":
                raise QirError(f"the model updates {spec.target} in forward", stage="import",
                               help="keep that module whole, or update the buffer outside of forward")  # fmt: skip
            value = self._resolve(returned)
            if isinstance(value, torch.Tensor):
                value = self._literal(value)
            if isinstance(value, Value):
                self.graph.outputs.append(value)
                value = Port(len(self.graph.outputs) - 1)
            leaves.append(value)
        spec = self.program.call_spec.out_spec
        structure = leaves[0] if spec is None else pytree.tree_unflatten(leaves, spec)
        self.graph.structure = None if structure == Port(0) else structure


def aliases(node: fx.Node) -> set[fx.Node]:
    """The nodes whose result shares memory with that of `node`: views of it, what it is a view of, in-place results."""
    found, stack = {node}, [node]
    while stack:
        seen = stack.pop()
        near = [user for user in seen.users if _shares_memory(user) and user.args and user.args[0] is seen]
        if _shares_memory(seen) and seen.args and isinstance(seen.args[0], fx.Node):
            near.append(seen.args[0])
        for other in near:
            if other not in found:
                found.add(other)
                stack.append(other)
    return found


def _shares_memory(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if node.target in (aten.reshape.default, aten.contiguous.default, aten.flatten.using_ints, aten.to.dtype):
        return True
    return any(returned.alias_info is not None for returned in node.target._schema.returns)


def _functional(target: Any) -> Any:
    """The operator that returns what an in-place one writes. Raises QirError when there is none."""
    packet, name = target._schema.name.removeprefix("aten::"), target._overloadname
    plain = getattr(aten, packet.removesuffix("_"), None)
    if plain is None or not packet.endswith("_") or name not in plain.overloads():
        raise QirError(f"{target} changes its argument, and has no twin that returns the result", stage="import")
    return getattr(plain, name)


def _lowering_of(target: Any) -> Lowering | None:
    """The lowering of an ATen operator: that of the torch function or method of its name."""
    if not isinstance(target, torch._ops.OpOverload):
        return lowers.of_function(target)
    if target._schema.name == "aten::sym_size":
        return lowers.table["Tensor.size"]
    if not target._schema.name.startswith("aten::") or target._overloadname.endswith(("Tensor_mode", "Scalar_mode")):
        return None
    name = target._schema.name.removeprefix("aten::").rstrip("_")
    for home in (torch, F):
        found = lowers.of_function(getattr(home, name, None)) if hasattr(home, name) else None
        if found is not None:
            return found
    return lowers.of_method(name)


_SINGLE_CALL = {kind.__name__ for kind in lowers.table if isinstance(kind, type) and issubclass(kind, nn.Module)}
