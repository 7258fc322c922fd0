"""Where a prepared module and its model part: the first call whose result differs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.fx.graph import _PyTreeCodeGen
from torch.utils import _pytree as pytree

Same = Callable[[Any, Any], bool]


def first_difference(
    model: nn.Module,
    prepared: fx.GraphModule,
    run: Callable[[], Any],
    run_prepared: Callable[[nn.Module], Any],
    same: Same,
) -> str | None:
    """The first call of `prepared` whose result differs from the model's: its layer and the user's line.

    `run` runs the model and `run_prepared` a module that takes its inputs. Layers of both have the same paths, so the
    call is known to lie between two layers; it is the first of those there that are not in the model. None where
    everything that can be compared is the same.
    """
    observed: dict[str, list[tuple[Any, Any]]] = defaultdict(list)
    hooks = [
        module.register_forward_hook(_observer(observed[path]), with_kwargs=True)
        for path, module in model.named_modules(remove_duplicate=False)
        if path
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    comparison = _Comparison(prepared, observed, same)
    run_prepared(_Called(prepared.graph, comparison))
    return None if comparison.found is None else _described(comparison.what, comparison.found)


def _observer(calls: list[tuple[Any, Any]]) -> Callable[..., None]:
    def note(module: nn.Module, args: Any, kwargs: Any, returned: Any) -> None:
        calls.append((_leaves((args, kwargs)), _leaves(returned)))

    return note


def _leaves(nest: Any) -> list[Any]:
    return [leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf for leaf in pytree.tree_leaves(nest)]


class _Called(nn.Module):
    """Runs a module call by call."""

    def __init__(self, graph: fx.Graph, interpreter: fx.Interpreter) -> None:
        super().__init__()
        self.graph, self.interpreter = graph, interpreter

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.interpreter.run(*placed(self.graph, args, kwargs), enable_io_processing=False)


def placed(graph: fx.Graph, positional: Sequence[Any], keywords: Mapping[str, Any]) -> Sequence[Any]:
    """The arguments of a call in the order of the graph's placeholders."""
    if isinstance(graph._codegen, _PyTreeCodeGen):
        return pytree.arg_tree_leaves(*positional, **keywords)
    rest = [node for node in graph.nodes if node.op == "placeholder"][len(positional) :]
    return [*positional, *(keywords.get(str(node.target), *node.args) for node in rest)]


class _Comparison(fx.Interpreter):
    """Compares what every layer is given and returns with what was observed; `found` is the first call that differs."""

    def __init__(self, prepared: fx.GraphModule, observed: dict[str, list[tuple[Any, Any]]], same: Same) -> None:
        super().__init__(prepared)
        self.observed = {path: iter(calls) for path, calls in observed.items()}
        self.same = same
        self.equal: set[fx.Node] = set()
        self.found: fx.Node | None = None
        self.what = ""

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        given = _leaves((args, kwargs))
        result = super().run_node(n)
        if n.op in ("placeholder", "get_attr"):
            self.equal.add(n)
        calls = self.observed.get(str(n.target)) if n.op == "call_module" else None
        expected = None if calls is None else next(calls, None)
        if self.found is None and expected is not None:
            if not self._same(given, expected[0]):
                self.found = self._before(n) or n
                self.what = "what is given to" if self.found is n else ""
            elif not self._same(_leaves(result), expected[1]):
                self.found = n
            self.equal.add(n)
        elif self.found is None and n.op == "output":
            self.found = self._before(n)
        return result

    def _same(self, ours: list[Any], theirs: list[Any]) -> bool:
        tensors = [[leaf for leaf in leaves if isinstance(leaf, torch.Tensor)] for leaves in (ours, theirs)]
        return len(tensors[0]) == len(tensors[1]) and all(map(self.same, *tensors))

    def _before(self, node: fx.Node) -> fx.Node | None:
        """The first of the calls behind a node that no layer of the model stands for."""
        behind: set[fx.Node] = set()
        stack = list(node.all_input_nodes)
        while stack:
            seen = stack.pop()
            if seen not in behind and seen not in self.equal:
                behind.add(seen)
                stack += seen.all_input_nodes
        return next((other for other in self.module.graph.nodes if other in behind), None)  # type: ignore[union-attr]


def _described(what: str, node: fx.Node) -> str:
    source = node.meta.get("source", "")
    called = f"the layer {node.target}" if node.op == "call_module" else f"the call {node.format_node()}"
    return f"differs first: {what} {called}".replace("  ", " ") + (f"\n--> {source}" if source else "")
