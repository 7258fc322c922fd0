"""Composites in the domain `qir.` for functions that frameworks have and ONNX writes in several operators.

Their attributes have torch's names. Each expansion is short enough to be read as the function's definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.errors import QirError
from qir.infer import types_by_expansion
from qir.ops import Attribute, OpDef, declare
from qir.traits import Elementwise, Trait, Unary
from qir.types import DTYPES, NUMPY, ScalarType, TensorType, Type

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

Written = Callable[..., Any]


class Writer:
    """Adds the nodes of an expansion: `on.Div(on.Log(x), 2.0)`. Numbers and lists of whole numbers become constants."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node = graph, node

    def __getattr__(self, op: str) -> Callable[..., Value]:
        def add(*operands: Any, **attrs: Any) -> Value:
            return self.several(op, 1, *operands, **attrs)[0]

        return add

    def several(self, op: str, results: int, *operands: Any, **attrs: Any) -> Sequence[Value]:
        """The results of an operator that has more than one."""
        values = [self.graph.constant(v) if isinstance(v, int | float | list | np.ndarray) else v for v in operands]
        return self.graph.add(op, values, attrs, results=results, like=self.node).results

    def cast(self, value: Value, dtype: str) -> Value:
        """`value` in another dtype."""
        return self.graph.add("Cast", [value], {"to": DTYPES[dtype]}, like=self.node).result

    def tensor(self, value: Value, dtype: str | None) -> Value:
        """`value` as a tensor: a Python number becomes one of that dtype."""
        if not isinstance(value.type, ScalarType) or value.weight is None:
            return value
        return self.graph.constant(np.array(value.weight.data, NUMPY[dtype or "f32"]))

    def rank(self, value: Value) -> int:
        """The number of axes. Raises QirError when it is not known."""
        if value.type.rank is None:
            raise QirError(f"{self.node.op} can only be expanded for a known rank", self.node,
                           help="import with example inputs")  # fmt: skip
        return int(value.type.rank)

    def size(self, value: Value, axis: int) -> int:
        """The size of an axis. Raises QirError when it is not known."""
        size = None if value.type.shape is None else value.type.shape[axis]
        if not isinstance(size, int):
            raise QirError(f"{self.node.op} can only be expanded where the size of axis {axis} is known", self.node,
                           help="import with example inputs, or run specialize with the input's shape")  # fmt: skip
        return size

    def length(self, value: Value, axis: int) -> Value:
        """The size of an axis as a vector of one number, computed where it is not known."""
        axis %= self.rank(value)
        size = None if value.type.shape is None else value.type.shape[axis]
        counted: Value = self.graph.constant([size]) if isinstance(size, int) else \
            self.Shape(value, start=axis, end=axis + 1)  # fmt: skip
        return counted

    def count_up(self, length: Value, start: int = 0) -> Value:
        """The whole numbers from `start` on, as many as `length` says."""
        numbers: Value = self.Range(0, self.Squeeze(length, [0]), 1)
        return numbers if start == 0 else self.Add(numbers, start)

    def axis_last(self, value: Value, *axes: int) -> Value:
        """`value` with these axes behind the others."""
        rank = self.rank(value)
        last = [axis % rank for axis in axes]
        turned: Value = self.Transpose(value, perm=[axis for axis in range(rank) if axis not in last] + last)
        return turned

    def axis_back(self, value: Value, *axes: int) -> Value:
        """`value` with its last axes at these places: the reverse of `axis_last`."""
        rank = self.rank(value)
        places = [axis % rank for axis in axes]
        rest = iter(range(rank - len(axes)))
        order = [rank - len(axes) + places.index(at) if at in places else next(rest) for at in range(rank)]
        turned: Value = self.Transpose(value, perm=order)
        return turned


def same_type(node: Node) -> Sequence[Type]:
    """The type of operand 0."""
    return [node.operands[0].type]


def types_if_known(node: Node) -> Sequence[Type]:
    """The types that the expansion gives; only the dtype where it needs sizes that are not known."""
    try:
        return types_by_expansion(node)
    except QirError:
        return [TensorType(node.operands[0].type.dtype, None)]


def types_with_places(node: Node) -> Sequence[Type]:
    """The types that the expansion gives; only the dtypes, i64 for places, where it needs sizes that are not known."""
    try:
        return types_by_expansion(node)
    except QirError:
        return [TensorType(node.operands[0].type.dtype, None), TensorType("i64", None)]


def function(
    name: str,
    operands: str,
    write: Written,
    traits: Sequence[Trait] = (),
    infer: Callable[[Node], Sequence[Type]] | None = None,
    doc: str = "",
    results: int | None = 1,
    **attributes: Any,
) -> OpDef:
    """Declare `qir.<name>`; `write(on, *operands, **attributes)` is its expansion.

    Operands that may be left out end in `?`, one that repeats in `*`. `results` is None where their number varies.
    """

    def expand(graph: Graph, node: Node) -> Sequence[Value]:
        given = {name: node.attr(name) for name in node.definition.attributes}
        written = write(Writer(graph, node), *node.operands, **given)
        return written if isinstance(written, list | tuple) else [written]

    expand.__doc__ = doc
    names = operands.split()
    least = sum(not operand.endswith(("?", "*")) for operand in names)
    return declare(
        OpDef(
            f"qir.{name}", tuple(operand.rstrip("?*") for operand in names), least,
            None if operands.endswith("*") else len(names), results or 1, results,
            attributes={key: Attribute("ANY", default) for key, default in attributes.items()},
            traits=tuple(traits), expand=expand, infer=infer, doc=doc,
        )
    )  # fmt: skip


