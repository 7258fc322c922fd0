"""What a forward that is traced is told when it asks whether a value is a tensor: the symbol for one is none itself."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import fx, nn

from qir.frontends.torch_lines import is_users

_ARITHMETIC = {
    operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul, operator.pow, operator.neg,
    operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow,
}  # fmt: skip


class TellsTensors:
    """Inside, `isinstance` and `torch.is_tensor` in files that were told of know the symbols that stand for tensors.

    Of a symbol of which it is not known what it stands for they say, as Python does, that it is a Proxy and nothing
    else.
    """

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.files: list[dict[str, Any]] = []
        self.is_tensor = torch.is_tensor

    def __enter__(self) -> TellsTensors:
        torch.is_tensor = lambda obj: self._is_a(obj, torch.Tensor)  # type: ignore[assignment]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        torch.is_tensor = self.is_tensor
        for names in self.files:
            del names["isinstance"]

    def tell(self, module: nn.Module) -> None:
        """From here on, the file with the forward of this module knows."""
        names = getattr(module.forward, "__globals__", {})
        if "isinstance" not in names and is_users(names.get("__file__") or ""):
            names["isinstance"] = self._is_a
            self.files.append(names)

    def _is_a(self, obj: Any, kinds: Any) -> bool:
        if isinstance(obj, kinds):
            return True
        return isinstance(obj, fx.Proxy) and self._is_tensor(obj.node) and issubclass(torch.Tensor, kinds)

    def _is_tensor(self, node: fx.Node) -> bool:
        match node.op:
            case "placeholder" | "get_attr":
                return True
            case "call_module":
                layer = self.root.get_submodule(str(node.target))
                own = type(layer).__module__.startswith("torch.nn.modules.")
                return own and type(layer).forward.__annotations__.get("return") in (torch.Tensor, "Tensor")
            case "call_method":
                return _returns_tensor(str(node.target))
        if node.target in (operator.getitem, *_ARITHMETIC):
            return any(isinstance(arg, fx.Node) and self._is_tensor(arg) for arg in node.args)
        return getattr(torch, getattr(node.target, "__name__", ""), None) is node.target and _returns_tensor(
            node.target
        )


@cache
def _returns_tensor(function: str | Callable[..., Any]) -> bool:
    """Whether a function of torch, or the method of this name, returns one tensor, whatever it is given."""
    name = function if isinstance(function, str) else function.__name__
    found = [
        schema
        for schema in torch._C._jit_get_schemas_for_operator(f"aten::{name}")
        if schema.arguments and str(schema.arguments[0].type) == "Tensor"
    ]
    return bool(found) and all([str(result.type) for result in schema.returns] == ["Tensor"] for schema in found)
