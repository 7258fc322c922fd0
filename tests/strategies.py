"""Random graphs, as recipes that can be followed in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from qir.attributes import TRAINING, Port, Symbol
from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding, ProductEncoding
from qir.errors import Loc
from qir.graph import Graph, Value
from qir.types import DTYPES, NUMPY, UNKNOWN, ScalarType, TensorType, Type
from qir.weights import Weight

PLAIN = TensorType("f32", ("N", 4))
HINTS = st.sampled_from(["x", "x", "x_1", "c", "a.b", "_", "0", "weight", "return"]) | st.text(max_size=4)
TEXT = st.text(max_size=6) | st.sampled_from(['"', "\\", "\n", "//", "  // no", "%x", "}", "a b", "é", "'", "\ud800"])
FILES = st.sampled_from(["net.py", "my net.py", 'a"b.py', "(x):3.py", "C:\\a.py", "é, b.py"]) | TEXT.filter(bool)


@dataclass
class Step:
    """One node to add: operands by the number of a value, None for a gap."""

    op: str
    operands: list[int | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    types: list[Type] = field(default_factory=lambda: [PLAIN])
    hint: str = "y"
    module: str | None = None
    order: int | None = None
    locs: tuple[Loc, ...] = ()


@dataclass
class Recipe:
    """How to build a graph. Values are numbered: inputs, constants and weights, then the results of the steps."""

    name: str
    inputs: list[tuple[str, Type]]
    leaves: list[tuple[str, Any]]
    steps: list[Step]
    outputs: list[int]
    structure: Any

    def first_result(self, step: int) -> int:
        return len(self.inputs) + len(self.leaves) + sum(len(s.types) for s in self.steps[:step])

    def build(self, leaves: Sequence[int] | None = None, steps: Sequence[int] | None = None) -> Graph:
        """The graph, its leaves and steps added in the orders given."""
        graph = Graph(self.name)
        values: dict[int, Value] = {n: graph.input(hint, type) for n, (hint, type) in enumerate(self.inputs)}
        for leaf in range(len(self.leaves)) if leaves is None else leaves:
            hint, data = self.leaves[leaf]
            made = graph.weight(data, hint=hint) if isinstance(data, Weight) else graph.constant(data, hint)
            values[len(self.inputs) + leaf] = made
        for number in range(len(self.steps)) if steps is None else steps:
            step = self.steps[number]
            operands = [None if n is None else values[n] for n in step.operands]
            node = graph.add(
                step.op, operands, step.attrs, types=step.types, hint=step.hint, module=step.module, locs=step.locs
            )
            node.order = step.order
            values |= dict(enumerate(node.results, self.first_result(number)))
        graph.outputs = [values[n] for n in self.outputs]
        graph.structure = self.structure
        return graph


def types() -> st.SearchStrategy[Type]:
    dims = st.none() | st.integers(0, 9) | st.sampled_from(["N", "2*N", "unk__0", "...", "?", "a b", "7", ""]) | TEXT
    shapes = st.none() | st.lists(dims, max_size=3).map(tuple)
    tensors = st.builds(TensorType, st.none() | st.sampled_from(sorted(DTYPES)), shapes)
    return (
        tensors | st.sampled_from([UNKNOWN, PLAIN]) | st.builds(ScalarType, st.sampled_from(["int", "float", "bool"]))
    )


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    dtype = NUMPY[
        draw(st.sampled_from(["f32", "f64", "f16", "bf16", "i8", "i64", "u8", "bool", "i4", "c64", "f8e5m2"]))
    ]
    return draw(st.randoms(use_true_random=False)).choice(
        [
            np.full(shape, draw(st.floats(-7, 7, width=16))).astype(dtype),
            np.arange(int(np.prod(shape))).reshape(shape).astype(dtype),
        ]
    )


def attributes(operands: int) -> st.SearchStrategy[Any]:
    leaves = [
        st.none(), st.booleans(), st.integers(), st.floats(), TEXT, TEXT.map(Symbol), arrays(), st.complex_numbers(),
        st.binary(max_size=4),
        st.sampled_from([Ellipsis, TRAINING, Symbol("torch.float32"), Symbol("nan"), Symbol("None"), slice(1, None)]),
    ]  # fmt: skip
    if operands:
        leaves.append(st.integers(0, operands - 1).map(Port))
    keys = TEXT | st.integers(-9, 9) | st.booleans()
    return st.recursive(
        st.one_of(leaves),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(keys, inner, max_size=2)
            | st.builds(slice, inner, inner, inner)
        ),
        max_leaves=6,
    )


@st.composite
def encodings(draw: st.DrawFn) -> list[Encoding]:
    """Grids for tensors of type PLAIN, the last perhaps the product of the others."""
    made: list[Encoding] = []
    for _ in range(draw(st.integers(1, 3))):
        empty = draw(_grids())
        top = np.array(draw(st.lists(st.floats(0, 1e6), min_size=4, max_size=4)))
        tops = {(): top[0], (4,): top, (1, 2): top[None, :2]}[empty.scale_shape((1, 4))]
        made.append(draw(st.sampled_from([empty, empty.with_range(-tops, tops), empty.with_range(0 * tops, tops)])))
    plain = [e for e in made if e.axis is e.block_axis is None and not isinstance(e, FloatEncoding)] or [Encoding("u8")]
    if draw(st.booleans()):
        made.append(ProductEncoding(input=draw(st.sampled_from(plain)), weight=plain[0]))
    return made


def _grids() -> st.SearchStrategy[Encoding]:
    """Grids that are not calibrated."""
    dtypes = st.sampled_from(["u8", "i8", "u4", "i3", "i16", "i32", "u11"])
    axes, flags = st.none() | st.just(1), st.booleans()
    blocks = {"block_axis": st.just(1), "block_size": st.just(2)}
    return st.one_of(
        st.builds(Encoding, dtypes, flags, axes, flags),
        st.builds(Encoding, dtypes, st.just(True), axes, flags, unsigned=st.just(True)),
        st.builds(Encoding, dtypes, flags, **blocks),
        st.builds(LowPowerEncoding, dtypes, flags, scale_bits=st.integers(1, 16), **blocks),
        st.builds(FloatEncoding, st.sampled_from(["f16", "bf16", "f8e4m3", "f8e5m2"]), axis=axes),
        st.builds(FloatEncoding, st.sampled_from(["f8e4m3", "f8e5m2"]), axis=st.just(0), **blocks),
    )


def _leaf(draw: st.DrawFn, number: int, distinct: bool) -> tuple[str, Any]:
    kind = draw(st.sampled_from(["number", "constant", "large", "weight", "weight", "unseen"]))
    data = draw(arrays())
    paths = (f"layer{number}", *draw(st.lists(TEXT, max_size=1).map(lambda names: [f"{n}#{number}" for n in names])))
    flags = {"trainable": draw(st.booleans()), "persistent": draw(st.booleans())}
    options: dict[str, Any] = {
        "number": float(number) if distinct else draw(st.booleans() | st.integers() | st.floats()),
        "constant": np.array([number, 7]) if distinct else data,
        "large": Weight(np.full((5, 5), number, np.int8)),
        "weight": Weight(data, paths, **flags),
        "unseen": Weight(np.zeros((2, 20), np.float32), (f"{number} unseen",), **flags),
    }
    return draw(HINTS), options[kind]


class _Draft:
    """The recipe so far: the numbers of all values, and of those of type PLAIN."""

    def __init__(self, draw: st.DrawFn, count: int, plain: list[int]) -> None:
        self.draw, self.count, self.plain = draw, count, plain
        self.grids = draw(encodings())

    def step(self) -> Step:
        makers = [self.unary, self.binary, self.variadic, self.gap, self.several, self.quantizer, self.opaque]
        return self.draw(st.sampled_from(makers))()

    def one(self) -> int:
        return self.draw(st.sampled_from(self.plain))

    def unary(self) -> Step:
        alpha = self.draw(st.floats(-1, 1, width=32))
        op = self.draw(st.sampled_from(["Relu", "Sigmoid", "LeakyRelu"]))
        return Step(op, [self.one()], {"alpha": alpha} if op == "LeakyRelu" else {})

    def binary(self) -> Step:
        return Step(self.draw(st.sampled_from(["Add", "Sub", "Mul"])), [self.one(), self.one()])

    def variadic(self) -> Step:
        return Step(
            self.draw(st.sampled_from(["Sum", "Max"])), [self.one() for _ in range(self.draw(st.integers(1, 4)))]
        )

    def gap(self) -> Step:
        return Step("Clip", [self.one(), None, self.one()])

    def several(self) -> Step:
        half = TensorType("f32", ("N", 2))
        return Step("Split", [self.one()], {"axis": 1, "num_outputs": 2}, [half, half])

    def quantizer(self) -> Step:
        return Step("qir.Quantize", [self.one()], {"encoding": self.draw(st.sampled_from(self.grids))})

    def opaque(self) -> Step:
        some = st.none() | st.integers(0, self.count - 1)
        operands = self.draw(st.lists(some, max_size=3))
        while operands and operands[-1] is None:
            operands.pop()
        names = st.sampled_from(["args", "kwargs", "dim"]) | TEXT
        attrs = self.draw(st.dictionaries(names, attributes(len(operands)), max_size=3))
        op = self.draw(st.sampled_from(["torch.foo.bar", "keras.Foo", "torchvision::ops.nms", "torch.<lambda> x"]))
        return Step(op, operands, attrs, self.draw(st.lists(types(), min_size=1, max_size=3)))


@st.composite
def recipes(draw: st.DrawFn, distinct: bool = False) -> Recipe:
    """Any graph; with `distinct` no two nodes or unread constants are equal but for their names."""
    inputs = [("x", PLAIN), *draw(st.lists(st.tuples(HINTS, types()), max_size=2))]
    leaves = [_leaf(draw, number, distinct) for number in range(draw(st.integers(0, 4)))]
    count = len(inputs) + len(leaves)
    draft = _Draft(draw, count, [n for n, (_, type) in enumerate(inputs) if type == PLAIN])
    steps: list[Step] = []
    rank = 0
    for number in range(draw(st.integers(0, 7))):
        step = draft.step()
        step.hint = draw(HINTS)
        step.module = draw(st.none() | st.sampled_from(["layer1.0.conv", "module_add", "a b", ""]))
        places = st.builds(Loc, FILES | st.just(""), st.integers(0, 999), TEXT)
        step.locs = tuple(draw(st.lists(places, max_size=2)))
        if distinct:
            step.locs = (*step.locs, Loc("net.py", number))
        if draw(st.integers(0, 3)) == 0:
            rank += draw(st.integers(0, 2))
            step.order = rank
        draft.plain += [draft.count] if step.types == [PLAIN] and step.op != "torch.foo.bar" else []
        draft.count += len(step.types)
        steps.append(step)
    outputs = draw(st.lists(st.integers(0, draft.count - 1), max_size=3))
    structure = draw(st.none() | _structures(len(outputs)))
    return Recipe(draw(HINTS), inputs, leaves, steps, outputs, structure)


def _structures(outputs: int) -> st.SearchStrategy[Any]:
    """A nest in which every output has its place, in order."""
    extras = st.lists(st.none() | st.booleans() | st.integers() | TEXT | st.floats(), max_size=2)
    kinds = st.sampled_from(["tuple", "list", "dict", "nested"])

    def arrange(kind: str, extra: list[Any]) -> Any:
        items = [*map(Port, range(outputs)), *extra]
        if kind == "dict":
            return {f"{n} '": item for n, item in enumerate(items)}
        if kind == "nested":
            return ({"a": items[:1], 3: (items[1:2],)}, items[2:])
        return tuple(items) if kind == "tuple" else items

    return st.builds(arrange, kinds, extras)


def graphs() -> st.SearchStrategy[Graph]:
    return recipes().map(Recipe.build)