def unary(name: str, write: Written, doc: str, **attributes: Any) -> OpDef:
    """Declare a function of each element."""
    return function(name, "x", write, (Unary(),), same_type, doc, **attributes)


def _trunc(on: Any, x: Value) -> Value:
    value: Value = on.Mul(on.Sign(x), on.Floor(on.Abs(x)))
    return value


def _softplus(on: Any, x: Value, beta: float, threshold: float) -> Value:
    value: Value = on.Div(on.Softplus(on.Mul(x, beta)), beta)
    return value


unary("Exp2", lambda on, x: on.Exp(on.Mul(x, math.log(2))), "Two to the power of x.")
unary("Log2", lambda on, x: on.Div(on.Log(x), math.log(2)), "The logarithm to base 2.")
unary("Log10", lambda on, x: on.Div(on.Log(x), math.log(10)), "The logarithm to base 10.")
unary("Trunc", _trunc, "x without its fraction.")
unary("Frac", lambda on, x: on.Sub(x, _trunc(on, x)), "The fraction of x, with its sign.")
unary("Erfc", lambda on, x: on.Sub(1.0, on.Erf(x)), "1 - erf(x).")
unary("RadiansToDegrees", lambda on, x: on.Mul(x, 180 / math.pi), "x * 180 / pi.")
unary("DegreesToRadians", lambda on, x: on.Mul(x, math.pi / 180), "x * pi / 180.")
unary("LogSigmoid", lambda on, x: on.Neg(on.Softplus(on.Neg(x))), "log(sigmoid(x)).")
unary("TanhShrink", lambda on, x: on.Sub(x, on.Tanh(x)), "x - tanh(x).")
unary("Logit", lambda on, x: on.Log(on.Div(x, on.Sub(1.0, x))), "log(x / (1 - x)).")
unary(
    "Sinc",
    lambda on, x: on.Where(on.Equal(x, 0.0), 1.0, on.Div(on.Sin(on.Mul(x, math.pi)), on.Mul(x, math.pi))),
    "sin(pi * x) / (pi * x), and 1 for 0.",
)
unary("Softplus", _softplus, "log(1 + exp(beta * x)) / beta; x itself where beta * x passes the threshold.",
      beta=1.0, threshold=20.0)  # fmt: skip
unary(
    "Threshold",
    lambda on, x, threshold, value: on.Where(on.Greater(x, threshold), x, value),
    "x where it is greater than the threshold, else the value.",
    threshold=0.0,
    value=0.0,
)


function("IsFinite", "x", lambda on, x: on.Not(on.Or(on.IsInf(x), on.IsNaN(x))), (Unary(),), None,
         "Whether x is a number and not infinite.")  # fmt: skip


def floats(value: Value) -> bool:
    """Whether the value holds floats, as it may when its dtype is not known."""
    return (value.type.dtype or "f32")[0] in "fb"


def _remainder(on: Any, a: Value, b: Value) -> Value:
    value: Value = on.Sub(a, on.Mul(b, on.Floor(on.Div(a, b)))) if floats(a) and floats(b) else on.Mod(a, b)
    return value


def floor_div(on: Any, a: Value, b: Value) -> Value:
    """a / b, rounded down."""
    if floats(a) and floats(b):
        quotient: Value = on.Floor(on.Div(a, b))
        return quotient
    whole: Value = on.Div(on.Sub(a, on.Mod(a, b)), b)
    return whole


def _arctangent(on: Any, y: Value, x: Value) -> Value:
    turned = on.Where(on.Less(y, 0.0), -math.pi, math.pi)
    value: Value = on.Add(on.Atan(on.Div(y, x)), on.Where(on.Less(x, 0.0), turned, on.Mul(x, 0.0)))
    return value


def _log_add_exp(on: Any, a: Value, b: Value) -> Value:
    least = on.Neg(on.Abs(on.Sub(a, b)))
    value: Value = on.Add(on.Max(a, b), on.Log(on.Add(on.Exp(least), 1.0)))
    return value


for _name, _operands, _write, _doc in (
    ("Remainder", "a b", _remainder, "a modulo b, with the sign of b."),
    ("FloorDiv", "a b", floor_div, "a / b, rounded down."),
    ("Atan2", "y x", _arctangent, "The angle of the point (x, y)."),
    ("Hypot", "a b", lambda on, a, b: on.Sqrt(on.Add(on.Mul(a, a), on.Mul(b, b))), "sqrt(a * a + b * b)."),
    ("LogAddExp", "a b", _log_add_exp, "log(exp(a) + exp(b))."),
    ("XLogY", "x y", lambda on, x, y: on.Where(on.Equal(x, 0.0), on.Mul(x, 0.0), on.Mul(x, on.Log(y))),
     "x * log(y), and 0 where x is 0."),
):  # fmt: skip
    function(_name, _operands, _write, (Elementwise(),), None, _doc)

function("Lerp", "start end", lambda on, start, end, weight: on.Add(start, on.Mul(on.Sub(end, start), weight)),
         (Elementwise(),), None, "start + weight * (end - start).", weight=0.5)  # fmt: skip
function("AddCMul", "x a b", lambda on, x, a, b, value: on.Add(x, on.Mul(on.Mul(a, b), value)),
         (Elementwise(),), None, "x + value * a * b.", value=1.0)  # fmt: skip
function("AddCDiv", "x a b", lambda on, x, a, b, value: on.Add(x, on.Mul(on.Div(a, b), value)),
         (Elementwise(),), None, "x + value * a / b.", value=1.0)  # fmt: skip
