"""Which module makes a call that `torch.export` recorded."""

from __future__ import annotations

import re
from typing import Any

from torch import fx, nn

from qir.frontends.torch_aten import CELLS, RECURRENT, SINGLE_CALL, aten
from qir.frontends.torch_calls import follows_training
from qir.frontends.torch_program import Recording
from qir.frontends.torch_spans import BEGIN


class Callers:
    """Reads the modules, from the outermost inwards, whose forward makes a call of the model."""

    def __init__(self, model: Any, recording: Recording) -> None:
        self.model = model
        self.regularizers = recording.regularizers
        self.spans = recording.spans

    def stack(self, node: fx.Node) -> list[tuple[str, str]]:
        """Path and class of each module."""
        stack = (node.meta.get("nn_module_stack") or {}).values()
        known = [(re.sub(r"@\d+", "", str(path)), str(kind)) for path, kind in stack]
        return [] if known and known[0][0].startswith("_empty") else known  # torch's word for "not known"

    def layer(self, node: fx.Node) -> str | None:
        """The path of the torch.nn layer that makes the call, when it is one that a single call computes."""
        stack = self.stack(node)
        if not stack:
            return None
        path, kind = stack[-1]
        if self.regularizer(node) is not None:
            return path
        if node.target is BEGIN and isinstance(self.spans[str(node.args[2])].of, nn.Module):
            return path
        if node.target is aten.batch_norm.default and isinstance(self.model, nn.Module):
            return path if follows_training(self.model.get_submodule(path)) else None
        home = kind.rpartition(".")[0]
        if home == nn.LSTM.__module__ and node.target not in RECURRENT | CELLS:
            return None
        if home != nn.ZeroPad2d.__module__ and node.target is aten.pad.default:  # of a convolution
            return None
        return path if kind.startswith("torch.nn.modules.") and kind.rpartition(".")[2] in SINGLE_CALL else None

    def only_call_of(self, node: fx.Node) -> nn.Module | None:
        """The layer that makes this call of its one argument and no other."""
        path = self.layer(node) if isinstance(self.model, nn.Module) else None
        near = [*node.all_input_nodes, *node.users]
        alone = path is not None and all((self.stack(other) or [("", "")])[-1][0] != path for other in near)
        return self.model.get_submodule(path) if alone and len(node.all_input_nodes) == 1 else None

    def is_identity(self, node: fx.Node) -> bool:
        """Whether the call is the return of an nn.Identity."""
        stack = self.stack(node)
        return bool(stack) and stack[-1][1].endswith(".Identity")

    def regularizer(self, node: fx.Node) -> nn.Module | None:
        """The module whose return of its argument this is."""
        stack = self.stack(node) if self.regularizers and node.target is aten.alias.default else []
        module = self.model.get_submodule(stack[-1][0]) if stack else None
        return module if module in self.regularizers else None

    def rate(self, node: fx.Node) -> float:
        """The rate of dropout in training of the attention layer that makes the call."""
        stack = self.stack(node) if isinstance(self.model, nn.Module) else []
        module = self.model.get_submodule(stack[-1][0]) if stack else None
        return float(module.dropout) if isinstance(module, nn.MultiheadAttention) else 0.0

    def follows_training(self, node: fx.Node) -> bool:
        """Whether a layer makes the call that computes otherwise in training."""
        if self.rate(node):
            return True
        path = self.layer(node)
        if path is None or not isinstance(self.model, nn.Module) or node.target is not aten.instance_norm.default:
            return path is not None
        return bool(getattr(self.model.get_submodule(path), "track_running_stats", False))

    def in_layer(self, node: fx.Node) -> bool:
        """Whether the call is one of several that a layer of torch.nn makes."""
        stack = self.stack(node)
        home = stack[-1][1].rpartition(".")[0] if stack else ""
        return home.startswith("torch.nn.modules.") and home != nn.Sequential.__module__ and not self.layer(node)

    def scope(self, node: fx.Node) -> str:
        """The path of the module whose forward makes the call, or calls the layer that does."""
        stack = self.stack(node)
        if self.layer(node):
            stack = stack[:-1]
        return stack[-1][0] if stack else ""
