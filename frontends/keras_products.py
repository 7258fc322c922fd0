"""Lowerings of the functions of `keras.ops`, and of layers, that multiply and sum."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from qir.frontends.keras_dtypes import agreed, floating, tensor
from qir.frontends.keras_layouts import rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_reductions import reduced
from qir.frontends.keras_shapes import size_of
from qir.graph import Value
from qir.lowering import known


@lowers(ops.matmul)
def matmul(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """MatMul."""
    return build("MatMul", *agreed(build, x1, x2))


@lowers(ops.dot)
def dot(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Mul with a number, else the products over the last axis of one and the last but one of the other."""
    a, b = agreed(build, x1, x2)
    if 0 in (rank_of(a), rank_of(b)):
        return build("Mul", a, b)
    if rank_of(a) <= 2 and rank_of(b) <= 2:
        return build("MatMul", a, b)
    return build("qir.TensorDot", a, b, dims=((rank_of(a) - 1,), (max(rank_of(b) - 2, 0),)))


@lowers(ops.einsum)
def einsum(build: KerasBuilder, subscripts: str, *operands: Any) -> Value:
    """Einsum."""
    return build("Einsum", *agreed(build, *operands), equation=subscripts.replace(" ", ""))


@lowers(ops.tensordot)
def tensordot(build: KerasBuilder, x1: Any, x2: Any, axes: Any = 2) -> Value:
    """qir.TensorDot."""
    dims = axes if isinstance(axes, int) else tuple((one,) if isinstance(one, int) else tuple(one) for one in axes)
    return build("qir.TensorDot", *agreed(build, x1, x2), dims=dims)


@lowers(ops.inner)
def inner(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """qir.Inner, or Mul with a number."""
    a, b = agreed(build, x1, x2)
    return build("Mul" if 0 in (rank_of(a), rank_of(b)) else "qir.Inner", a, b)


def _vector(build: KerasBuilder, x: Value) -> Value:
    return x if rank_of(x) == 1 else build("Reshape", x, build.indices([-1]))


@lowers(ops.outer)
def outer(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """Mul of a column and a row."""
    a, b = (_vector(build, x) for x in agreed(build, x1, x2))
    return build("Mul", build("Unsqueeze", a, build.indices([1])), build("Unsqueeze", b, build.indices([0])))


@lowers(ops.vdot)
def vdot(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """MatMul of two vectors of all elements."""
    return build("MatMul", *(_vector(build, x) for x in agreed(build, x1, x2)))


@lowers(ops.kron)
def kron(build: KerasBuilder, x1: Any, x2: Any) -> Value:
    """qir.Kronecker."""
    return build("qir.Kronecker", *agreed(build, x1, x2))


@lowers(ops.cross)
def cross(build: KerasBuilder, x1: Any, x2: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1,
          axis: Any = None) -> Value:  # fmt: skip
    """qir.Cross."""
    a, b = agreed(build, x1, x2)
    places = {place % rank_of(a) for place in ([axis] if axis is not None else (axisa, axisb, axisc))}
    known(len(places) == 1 and rank_of(a) == rank_of(b), "vectors along different axes")
    known(size_of(a, *places) == size_of(b, *places) == 3, "vectors of two")
    return build("qir.Cross", a, b, dim=places.pop())


@lowers(ops.trace)
def trace(build: KerasBuilder, x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    """The sum of a diagonal."""
    value = tensor(build, x)
    diagonal = build("qir.Diagonal", value, offset=offset, dim1=axis1, dim2=axis2)
    return build("ReduceSum", diagonal, build.indices([rank_of(value) - 2]), keepdims=0)


@lowers(ops.cdist)
def cdist(build: KerasBuilder, x: Any, y: Any) -> Value:
    """qir.Distances."""
    return build("qir.Distances", *(floating(build, one) for one in (x, y)))


@lowers(ops.det)
def det(build: KerasBuilder, x: Any) -> Value:
    """Det."""
    return build("Det", floating(build, x))


@lowers(ops.logdet)
def logdet(build: KerasBuilder, x: Any) -> Value:
    """qir.LogDeterminant."""
    return build("qir.LogDeterminant", floating(build, x))


@lowers(ops.slogdet)
def slogdet(build: KerasBuilder, x: Any) -> Any:
    """qir.SignAndLogDeterminant."""
    return tuple(build.several("qir.SignAndLogDeterminant", 2, floating(build, x)))


@lowers(ops.trapezoid)
def trapezoid(build: KerasBuilder, y: Any, x: Any = None, dx: float = 1.0, axis: int = -1) -> Value:
    """qir.Trapezoid."""
    value = floating(build, y)
    known(x is None, "stated places")
    return build("qir.Trapezoid", value, dx=float(dx), dim=axis)


@lowers(ops.diff)
def diff(build: KerasBuilder, a: Any, n: int = 1, axis: int = -1) -> Value:
    """The differences of neighbours, n times."""
    value = tensor(build, a)
    axes = build.indices([axis % rank_of(value)])
    for _ in range(n):
        size = size_of(value, axis)
        after = build("Slice", value, build.indices([1]), build.indices([size]), axes)
        before = build("Slice", value, build.indices([0]), build.indices([size - 1]), axes)
        value = build("Sub", after, before)
    return value


@lowers(ops.corrcoef)
def corrcoef(build: KerasBuilder, x: Any) -> Value:
    """qir.Correlation."""
    return build("qir.Correlation", floating(build, x))


@lowers(ops.correlate)
def correlate(build: KerasBuilder, x1: Any, x2: Any, mode: str = "valid") -> Value:
    """Conv of a signal with another."""
    a, b = agreed(build, x1, x2, also=(float,))
    known(size_of(a, 0) >= size_of(b, 0), "a longer second signal")
    reach = size_of(b, 0) - 1
    pads = {"valid": (0, 0), "full": (reach, reach), "same": (size_of(b, 0) // 2, reach - size_of(b, 0) // 2)}[mode]
    signal, window = (build("Reshape", one, build.indices([1, 1, -1])) for one in (a, b))
    return build("Reshape", build("Conv", signal, window, pads=pads), build.indices([-1]))


@lowers(ops.psnr)
def psnr(build: KerasBuilder, x1: Any, x2: Any, max_val: Any) -> Value:
    """20 * log10(max_val) - 10 * log10(mean of the squared difference)."""
    a, b = agreed(build, x1, x2)
    apart = build("Sub", a, b)
    error = reduced(build, "ReduceMean", build("Mul", apart, apart), None, False)
    known(isinstance(max_val, int | float), "a computed largest value")
    return build("Sub", 20.0 * float(np.log10(max_val)), build("Mul", build("qir.Log10", error), 10.0))


@lowers(ops.vander)
def vander(build: KerasBuilder, x: Any, N: Any = None, increasing: bool = False) -> Value:
    """Pow by a row of exponents."""
    value = tensor(build, x)
    count = size_of(value, 0) if N is None else N
    exponents = np.arange(count, dtype=np.int64)
    column = build("Unsqueeze", value, build.indices([1]))
    return build("Pow", column, exponents if increasing else exponents[::-1].copy())
