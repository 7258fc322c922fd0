"""How much each quantizer of a simulator costs: the steps of an analysis, each a function of nothing but its name.

A setting says which grids round. Each is run on all data from what the float model, or the quantized one, computed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import inf
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from qir.analysis.results import Measured
from qir.backends.torch_places import attribute
from qir.backends.torch_quantizers import Quantizer
from qir.backends.torch_replay import Replay, Values, evaluating, rounding, tensors
from qir.backends.torch_tensor_ranges import Power, TensorRanges, is_free
from qir.errors import QirError
from qir.facts import is_quantizer
from qir.graph import Graph, Node
from qir.quantizers import is_fixed, quantizers
from qir.traits import Weighted
from qir.types import NUMPY, TensorType

RANGES, ERRORS = "ranges", "errors"
"""The steps that are no settings."""

Score = Callable[[Sequence[Sequence[Tensor]]], float]
"""A number for all outputs of all batches, the more the better."""


@dataclass(frozen=True)
class Grids:
    """Quantizers on one grid: their nodes in the graph, and their calls in the module, both in order."""

    nodes: list[Node]
    calls: list[fx.Node]
    modules: frozenset[Quantizer]

    @property
    def name(self) -> str:
        """The name of the first."""
        return name_of(self.nodes[0])

    @property
    def layer(self) -> str:
        """The layer that computes or holds what the first rounds; else the one that reads it."""
        written = self.nodes[0].operands[0].node
        if written is not None and written.module is not None:
            return str(written.module)
        return next((use.node.module for use in self.nodes[0].result.uses if use.node.module is not None), "")


def name_of(node: Node) -> str:
    """The path of a quantizer."""
    return node.module or f"{node.operands[0].hint}_quantizer"


class Sensitivity:
    """The steps for a `module` that was emitted from `graph`, on `batches`; disabled quantizers stay off.

    `score` rates outputs beside their SQNR; `evaluate` rates the module itself.
    """

    def __init__(
        self,
        graph: Graph,
        module: fx.GraphModule,
        batches: Sequence[Sequence[Any]],
        score: Score | None = None,
        evaluate: Callable[[fx.GraphModule], float] | None = None,
    ) -> None:
        self.graph, self.module, self.batches = graph, module, batches
        self.score, self.evaluate = score, evaluate
        self.grids = list(_grids(graph, module))
        if not self.grids:
            raise QirError("the model has no quantizers to analyze", stage="analyze", help="quantize it: qir.quantize")
        self.layers = list(_layers(graph, module))
        self.settings = self._settings()

    def _settings(self) -> dict[str, frozenset[str]]:
        """The grids that are on, by name, in every setting."""
        everything = frozenset(grid.name for grid in self.grids)
        weights = frozenset(grid.name for grid in self.grids if kind_of(grid.nodes[0]) != "activation")
        found = {"floating": frozenset[str](), "quantized": everything, "weights": weights,
                 "activations": everything - weights}  # fmt: skip
        units = {f"quantizer {grid.name}": frozenset([grid.name]) for grid in self.grids}
        units |= {f"layer {layer}": frozenset(names) for layer, names in self.members.items()}
        found |= {f"alone: {unit}": names for unit, names in units.items()}
        found |= {f"without: {unit}": everything - names for unit, names in units.items()}
        return found

    @cached_property
    def members(self) -> dict[str, list[str]]:
        """The grids of every layer that has some, by name."""
        found: dict[str, list[str]] = {}
        for grid in self.grids:
            found.setdefault(grid.layer, []).append(grid.name)
        return found

    def steps(self) -> list[str]:
        """The names of all steps: ranges, errors, and a setting each; settings that are alike are one step."""
        first: dict[frozenset[str], str] = {}
        for label, on in self.settings.items():
            first.setdefault(on, label)
        return [RANGES, ERRORS, *first.values()]

    def step_of(self, label: str) -> str:
        """The step that measures a setting."""
        return next(other for other, on in self.settings.items() if on == self.settings[label])

    def run(self, step: str) -> Any:
        """What a step finds out, as JSON can hold it."""
        with torch.no_grad():
            if step == RANGES:
                return self.ranges()
            return self.errors() if step == ERRORS else asdict(self.measured(self.settings[step]))

    # -- settings ----------------------------------------------------------------------------------------------------

    @cached_property
    def from_float(self) -> Replay:
        """Runs beginning at the float model."""
        return Replay(self.module, self.batches, ())

    @cached_property
    def from_quantized(self) -> Replay:
        """Runs beginning at the quantized model."""
        return Replay(self.module, self.batches, self._modules(self.settings["quantized"]))

    @cached_property
    def expected(self) -> list[list[Tensor]]:
        """What the float model returns."""
        found = list(self.from_float.outputs(()))
        if not any(output.is_floating_point() for output in found[0]) and self.score is None and self.evaluate is None:
            raise QirError("the model returns no floats to compare", stage="analyze", help="give labels or a metric")
        return found

    def prepare(self) -> None:
        """Compute what all settings begin with, before processes are forked that share it.

        Raises QirError for a model on a GPU, which forked processes can not use.
        """
        if any(tensor.is_cuda for tensor in self.module.state_dict().values()):
            help = "give jobs=1, or run it under torchrun"
            raise QirError("processes can not share a model on a GPU", stage="analyze", help=help)
        assert self.expected
        assert self.from_quantized

    def _modules(self, names: Collection[str]) -> frozenset[Quantizer]:
        return frozenset(module for grid in self.grids if grid.name in names for module in grid.modules)

    def measured(self, on: frozenset[str]) -> Measured:
        """The model's outputs with exactly these grids on."""
        replay = self.from_float if 2 * len(on) <= len(self.grids) else self.from_quantized
        modules = self._modules(on)
        powers = [Power() for _ in self.expected[0]]
        kept = list(replay.outputs(modules))
        for outputs, expected in zip(kept, self.expected, strict=True):
            for power, exact, rounded in zip(powers, expected, outputs, strict=True):
                power.add(exact, rounded)
        return Measured(_joint(powers).sqnr, self._rated(kept, modules))

    def _rated(self, outputs: list[list[Tensor]], on: frozenset[Quantizer]) -> float | None:
        if self.score is not None:
            return float(self.score(outputs))
        if self.evaluate is None:
            return None
        with rounding(self.from_float.quantizers, on), evaluating(self.module):
            return float(self.evaluate(self.module))

    # -- tensors -----------------------------------------------------------------------------------------------------

    def ranges(self) -> dict[str, Any]:
        """What every grid does to its tensors, by its name."""
        found = {grid.name: self._ranges_of(grid) for grid in self.grids}
        for values in self.from_float.runs(()):
            for grid in self.grids:
                for x in self._moving(grid, values):
                    found[grid.name].look(x)
        for ranges in found.values():
            for weight in ranges.weights:
                ranges.look(weight)
            ranges.fit()
            for weight in ranges.weights:
                ranges.measure(weight)
        for values in self.from_float.runs(()):
            for grid in self.grids:
                for x in self._moving(grid, values):
                    found[grid.name].measure(x)
        return {name: ranges.result() for name, ranges in found.items()}

    def _ranges_of(self, grid: Grids) -> TensorRanges:
        quantizer = next(iter(grid.modules))
        free = is_free(quantizer.encoding) and not any(map(is_fixed, grid.nodes))
        constants = self.from_float.constants
        weights = [constants[call.all_input_nodes[0]] for call in grid.calls if call in constants]
        return TensorRanges(grid.name, quantizer, free, weights if len(weights) == len(grid.calls) else ())

    def _moving(self, grid: Grids, values: Values) -> Iterator[Tensor]:
        """The tensors that a grid rounds, unless all of them are weights."""
        if all(call in self.from_float.constants for call in grid.calls):
            return
        for call in grid.calls:
            yield values[call.all_input_nodes[0]]

    # -- layers ------------------------------------------------------------------------------------------------------

    def errors(self) -> dict[str, Any]:
        """The SQNR of the output of every layer by its name: end to end, and of the layer alone."""
        whole = {layer: Power() for layer, *_ in self.layers}
        own = {layer: Power() for layer, *_ in self.layers}
        runs = zip(self.from_float.runs(()), self.from_quantized.runs(self.from_quantized.base), strict=True)
        with evaluating(self.module):
            for exact, rounded in runs:
                for layer, call, end in self.layers:
                    _add(whole[layer], exact[end], rounded[end])
                    _add(own[layer], exact[end], self._alone(call, end, exact))
        return {layer: {"sqnr": whole[layer].sqnr, "own_sqnr": own[layer].sqnr} for layer in whole}

    def _alone(self, call: fx.Node, end: fx.Node, exact: Values) -> Any:
        """What a layer returns with all quantizers around it, for what the float model gives it."""

        def given(read: fx.Node) -> Any:
            quantizer = self._quantizer(read)
            return exact[read] if quantizer is None else quantizer.grid(exact[read.all_input_nodes[0]])

        args, kwargs = map_arg((call.args, call.kwargs), given)
        result = self.module.get_submodule(str(call.target))(*args, **kwargs)
        quantizer = self._quantizer(end)
        return result if quantizer is None else quantizer.grid(result)

    def _quantizer(self, call: fx.Node) -> Quantizer | None:
        """The quantizer that is called, if one is and it is not disabled."""
        found = self.module.get_submodule(str(call.target)) if call.op == "call_module" else None
        return found if isinstance(found, Quantizer) and found.enabled else None


