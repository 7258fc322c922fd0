"""Traits: what an operator means for quantization, said once, so that no pass holds a list of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qir.axis_orders.orders import Reordered
    from qir.graph import Graph, Node, Value


@dataclass(frozen=True)
class Trait:
    """Something that is true of an operator."""


@dataclass(frozen=True)
class KeepsGrid(Trait):
    """Every element of the results is an element of operand 0, so both lie on one grid."""


@dataclass(frozen=True)
class MovesData(KeepsGrid):
    """It moves or reshapes elements and computes nothing: it needs no layer of its own."""


@dataclass(frozen=True)
class CopiesData(MovesData):
    """Its results never share memory with operand 0."""


@dataclass(frozen=True)
class LooksUp(CopiesData):
    """It picks slices of operand 0 by indices: a constant there is a table, as that of an embedding.

    `feature_axis` is the last axis of operand 0 that every slice has; None when slices are numbers or the rank is not
    known.
    """

    feature_axis: Callable[[Node], int | None]


@dataclass(frozen=True)
class Blanks(Trait):
    """Every element of the result is the element of operand 0 at its place, or zero."""


@dataclass(frozen=True)
class Views(Trait):
    """Its results may share memory with operand 0, and it computes nothing: it needs no layer of its own."""


@dataclass(frozen=True)
class TiesOperands(Trait):
    """The result is made of elements of all operands: a runtime is fastest when they share one grid."""


@dataclass(frozen=True)
class Elementwise(Trait):
    """Each element of the result depends on the elements at the same (broadcast) place."""


@dataclass(frozen=True)
class Unary(Elementwise):
    """Elementwise, with one tensor operand."""


@dataclass(frozen=True)
class Commutes(Trait):
    """Its operands may stand in any order."""


@dataclass(frozen=True)
class Stateful(Trait):
    """It draws random numbers or updates state when training, so the order of such nodes is part of their meaning."""


@dataclass(frozen=True)
class IdentityInInference(Trait):
    """Outside of training it returns operand 0."""


@dataclass(frozen=True)
class Shapes(Trait):
    """It computes with shapes, not with data: never a layer, never quantized."""


@dataclass(frozen=True)
class Weighted(Trait):
    """It multiplies `input` with a `weight` and adds a `bias` (operand numbers) in an accumulator.

    `output_axis` is the axis of the weight that numbers the output channels, for per-channel scales; None when one
    index of the weight reaches several output channels or it is not known. `stacks` says that a weight of more than two
    axes is a stack of matrices, for which kernels take one scale.
    """

    output_axis: Callable[[Node], int | None]
    input: int = 0
    weight: int = 1
    bias: int | None = 2
    stacks: bool = False


@dataclass(frozen=True)
class Clamps(Trait):
    """It limits operand 0 to `range(node)`: a lowest and a highest value, None where there is no limit.

    A quantizer with that range makes it redundant. The range is None when the limits are not constants.
    """

    range: Callable[[Node], tuple[float | None, float | None] | None]


@dataclass(frozen=True)
class Permutes(MovesData):
    """Axis i of its result is axis `order(node)[i]` of operand 0 and nothing else happens; None for an unknown rank."""

    order: Callable[[Node], tuple[int, ...] | None]


@dataclass(frozen=True)
class Renumbers(Trait):
    """It treats the axes of its data alike, but for those that it names: in another order of axes it means the same.

    The data is operand 0, or all operands where it ties them. `reading(node, order)` is the node that reads its data in
    that order, `writing(node, order)` the one whose results come in it; None where the axes that it names are computed.
    """

    reading: Callable[[Node, tuple[int, ...]], Reordered | None]
    writing: Callable[[Node, tuple[int, ...]], Reordered | None]


@dataclass(frozen=True)
class Composed(Trait):
    """It is a computation of several steps, each of which can be quantized by itself.

    `parts` adds the steps and returns the values that stand for the results. It raises QirError, with the reason, for a
    node that must stay whole. `family` is what `decompose` calls operators of this kind; `exact` says of a node whether
    its parts round as the whole does, and take inputs of every size that the whole takes.
    """

    family: str
    parts: Callable[[Graph, Node], Sequence[Value]]
    exact: Callable[[Node], bool] = lambda node: False
