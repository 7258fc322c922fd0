"""Opaque calls, as the framework made them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qir.attributes import Port, Symbol, TrainingMode
from qir.backends.torch_emissions import Emission
from qir.backends.torch_named import check_attribute, framework_object
from qir.graph import Node, Value
from qir.nests import map_nested


def opaque_call(node: Node) -> Emission:
    """The call that an opaque node stands for, values in the places of its operands."""
    operands = node.operands

    def fill(part: Any) -> Any:
        return operands[part.index] if isinstance(part, Port) else part

    args, kwargs = (map_nested(node.attrs.get(name, empty), fill) for name, empty in (("args", ()), ("kwargs", {})))
    if node.host is not None:
        return Emission(node.host, args, kwargs)
    target = framework_object(node.op)
    if target is getattr:
        check_attribute(args[1] if len(args) > 1 else None)
    return Emission(target, args, kwargs)


def resolved(part: Any, known: Mapping[Value, Any]) -> Any:
    """The arguments of a call in evaluation mode, with what `known` holds for each value."""

    def leaf(part: Any) -> Any:
        match part:
            case Value():
                return known[part]
            case Symbol(name):
                return framework_object(name)
            case TrainingMode():
                return False
        return part

    return map_nested(part, leaf)
