"""`move-transposes` on random graphs, and on the shapes of networks that it is for."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from qir import Graph
from qir.evaluate import evaluate
from qir.graph import Value
from qir.passes.move_transposes import MoveTransposes
from qir.types import TensorType
from qir.verify import verify
from qir.weights import Weight


class Draft:
    """A random graph of tensors with four, three and two axes, all built on two inputs."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw, self.graph = draw, Graph()
        self.random = np.random.default_rng(0)
        shapes = [(2, 3, 4, 5), (2, 4, 5, 3)]
        self.values = [self.graph.input(f"x{n}", TensorType("f32", shape)) for n, shape in enumerate(shapes)]
        self.inputs = [self.numbers(shape) for shape in shapes]

    def numbers(self, shape: tuple[int, ...]) -> np.ndarray:
        """Small whole numbers, whose sums are exact in any order."""
        return self.random.integers(-4, 5, shape).astype(np.float32)

    def one(self) -> Value:
        return self.draw(st.sampled_from(self.values[-6:] + self.values[:2]))

    def axis(self, value: Value) -> int:
        rank = value.type.rank or 0
        return self.draw(st.integers(-rank, rank - 1))

    def add(self, op: str, operands: list[Value | None], attrs: Any = None, results: int = 1) -> None:
        self.values += self.graph.add(op, operands, attrs, results=results).results

    def grow(self) -> None:
        makers = [self.transpose] * 4 + [self.unary, self.binary, self.scaled, self.concat, self.reduce, self.choose,
                  self.shift, self.crop, self.split, self.gather, self.regroup, self.linear, self.sum_up]  # fmt: skip
        self.draw(st.sampled_from(makers))(self.one())

    def transpose(self, x: Value) -> None:
        self.add("Transpose", [x], {"perm": tuple(self.draw(st.permutations(range(x.type.rank or 0))))})

    def unary(self, x: Value) -> None:
        self.add(self.draw(st.sampled_from(["Relu", "Neg", "Identity"])), [x])

    def binary(self, x: Value) -> None:
        shape, rank = x.type.static or (), x.type.rank or 0
        for other in reversed(self.values):
            theirs = other.type.static or ()
            pairs = zip(theirs[::-1], shape[::-1], strict=False)
            if other is not x and len(theirs) <= rank and all(a == b or 1 in (a, b) for a, b in pairs):
                return self.add(self.draw(st.sampled_from(["Add", "Max"])), [x, other])
        return self.add("Add", [x, x])

    def scaled(self, x: Value) -> None:
        shape = x.type.static or ()
        last = shape[self.draw(st.integers(0, len(shape) - 1)) :]
        paths = (f"scale{len(self.values)}",) if self.draw(st.booleans()) else ()
        data = self.numbers(tuple(size if self.draw(st.booleans()) else 1 for size in last))
        self.add("Mul", [x, self.graph.weight(Weight(np.sign(data), paths))])

    def concat(self, x: Value) -> None:
        fitting = [value for value in self.values if value.type.shape == x.type.shape]
        self.add("Concat", [x, self.draw(st.sampled_from(fitting)), fitting[0]], {"axis": self.axis(x)})

    def reduce(self, x: Value) -> None:
        axes = sorted({self.axis(x) % (x.type.rank or 1) for _ in range(2)})
        keep = self.draw(st.integers(0, 1)) if len(axes) < (x.type.rank or 0) - 1 else 1
        self.add("ReduceMax", [x, self.graph.constant(axes)], {"keepdims": keep})

    def choose(self, x: Value) -> None:
        self.add("Softmax", [x], {"axis": self.axis(x)})

    def shift(self, x: Value) -> None:
        rank = x.type.rank or 0
        if self.draw(st.booleans()):
            pads = np.array(self.draw(st.lists(st.integers(0, 1), min_size=2 * rank, max_size=2 * rank)), np.int64)
            return self.add("Pad", [x, self.graph.constant(pads)])
        return self.add("Pad", [x, self.graph.constant([1, 0]), None, self.graph.constant([self.axis(x)])])

    def crop(self, x: Value) -> None:
        axes = [self.graph.constant([self.axis(x)])] if self.draw(st.booleans()) else []
        self.add("Slice", [x, self.graph.constant([0]), self.graph.constant([2]), *axes])

    def split(self, x: Value) -> None:
        axis = self.axis(x)
        if (x.type.static or ())[axis] % 2 == 0:
            self.add("Split", [x], {"axis": axis, "num_outputs": 2}, 2)

    def gather(self, x: Value) -> None:
        axis = self.axis(x)
        if x.type.rank == 4 and (x.type.static or ())[axis] > 1:
            indices = self.draw(st.sampled_from([np.array(0), np.array([1, 0])]))
            self.add("Gather", [x, self.graph.constant(indices)], {"axis": axis})

    def regroup(self, x: Value) -> None:
        shape = x.type.static or ()
        place = self.draw(st.integers(0, len(shape) - 2))
        joined = [*shape[:place], shape[place] * shape[place + 1], *shape[place + 2 :]]
        apart = [*shape[:place], 1, *shape[place:]]
        target = self.draw(st.sampled_from([joined] if len(shape) > 3 else [joined, apart, apart]))
        if len(target) > 1:
            self.add("Reshape", [x, self.graph.constant(target)])
        if len(shape) < 4:
            self.add("Unsqueeze", [x, self.graph.constant([self.draw(st.integers(0, len(shape)))])])

    def linear(self, x: Value) -> None:
        shape = x.type.static or ()
        size = int(np.prod(shape[1:]))
        flat = self.graph.add("Reshape", [x, self.graph.constant([shape[0], -1])]).result
        relu = self.graph.add("Relu", [flat]).result
        kernel = self.graph.weight(Weight(self.numbers((6, size)), (f"kernel{len(self.values)}",)))
        self.add("qir.Linear", [self.draw(st.sampled_from([flat, relu])), kernel])

    def sum_up(self, x: Value) -> None:
        self.add("ReduceSum", [x, self.graph.constant([self.axis(x)])])


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    draft = Draft(draw)
    for _ in range(draw(st.integers(3, 14))):
        draft.grow()
    draft.graph.outputs = [draft.values[-1], draft.one()]
    for node in reversed(draft.graph.nodes()):
        if not node.erased:
            draft.graph.erase_dead(node)
    return draft


def transposes(graph: Graph) -> int:
    return sum(node.op == "Transpose" for node in graph.nodes())


@settings(max_examples=80, deadline=None)
@given(drafts())
def test_outputs_are_equal_and_no_transpose_comes_to_be(draft: Draft) -> None:
    graph = draft.graph
    expected, before = evaluate(graph, draft.inputs), transposes(graph)
    MoveTransposes().run(graph)
    verify(graph)
    for found, wanted in zip(evaluate(graph, draft.inputs), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5, strict=True)
    assert transposes(graph) <= before
    once = str(graph)
    MoveTransposes().run(graph)
    assert str(graph) == once
