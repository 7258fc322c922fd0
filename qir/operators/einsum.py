"""Einsum as the matrix products that torch computes it by, two operands at a time from the left.

The axes of two operands fall into four groups: those in both that stay (batch), those of the left and of the right
alone, and those in both that are summed. Each operand is turned and reshaped to [batch, left, summed] and
[batch, summed, right]; their product is reshaped and turned back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qir.operators.parts import Parts

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value
    from qir.types import Dim

Labels = tuple[str, ...]


def is_one_product(node: Node) -> bool:
    """Whether there is one order only to multiply in. torch chooses among several, where opt_einsum is installed."""
    return len(node.operands) <= 2


def einsum_parts(graph: Graph, node: Node) -> Sequence[Value]:
    """The products. Raises QirError for diagonals, and for `...` in operands of different or unknown ranks."""
    on = Parts(graph, node)
    terms, output = _labels(on, node.operands, node.attr("equation"))
    on.needs(all(len(set(term)) == len(term) for term in terms), "it takes a diagonal")
    order = (*output, *sorted({label for term in terms for label in term} - set(output)))
    _check_sizes(on, node.operands, terms)
    rest = [_narrowed(on, x, term, terms, node.operands, output) for x, term in zip(node.operands, terms, strict=True)]
    x, labels = rest.pop(0)
    while rest:
        other, theirs = rest.pop(0)
        needed = set(output).union(*(term for _, term in rest))
        x, labels = _summed(on, x, labels, needed | set(theirs), order)
        other, theirs = _summed(on, other, theirs, needed | set(labels), order)
        x, labels = _product(on, x, labels, other, theirs, [label for label in order if label in needed], order)
    x, labels = _summed(on, x, labels, set(output), order)
    return [_turned(on, x, labels, output)]


def _labels(on: Parts, operands: Sequence[Value], equation: str) -> tuple[list[Labels], Labels]:
    """The labels of the axes of every operand and of the result; an ellipsis stands for labels of its own."""
    inputs, arrow, written = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    hidden = {on.rank(x) - len(term) + 3 for x, term in zip(operands, terms, strict=True) if "..." in term}
    on.needs(len(hidden) < 2, "its operands differ in the number of axes that '...' stands for")
    dots = tuple(f".{number}" for number in range(hidden.pop() if hidden else 0))
    count = [(label, inputs.replace("...", "").count(label)) for label in sorted({*inputs} - {*",."})]
    if not arrow:
        written = "..." * bool(dots) + "".join(label for label, times in count if times == 1)

    def spelled(term: str) -> Labels:
        before, ellipsis, after = term.partition("...")
        return (*before, *(dots if ellipsis else ()), *after)

    return [spelled(term) for term in terms], spelled(written)


def _sizes(operands: Sequence[Value], terms: Sequence[Labels], label: str) -> list[Dim]:
    """The size of this axis in every operand that has it."""
    return [
        None if x.type.shape is None else x.type.shape[term.index(label)]
        for x, term in zip(operands, terms, strict=True)
        if label in term
    ]


def _check_sizes(on: Parts, operands: Sequence[Value], terms: Sequence[Labels]) -> None:
    """Raise QirError unless it is known which axes are broadcast: those of one element are."""
    for label in {label for term in terms for label in term}:
        sizes = set(_sizes(operands, terms, label))
        known = len(sizes - {1}) <= 1 and (None not in sizes or sum(label in term for term in terms) == 1)
        on.needs(known, "the sizes of its axes are not known")


def _narrowed(
    on: Parts, x: Value, term: Labels, terms: Sequence[Labels], operands: Sequence[Value], output: Labels
) -> tuple[Value, Labels]:
    """An operand without the axes of one element that nothing but a sum or a broadcast would use."""

    def idle(axis: int, label: str) -> bool:
        return (x.type.shape or (None,) * len(term))[axis] == 1 and (
            label not in output or set(_sizes(operands, terms, label)) != {1}
        )

    gone = [axis for axis, label in enumerate(term) if idle(axis, label)]
    kept = tuple(label for axis, label in enumerate(term) if axis not in gone)
    return on.Squeeze(x, gone) if gone else x, kept


def _summed(on: Parts, x: Value, labels: Labels, needed: set[str], order: Labels) -> tuple[Value, Labels]:
    """`x` without the axes that nothing needs; torch sums them in the order that all operands have."""
    if needed.issuperset(labels):
        return x, labels
    wanted = tuple(label for label in order if label in labels)
    gone = [axis for axis, label in enumerate(wanted) if label not in needed]
    summed = on.ReduceSum(_turned(on, x, labels, wanted), gone, keepdims=0)
    return summed, tuple(label for label in wanted if label in needed)


def _turned(on: Parts, x: Value, labels: Labels, wanted: Labels) -> Value:
    """`x` with its axes in this order."""
    perm = tuple(labels.index(label) for label in wanted)
    return x if perm == tuple(range(len(perm))) else on.Transpose(x, perm=perm)


def _product(
    on: Parts, a: Value, a_labels: Labels, b: Value, b_labels: Labels, kept: Sequence[str], order: Labels
) -> tuple[Value, Labels]:
    """The product of two operands, summed over what both have and nothing keeps."""
    both = [label for label in order if label in a_labels and label in b_labels]
    summed = [label for label in both if label not in kept]
    left = [label for label in kept if label not in b_labels and label in a_labels]
    right = [label for label in kept if label not in a_labels and label in b_labels]
    batch = [label for label in both if label in kept]
    result = tuple(label for label in kept if label in (*a_labels, *b_labels))
    if not summed:
        return on.Mul(_spread(on, a, a_labels, result), _spread(on, b, b_labels, result)), result
    weights_last = sorted(((b, b_labels), (a, a_labels)), key=lambda operand: operand[0].weight is not None)
    sizes = {label: on.axis(x, axis) for x, labels in weights_last for axis, label in enumerate(labels)}
    flat_a = _grouped(on, _turned(on, a, a_labels, (*batch, *left, *summed)), [batch, left, summed], sizes)
    flat_b = _grouped(on, _turned(on, b, b_labels, (*batch, *summed, *right)), [batch, summed, right], sizes)
    product = on.MatMul(flat_a, flat_b)
    made = (*batch, *left, *right)
    if not len(batch) == len(left) == len(right) == 1:
        product = on.view(product, [sizes[label] for label in made])
    return _turned(on, product, made, result), result


def _grouped(on: Parts, x: Value, groups: Sequence[Sequence[str]], sizes: dict[str, int | Value]) -> Value:
    """`x` with the axes of each group as one."""
    if all(len(group) == 1 for group in groups):
        return x
    return on.view(x, [on.times([sizes[label] for label in group]) for group in groups])


def _spread(on: Parts, x: Value, labels: Labels, wanted: Labels) -> Value:
    """`x` with its axes in the order of `wanted`, and axes of one element for those that it has not."""
    x = _turned(on, x, labels, tuple(label for label in wanted if label in labels))
    missing = [axis for axis, label in enumerate(wanted) if label not in labels]
    return on.Unsqueeze(x, missing) if missing else x
