"""Stores what is computed from weights alone as weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qir.attributes import TRAINING
from qir.errors import QirError
from qir.evaluate import results_of
from qir.expansions import plain_call
from qir.facts import is_quantizer
from qir.graph import Graph, Node, Use, Value
from qir.paths import Paths
from qir.pipeline import Pass
from qir.rewrite import Miss, Outcome, rewrite
from qir.traits import Stateful, Weighted
from qir.types import NUMPY, ScalarType, TensorType
from qir.weights import Weight

SMALL = 1 << 16
"""So many bytes are stored wherever they come from."""
LARGEST = 1 << 30
"""So many bytes are computed on the way, unless the weights themselves are larger."""


@dataclass(frozen=True)
class FoldConstants(Pass, name="fold-constants"):
    """Put a weight in the place of what is computed from weights and literals alone; for inference.

    A result that a layer reads as its weight or bias is always stored; another one where it is no larger than the
    weights that it is made of, or than 64 KiB: so no mask or table that a few numbers stand for grows the model. What
    draws random numbers, follows the training mode or holds a grid is left alone. ONNX's reference evaluator computes
    the results; a layer with parametrizations (or the weight norm and spectral norm of torch's older hooks) becomes a
    plain layer with the parameters that torch computes in evaluation.

    A result of trainable weights is trainable, and is named as the parameter of the layer that reads it. From then on
    it is what trains: the weights that it was made of are gone, unless something else reads them, too.

    graph @g(%x: f32[1,2]) {
      %w = weight fc.weight : f32[2,2] #0000000000000000 trainable
      %scale = Mul f32[1,2](3.0, 5.0), 0.5 : f32[1,2]
      %y = Mul %x, %scale : f32[1,2] [scaled]
      %fc = MatMul %y, %w : f32[1,2] [fc]
      return %fc
    }
    -->
    graph @g(%x: f32[1,2]) {
      %w = weight fc.weight : f32[2,2] #0000000000000000 trainable
      %y = Mul %x, f32[1,2](1.5, 2.5) : f32[1,2] [scaled]
      %fc = MatMul %y, %w : f32[1,2] [fc]
      return %fc
    }
    """

    numerics = "rounds"

    def run(self, graph: Graph) -> Outcome:
        """Make layers plain first, then compute everything once, and store what something else reads."""
        outcome = rewrite(graph, {_Opaque(): plain_call, "Identity": the_weight})
        constants = _Constants(graph)
        outcome.add(rewrite(graph, {constants: constants.store}))
        return outcome


def the_weight(node: Node, graph: Graph) -> Value | None:
    """What an Identity is of, where that is a weight: layers that read it stay tied."""
    return node.operands[0] if node.operands[0].weight is not None and not node.result.is_output else None


class _Opaque:
    """The pattern of every opaque call."""

    def is_kind(self, node: Node) -> bool:
        return node.definition.opaque

    def match(self, node: Node) -> Node:
        return node


@dataclass(frozen=True)
class _Computed:
    """What a value is, and the weights that it is made of."""

    array: np.ndarray
    sources: frozenset[Value]

    @property
    def worth_storing(self) -> bool:
        """Whether it takes no more memory than what it is made of, or next to none."""
        return bool(self.array.nbytes <= max(SMALL, _bytes(self.sources)))


class _Constants:
    """The pattern of nodes that are computed from constants and read by something that is not."""

    def __init__(self, graph: Graph) -> None:
        self.paths = Paths(graph)
        self.known: dict[Value, _Computed] = {}
        self.missed: dict[Node, Miss] = {}
        nodes = graph.nodes()
        for node in nodes:
            if all(value is None or value.weight is not None or value in self.known for value in node.operands):
                self.compute(node)
        self.stored: dict[Node, list[Value]] = {}
        for node in reversed(nodes):
            if node.results[0] in self.known:
                self.choose(node)

    def compute(self, node: Node) -> None:
        """Note what the node computes, if it is the same every time."""
        if (reason := _obstacle(node)) is not None:
            self.missed[node] = Miss(reason)
            return
        if _is_grid(node) or any(isinstance(result.type, ScalarType) for result in node.results):
            return
        size = sum(_bytes_of(result.type) for result in node.results)
        try:
            parts = [None if value is None else self.part(value) for value in node.operands]
            sources = frozenset(source for part in parts if part is not None for source in part.sources)
            if size > max(LARGEST, _bytes(sources)):
                raise QirError(f"it has {size:,} bytes")
            results = results_of(node, [None if part is None else part.array for part in parts])
            if any(isinstance(result, list) for result in results):
                raise QirError("it makes a list, and a weight is a tensor")
        except QirError as error:
            self.missed[node] = Miss(error.message, error.help or "")
            return
        for value, made in zip(node.results, results, strict=False):
            self.known[value] = _Computed(np.asarray(made), sources)

    def part(self, value: Value) -> _Computed:
        """A constant operand."""
        return self.known[value] if value in self.known else _Computed(value.array, frozenset([value]))

    def choose(self, node: Node) -> None:
        """Store the results of the node that something else reads, or keep the node, whose operands are read then."""
        read = [value for value in node.results if value in self.known and (value.is_output or self.readers(value))]
        large = [value for value in read if not self.is_parameter(value) and not self.known[value].worth_storing]
        if large:
            self.missed[node] = Miss(f"it has {self.known[large[0]].array.nbytes:,} bytes, and is made of fewer")
            for value in node.results:
                self.known.pop(value, None)
        elif read:
            self.stored[node] = read

    def readers(self, value: Value) -> list[Use]:
        """The uses by nodes that stay."""
        return [use for use in value.uses if use.node.results[0] not in self.known]

    def is_parameter(self, value: Value) -> bool:
        """Whether a layer reads the value as its weight or bias."""
        return any(_parameter(use) for use in self.readers(value))

    def is_kind(self, node: Node) -> bool:
        return True

    def match(self, node: Node) -> Node | Miss | None:
        return self.missed.get(node) or (node if node in self.stored else None)

    def store(self, node: Node, graph: Graph) -> Mapping[Value, Value]:
        """The weights that take the place of the node's results."""
        return {value: self.weight(value, graph) for value in self.stored[node]}

    def weight(self, value: Value, graph: Graph) -> Value:
        """The weight that takes the place of a result; a literal where it is made of literals."""
        found = self.known[value]
        held = [source.weight for source in found.sources if source.weight is not None and source.weight.paths]
        if not held:
            return graph.constant(found.array, value.hint)
        path = self.paths.new(*self.place(value))
        trainable = any(weight.trainable for weight in held) and found.array.dtype.kind not in "biu"
        persistent = any(weight.persistent for weight in held)
        return graph.weight(Weight(found.array, (path,), trainable=trainable, persistent=persistent))

    def place(self, value: Value) -> tuple[str, str]:
        """The layer that a weight belongs to, and what it is there."""
        for use in self.readers(value):
            if use.node.module and (name := _parameter(use)):
                return use.node.module, name
        return "", value.hint


def _obstacle(node: Node) -> str | None:
    """Why a node may compute something else the next time, if it may."""
    if node.definition.opaque:
        return "it is opaque, and may compute something else the next time"
    if node.definition.trait(Stateful) is not None:
        return "it draws random numbers or updates state when training"
    if any(value is TRAINING for value in node.attrs.values()):
        return "it follows the training mode"
    return "it has bodies" if node.bodies else None


def _is_grid(node: Node) -> bool:
    """Whether the node says on which grid a tensor lies, which its values alone do not."""
    return is_quantizer(node) or node.op in ("QuantizeLinear", "DequantizeLinear")


def _parameter(use: Use) -> str:
    """What the operand is to a layer that multiplies by weights: `weight` or `bias`; nothing for any other."""
    weighted = use.node.definition.trait(Weighted)
    ports = {} if weighted is None else {weighted.weight: "weight", weighted.bias: "bias"}
    return ports.get(use.port, "")


def _bytes(sources: frozenset[Value]) -> int:
    return sum(source.array.nbytes for source in sources)


def _bytes_of(type: Any) -> int:
    """The bytes of a tensor of this type; 0 where its size is not known."""
    if not isinstance(type, TensorType) or type.static is None or type.dtype is None:
        return 0
    return int(np.prod(type.static, dtype=np.int64)) * np.dtype(NUMPY[type.dtype]).itemsize
