"""Reads the quantizers of a QDQ model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qir.encodings.encoding import Encoding, ProductEncoding
from qir.graph import Graph, Node, Value
from qir.paths import Paths
from qir.pipeline import Pass
from qir.quantizers import quantizer_of
from qir.rewrite import Miss, Note, Outcome
from qir.traits import Weighted
from qir.types import NUMPY, integer_range
from qir.weights import Weight


@dataclass(frozen=True)
class FoldQdq(Pass, name="fold-qdq"):
    """Make a calibrated quantizer of each QuantizeLinear with its DequantizeLinear, and of each integer weight.

    A weight that is stored in integers becomes the float weight that they stand for, and its quantizer; so does a table
    of which integers are looked up: the float values are looked up then. Quantizers that read the same scale and zero
    point share an encoding; a bias whose scale is the product of the two that it is added to, has the product of their
    encodings. `legalize-onnx` writes the same integers again, bit for bit.

        graph @g(%x: f32[2]) {
          %x_quantized = QuantizeLinear %x, f32[](0.5), u8[](7) : u8[2]
          %x_q = DequantizeLinear %x_quantized, f32[](0.5), u8[](7) : f32[2]
          return %x_q
        }
        -->
        graph @g(%x: f32[2]) {
          %x_q = qir.Quantize %x {encoding=$x_q} : f32[2] [x_quantizer]
          return %x_q
          $x_q = u8 asymmetric scale=0.5 zero_point=7
        }
    """

    def run(self, graph: Graph) -> Outcome:
        """Fold every DequantizeLinear, those of biases last."""
        folder, outcome = _Folder(graph), Outcome()
        nodes = [node for node in graph.nodes() if node.op == "DequantizeLinear"]
        for node in sorted(nodes, key=lambda node: node.operands[0].type.dtype == "i32"):
            match folder.quantizer(node):
                case Miss() as miss:
                    outcome.missed.append(Note.of(node, miss))
                case new:
                    outcome.done.append(Note.of(node, "is a quantizer"))
                    graph.replace(node.result, new)
                    graph.erase_dead(node)
        return outcome


@dataclass
class _Folder:
    graph: Graph
    encodings: dict[tuple[Any, ...], Encoding] = field(default_factory=dict)
    weights: dict[tuple[Value, Encoding], Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.paths = Paths(self.graph)

    def quantizer(self, node: Node) -> Value | Miss:
        """The value of a quantizer that stands for the node's."""
        points = node.operands[0]
        encoding = self.encoding(node)
        if isinstance(encoding, Miss):
            return encoding
        if points.weight is not None:
            return self.of_weight(node, points, encoding)
        if points.node is not None and points.node.op == "Gather" and points.node.operands[0].weight is not None:
            return self.of_table(node, points.node)
        if points.node is None or points.node.op != "QuantizeLinear":
            return Miss("the integers come from elsewhere than a QuantizeLinear")
        source = points.node
        if any(use.node.op != "DequantizeLinear" for use in points.uses) or points.is_output:
            return Miss("the integers are read by others")
        if not _same_grid(source, node):
            return Miss("its QuantizeLinear has another grid")
        return self.add(source.operands[0], encoding, node)

    def encoding(self, node: Node) -> Encoding | Miss:
        """The encoding of the node's constants, shared by all that read the same."""
        points, scale, *rest = node.operands
        zero = rest[0] if rest else None
        if scale.weight is None or (zero is not None and zero.weight is None):
            return Miss("its scale or zero point is computed")
        dtype = points.type.dtype
        if node.attr("block_size") or scale.type.dtype != "f32" or not _is_integer(dtype):
            return Miss("only integer grids without blocks, with scales in f32, are encodings")
        numbers = np.asarray(scale.array)
        zeros = np.zeros(numbers.shape, np.int64) if zero is None else np.asarray(zero.array)
        if numbers.size != 1 and points.type.rank is None:
            return Miss("the rank of the tensor is not known")
        axis = None if numbers.size == 1 else node.attr("axis") % points.type.rank
        shape = () if axis is None else numbers.shape
        if zeros.size != numbers.size or not np.all(numbers > 0):
            return Miss("its scales are not positive, or there is not one zero point for each")
        key = (scale, zero, dtype, axis)
        if key not in self.encodings:
            symmetric = dtype is not None and dtype[0] == "i" and not np.any(zeros)
            made = Encoding(str(dtype), symmetric=symmetric, axis=axis, scale=numbers.reshape(shape),
                            zero_point=zeros.reshape(shape).astype(NUMPY[str(dtype)]))  # fmt: skip
            self.encodings[key] = made
        return self.encodings[key]

    def of_weight(self, node: Node, points: Value, encoding: Encoding) -> Value | Miss:
        """A quantizer of the float weight that the integers stand for."""
        values = encoding.dequantize(points.array)
        if not np.array_equal(encoding.quantize(values), points.array):
            return Miss("its integers are too large to be told apart in float32")
        for product in _products(node):
            if product.scale is not None and product.scale.tobytes() == encoding.broadcast(1)[0].tobytes():
                encoding = product
        if (points, encoding) not in self.weights:
            name = points.hint.removesuffix("_quantized")
            plain = points.weight is None or not points.weight.paths
            paths = () if plain else (self.paths.new("", name),)
            float_weight = self.graph.weight(Weight(values, paths, trainable=not plain), hint=name)
            self.weights[points, encoding] = self.add(float_weight, encoding, node)
        return self.weights[points, encoding]

    def of_table(self, node: Node, lookup: Node) -> Value | Miss:
        """What is looked up of the float table that the integers stand for, which has a quantizer."""
        table, indices = lookup.operands
        axis = _axis_of_table(node, lookup)
        if isinstance(axis, Miss):
            return axis
        attrs = {**node.attrs, "axis": axis}
        stored = self.graph.add("DequantizeLinear", [table, *node.operands[1:]], attrs, like=node)
        values = self.quantizer(stored)
        self.graph.erase(stored)
        if isinstance(values, Miss):
            return values
        hint = node.result.hint
        return self.graph.add("Gather", [values, indices], lookup.attrs, like=lookup, hint=hint).result

    def add(self, x: Value, encoding: Encoding, node: Node) -> Value:
        """A quantizer of `x` in a layer of its own."""
        layer = self.paths.new("", f"{x.hint}_quantizer")
        attrs = {"encoding": encoding}
        return self.graph.add("qir.Quantize", [x], attrs, module=layer, hint=node.result.hint, locs=node.locs).result


