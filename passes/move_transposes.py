"""Moves Transposes to where the fewest are left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qir.arrangements import Reshaped, Step, Taken, Transposed, arranged
from qir.axis_orders.choice import choose_orders
from qir.axis_orders.flattening import taken_up
from qir.axis_orders.flow import OrderFlow, Reader, permutation
from qir.axis_orders.orders import Order, Reading, Reordered, as_written, compose, inverse
from qir.facts import CALIBRATED
from qir.graph import Graph, Node, Value
from qir.paths import tell_views_apart
from qir.pipeline import Pass
from qir.rewrite import Note, Outcome
from qir.types import TensorType, Type, refined


@dataclass(frozen=True)
class MoveTransposes(Pass, name="move-transposes"):
    """Let tensors be stored in the order of axes in which the fewest are transposed, most of all between computations.

    Operators that treat axes alike take another order, their axes renumbered; inverse Transposes cancel; constants are
    transposed here; the weights of a linear layer behind a Flatten take up the order. Inputs and outputs of the graph
    keep theirs. A minimum cut says which operators move, so no Transpose could go by moving more of them.

        graph @g(%x: f32[1,8,8,3], %w: f32[3,3,1,1]) {
          %first = Transpose %x {perm=(0, 3, 1, 2)} : f32[1,3,8,8]
          %conv = Conv %first, %w : f32[1,3,8,8] [conv]
          %last = Transpose %conv {perm=(0, 2, 3, 1)} : f32[1,8,8,3]
          %relu = Relu %last : f32[1,8,8,3] [relu]
          %mean = ReduceMean %relu, i64[2](1, 2) {keepdims=0} : f32[1,3] [mean]
          return %mean
        }
        -->
        graph @g(%x: f32[1,8,8,3], %w: f32[3,3,1,1]) {
          %first = Transpose %x {perm=(0, 3, 1, 2)} : f32[1,3,8,8]
          %conv = Conv %first, %w : f32[1,3,8,8] [conv]
          %relu = Relu %conv : f32[1,3,8,8] [relu]
          %mean = ReduceMean %relu, i64[2](2, 3) {keepdims=0} : f32[1,3] [mean]
          return %mean
        }
    """

    breaks = (CALIBRATED,)
    numerics = "rounds"

    def run(self, graph: Graph) -> Outcome:
        """Choose an order for every tensor, then write the graph with it."""
        flow = OrderFlow(graph)
        choose_orders(flow)
        notes = [Note.of(node, _how(choice)) for node, choice in flow.chosen.items()]
        _Writer(flow).write()
        left = [Note.of(node, "what it reads and what reads it have axes in these orders")
                for node in graph.nodes() if permutation(node) is not None]  # fmt: skip
        return Outcome(notes, left)


def _how(choice: Reordered) -> str:
    order = max((reading.order for reading in choice.readings.values()), key=len)
    return f"has its axes in the order {order}"


class _Writer:
    """Writes the graph with the orders that a flow has chosen."""

    def __init__(self, flow: OrderFlow) -> None:
        self.flow, self.graph = flow, flow.graph
        self.before = list(self.graph.nodes())
        self.stored: dict[Value, Value] = {}
        """What holds a tensor now that a node with another order computes."""
        self.transposed: dict[tuple[Value, Order], Value] = {}
        self.arranged: dict[tuple[Value, tuple[Step, ...]], Value] = {}
        self.absorbed: list[tuple[Node, Order]] = []

    def write(self) -> None:
        """Write every node, operands first, and then what the graph returns."""
        for node in self.before:
            order = permutation(node)
            if order is not None:
                base, whole = self.flow.origin(node.result)
                if node.operands[0] is base and base.node not in self.flow.chosen:
                    self.transposed.setdefault((base, whole), node.result)
        for node in self.flow.nodes:
            if node in self.flow.chosen:
                self.move(node, self.flow.chosen[node])
            else:
                self.keep(node)
        for port, value in enumerate(self.graph.outputs):
            self.graph.outputs[port] = self.output(value)
        for node in reversed(self.before):
            if not node.erased and (node in self.flow.chosen or permutation(node) is not None):
                self.graph.erase_dead(node)
        for flatten, order in (one for one in self.absorbed if not one[0].erased):
            for rows, places in taken_up(self.flow.absorbed[flatten], order):
                taken = self.view(rows.node.operands[rows.port], Taken(rows.axis, places))
                self.graph.set_operand(rows.node, rows.port, taken)
        self.name_weights()

    def keep(self, node: Node) -> None:
        """Let a node read its operands in the order in which it was written."""
        for port, value in enumerate(node.operands):
            if value is None or not isinstance(value.type, TensorType) or value.type.rank is None:
                continue
            base, order = self.flow.origin(value)
            stored = self.flow.stored(base)
            if self.flow.takes(Reader(node, port, order), stored):
                order, taken = stored, compose(inverse(order), stored)
                self.absorbed += [(node, taken)] if node in self.flow.absorbed else []
            found = self.in_order(base, order)
            if found is not value:
                self.graph.set_operand(node, port, found)

    def move(self, node: Node, choice: Reordered) -> None:
        """Put a node in the place of one whose axes come in another order."""
        operands = node.operands
        for port, array in choice.constants.items():
            operands += [None] * (port + 1 - len(operands))
            operands[port] = self.graph.constant(array)
        for port, value in enumerate(node.operands):
            if value is not None and port not in choice.constants:
                operands[port] = self.read(value, choice.readings.get(port))
        new = self.graph.add(node.op, operands, choice.attrs, results=len(node.results), like=node)
        for old, value, order in zip(node.results, new.results, choice.results, strict=True):
            value.hint = old.hint
            value.type = refined(value.type, _reordered_type(old.type, order))
            self.stored[old] = value

    def read(self, value: Value, reading: Reading | None) -> Value:
        """An operand as a node with another order reads it."""
        if reading is None:
            return self.stored.get(value, value)
        base, order = self.flow.origin(value)
        found = self.in_order(base, compose(order, reading.order))
        if not reading.unsqueezed:
            return found
        if self.flow.is_free(base):
            shape = found.type.static or ()
            return self.view(found, Reshaped(shape, _with_ones(shape, reading.unsqueezed)))
        axes = self.graph.constant(np.array(reading.unsqueezed, np.int64))
        return self.graph.add("Unsqueeze", [found, axes]).result

    def in_order(self, base: Value, order: Order) -> Value:
        """A tensor in this order of axes."""
        stored = self.flow.stored(base)
        perm = compose(inverse(stored), order)
        value = self.stored.get(base, base)
        if perm == as_written(len(perm)):
            return value
        if self.flow.is_free(base):
            return self.view(base, Transposed(perm))
        if (base, order) not in self.transposed:
            locs = base.node.locs if base.node is not None else ()
            made = self.graph.add("Transpose", [value], {"perm": perm}, hint=f"{base.hint}_transposed", locs=locs)
            self.transposed[base, order] = made.result
        return self.transposed[base, order]

    def output(self, value: Value) -> Value:
        """What the graph returns for a value: a new Transpose has its name."""
        base, order = self.flow.origin(value)
        found = self.in_order(base, order)
        if found is not value and found is self.transposed.get((base, order)) and base in self.stored:
            inner = self.stored[base]
            found.hint, inner.hint = value.hint, f"{inner.hint}_transposed" if inner.hint == value.hint else inner.hint
        return found

    def view(self, value: Value, step: Step) -> Value:
        """A weight after a step, the same value for all that read it so."""
        assert value.weight is not None
        key = (value, (step,))
        if key not in self.arranged:
            self.arranged[key] = self.graph.weight(arranged(value.weight, step), hint=value.hint)
        return self.arranged[key]

    def name_weights(self) -> None:
        """Remove weights that nothing reads any more, and let the views of one weight have different paths."""
        families: dict[Value, list[Value]] = {}
        root: dict[Value, Value] = {}
        for (value, _), view in self.arranged.items():
            root[view] = root.get(value, value)
            families.setdefault(root[view], [root[view]]).append(view)
        tell_views_apart(self.graph, families.values())


def _with_ones(shape: tuple[int, ...], axes: Order) -> tuple[int, ...]:
    rest = iter(shape)
    return tuple(1 if axis in axes else next(rest) for axis in range(len(shape) + len(axes)))


def _reordered_type(type: Type, order: Order) -> Type:
    """The type of a tensor whose axes come in this order."""
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    return TensorType(type.dtype, tuple(type.shape[axis] for axis in order))