# -- what there is in a graph and its module -----------------------------------------------------------------------


def kind_of(node: Node) -> str:
    """What a quantizer rounds: a weight, a bias or an activation."""
    if node.operands[0].weight is None:
        return "activation"
    readers = [(use.node.definition.trait(Weighted), use.port) for use in node.result.uses]
    biases = [trait is not None and port == trait.bias for trait, port in readers]
    return "bias" if biases and all(biases) else "weight"


def _grids(graph: Graph, module: fx.GraphModule) -> Iterator[Grids]:
    """The quantizers that are not disabled, by grid, in order."""
    calls = {str(call.target): call for call in module.graph.nodes if call.op == "call_module"}
    found: dict[int, list[tuple[Node, fx.Node, Quantizer]]] = {}
    for node in quantizers(graph):
        path = attribute(name_of(node))
        quantizer = module.get_submodule(path)
        assert isinstance(quantizer, Quantizer)
        if quantizer.enabled:
            found.setdefault(id(quantizer.grid), []).append((node, calls[path], quantizer))
    for members in found.values():
        nodes, called, held = zip(*members, strict=True)
        yield Grids(list(nodes), list(called), frozenset(held))


def _layers(graph: Graph, module: fx.GraphModule) -> Iterator[tuple[str, fx.Node, fx.Node]]:
    """Every layer that computes floats: its path, its call, and that of the quantizer behind it, or its own."""
    calls = {str(call.target): call for call in reversed(module.graph.nodes) if call.op == "call_module"}
    for node in graph.nodes():
        call = None if node.module is None or is_quantizer(node) else calls.get(attribute(node.module))
        if call is not None and node.module is not None and _computes_floats(node):
            yield node.module, call, next((user for user in call.users if _rounds(module, user)), call)


def _computes_floats(node: Node) -> bool:
    dtypes = {result.type.dtype for result in node.results if isinstance(result.type, TensorType)}
    return None in dtypes or any(NUMPY[dtype].kind not in "iub" for dtype in dtypes if dtype is not None)


def _rounds(module: fx.GraphModule, call: fx.Node) -> bool:
    return call.op == "call_module" and isinstance(module.get_submodule(str(call.target)), Quantizer)


def _add(power: Power, exact: Any, rounded: Any) -> None:
    for a, b in zip(tensors(exact), tensors(rounded), strict=True):
        power.add(a, b)


def _joint(powers: Sequence[Power]) -> Power:
    """Several outputs as one in which each has the same weight."""
    relative = [power.noise / power.signal if power.signal else inf for power in powers if power.noise]
    return Power(float(len(powers)), sum(relative))
