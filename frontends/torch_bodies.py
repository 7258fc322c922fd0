"""The layers of an emitted module that hold the bodies of an operator, as that operator again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx, nn

from qir.frontends.torch_lowerings import Builder, class_name
from qir.graph import Graph, Value
from qir.infer import infer_types

Read = Callable[[fx.GraphModule], Graph]


def with_bodies(build: Builder, layer: nn.Module, args: Sequence[Any], read: Read) -> Any:
    """The results of If or Loop, where the layer is emitted of one; else None. `read` imports a module."""
    kind = _KINDS.get(class_name(layer))
    return None if kind is None else kind(build, layer, [build.value(argument) for argument in args], read)


def _if(build: Builder, layer: Any, operands: list[Value | None], read: Read) -> Any:
    captured = operands[1:]
    branches = {
        name: _body(read, getattr(layer, name), captured, len(captured)) for name in ("then_branch", "else_branch")
    }
    return _added(build, "If", operands, branches, branches["then_branch"].outputs)


def _loop(build: Builder, layer: Any, operands: list[Value | None], read: Read) -> Any:
    number = build.graph.constant(0)
    given = [number, *operands[1:]]
    body = _body(read, layer.body, given, len(given) - 2 - layer.states)
    build.graph.remove_weight(number)
    return _added(build, "Loop", operands, {"body": body}, body.outputs[1:])


_KINDS: dict[str, Callable[[Builder, Any, list[Value | None], Read], Any]] = {
    "qir.backends.torch_onnx_control.If": _if, "qir.backends.torch_onnx_control.Loop": _loop,
}  # fmt: skip


def _body(read: Read, block: fx.GraphModule, given: Sequence[Value | None], captured: int) -> Graph:
    body = read(block)
    for value, like in zip(body.inputs, given, strict=True):
        value.type = value.type if like is None else like.type
    infer_types(body)
    body.captured = captured
    return body


def _added(build: Builder, op: str, operands: Any, bodies: dict[str, Graph], like: Sequence[Value]) -> Any:
    node = build.graph.add(op, operands, bodies, types=[value.type for value in like])
    build.added.append(node)
    return node.result if len(node.results) == 1 else list(node.results)
