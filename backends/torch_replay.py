"""Runs of an emitted module with some of its quantizers on, each from what an earlier run computed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from qir.backends.torch_quantizers import Quantizer, quantizers_of

ROOM = 1 << 30
"""Bytes of computed values that are kept; batches beyond them are run from their inputs every time."""

Values = dict[fx.Node, Any]


class Replay:
    """Runs `module` on `batches`, in evaluation mode and without gradients; a batch has what each placeholder takes.

    What a run computed with the quantizers `base` on is kept, as far as there is room. A run with others on computes
    only what depends on a quantizer that changed, so it takes half of the time on average, and gives the same bits.
    """

    def __init__(
        self, module: fx.GraphModule, batches: Sequence[Sequence[Any]], base: Collection[Quantizer], room: int = ROOM
    ) -> None:
        self.module, self.batches, self.base = module, batches, frozenset(base)
        self.quantizers = [quantizer for _, quantizer in quantizers_of(module)]
        self.rounding = {
            node: {part for part in module.get_submodule(str(node.target)).modules() if isinstance(part, Quantizer)}
            for node in module.graph.nodes
            if node.op == "call_module"
        }
        self.output = next(node for node in module.graph.nodes if node.op == "output")
        inputs = {node for node in module.graph.nodes if node.op == "placeholder"}
        self.moving = self._dependents(inputs)
        self.constants: Values = {}
        self.kept: list[Values] = []
        for values in self.runs(self.base):
            self.constants = self.constants or {node: v for node, v in values.items() if node not in self.moving}
            own = {node: value for node, value in values.items() if node in self.moving}
            room -= _bytes(own)
            if room < 0:
                break
            self.kept.append(own)

    def runs(self, on: Collection[Quantizer]) -> Iterator[Values]:
        """For every batch, what all nodes compute with exactly the quantizers `on` rounding."""
        changed = self.base ^ frozenset(on)
        called = {node for node, held in self.rounding.items() if held & changed}
        stale = self._dependents(called)
        for number, inputs in enumerate(self.batches):
            known = {**self.constants, **(self.kept[number] if number < len(self.kept) else {})}
            fresh = {node: value for node, value in known.items() if node not in stale}
            with rounding(self.quantizers, on), evaluating(self.module):
                run = fx.Interpreter(self.module, garbage_collect_values=False)
                run.run(*inputs, initial_env=fresh, enable_io_processing=False)
            yield run.env

    def outputs(self, on: Collection[Quantizer]) -> Iterator[list[Tensor]]:
        """For every batch, the tensors that the module returns with exactly the quantizers `on` rounding."""
        for values in self.runs(on):
            yield tensors(values[self.output])

    def _dependents(self, sources: AbstractSet[fx.Node]) -> set[fx.Node]:
        """The nodes `sources`, and all that compute with what these compute."""
        found = set(sources)
        for node in self.module.graph.nodes:
            if any(read in found for read in node.all_input_nodes):
                found.add(node)
        return found


def tensors(nest: Any) -> list[Tensor]:
    """The tensors in a nest."""
    return [leaf for leaf in pytree.tree_leaves(nest) if isinstance(leaf, Tensor)]


@contextmanager
def rounding(quantizers: Sequence[Quantizer], on: Collection[Quantizer]) -> Iterator[None]:
    """Let exactly the quantizers `on` round for a while."""
    changing = [q for q in quantizers if q.enabled != (q in on) or q.observer is not None]  # assignments are slow
    before = [(quantizer, quantizer.enabled, quantizer.observer) for quantizer in changing]
    try:
        for quantizer in changing:
            quantizer.enabled, quantizer.observer = quantizer in on, None
        yield
    finally:
        for quantizer, enabled, observer in before:
            quantizer.enabled, quantizer.observer = enabled, observer


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Let the module be in evaluation mode for a while, and compute without gradients."""
    training = [inner for inner in module.modules() if inner.training]
    try:
        for inner in training:
            inner.training = False
        with torch.no_grad():
            yield
    finally:
        for inner in training:
            inner.training = True


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread for a while: kernels round otherwise on several."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def _bytes(values: Values) -> int:
    storages = {
        leaf.untyped_storage().data_ptr(): leaf.untyped_storage().nbytes()
        for leaf in pytree.tree_leaves(list(values.values()))
        if isinstance(leaf, Tensor)
    }
    return sum(storages.values())