def _axis_of_table(node: Node, lookup: Node) -> int | Miss:
    """Which axis of a table has the scales with which what is looked up of it is dequantized."""
    table, indices = (value.type.rank for value in lookup.operands)
    if node.operands[1].array.size == 1:
        return int(node.attr("axis"))
    if table is None or indices is None:
        return Miss("the rank of the table or of the indices is not known")
    axis, rows = node.attr("axis") % (table + indices - 1), lookup.attr("axis") % table
    if rows <= axis < rows + indices:
        return Miss("its scales are those of places, and not of features")
    return int(axis if axis < rows else axis - indices + 1)


def _is_integer(dtype: str | None) -> bool:
    try:
        return dtype is not None and integer_range(dtype) is not None
    except ValueError:
        return False


def _same_grid(source: Node, node: Node) -> bool:
    """Whether QuantizeLinear and DequantizeLinear have equal constants and axes."""
    first, second = ([value for value in each.operands[1:3] if value is not None] for each in (source, node))
    equal = len(first) == len(second) and all(map(_equal, first, second))
    return equal and source.attr("axis") == node.attr("axis")


def _equal(a: Value, b: Value) -> bool:
    if a is b:
        return True
    return a.weight is not None and b.weight is not None and a.type == b.type and np.array_equal(a.array, b.array)


def _products(node: Node) -> Iterator[ProductEncoding]:
    """The grids of the accumulators that all readers of the node add it to; none when they differ."""
    found = []
    for reader, port in node.result.uses:
        weighted = reader.definition.trait(Weighted)
        if weighted is None or port != weighted.bias:
            return
        factors = [quantizer_of(reader.operands[number]) for number in (weighted.input, weighted.weight)]
        if None in factors:
            return
        found.append([factor.attrs["encoding"] for factor in factors if factor is not None])
    if found and all(pair == found[0] for pair in found) and not any(isinstance(e, ProductEncoding) for e in found[0]):
        yield ProductEncoding(input=found[0][0], weight=found[0][1])
