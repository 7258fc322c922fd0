"""Composites in the domain `qir.` of products, distances and sums with weights: what frameworks give a name each."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.operators.functions import Writer, function, types_if_known
from qir.operators.sums import norm_of, variance_of
from qir.traits import CopiesData, Weighted

if TYPE_CHECKING:
    from qir.graph import Value

Axes = Sequence[int] | None


def _scaled(on: Writer, x: Value, product: Value, beta: float, alpha: float) -> Value:
    product = product if alpha == 1 else on.Mul(product, alpha)
    return on.Add(x if beta == 1 else on.Mul(x, beta), product)


def _add_outer(on: Writer, x: Value, a: Value, b: Value, beta: float, alpha: float) -> Value:
    return _scaled(on, x, on.Mul(on.Unsqueeze(a, [1]), on.Unsqueeze(b, [0])), beta, alpha)


def _add_vector_product(on: Writer, x: Value, a: Value, b: Value, beta: float, alpha: float) -> Value:
    return _scaled(on, x, on.MatMul(a, b), beta, alpha)


def _add_summed_products(on: Writer, x: Value, a: Value, b: Value, beta: float, alpha: float) -> Value:
    return _scaled(on, x, on.ReduceSum(on.MatMul(a, b), [0], keepdims=0), beta, alpha)


def _inner(on: Writer, a: Value, b: Value) -> Value:
    if not on.rank(a) or not on.rank(b):
        return on.Mul(a, b)
    return _tensor_dot(on, a, b, ((on.rank(a) - 1,), (on.rank(b) - 1,)))


def _tensor_dot(on: Writer, a: Value, b: Value, dims: Any) -> Value:
    left, right = on.rank(a), on.rank(b)
    axes = (range(left - dims, left), range(dims)) if isinstance(dims, int) else dims
    letters = iter(ascii_lowercase)
    first, second = [next(letters) for _ in range(left)], [next(letters) for _ in range(right)]
    for one, other in zip(*axes, strict=True):
        second[other] = first[one]
    kept = [letter for letter in first + second if not (letter in first and letter in second)]
    equation = f"{''.join(first)},{''.join(second)}->{''.join(kept)}"
    return on.Einsum(a, b, equation=equation)


def _kronecker(on: Writer, a: Value, b: Value) -> Value:
    rank = max(on.rank(a), on.rank(b))
    a, b = (on.Unsqueeze(x, list(range(rank - on.rank(x)))) if on.rank(x) < rank else x for x in (a, b))
    spread = on.Mul(on.Unsqueeze(a, list(range(1, 2 * rank, 2))), on.Unsqueeze(b, list(range(0, 2 * rank, 2))))
    return on.Reshape(spread, on.Mul(on.Shape(a), on.Shape(b)))


def _cross(on: Writer, a: Value, b: Value, dim: int | None) -> Value:
    if dim is None:
        sizes = [on.size(a, axis) if isinstance(a.type.shape[axis], int) else 0 for axis in range(on.rank(a))]  # type: ignore[index]
        dim = sizes.index(3)
    (a0, a1, a2), (b0, b1, b2) = ([on.Slice(x, [at], [at + 1], [dim]) for at in range(3)] for x in (a, b))
    parts = [on.Sub(on.Mul(p, q), on.Mul(r, s)) for p, q, r, s in
             ((a1, b2, a2, b1), (a2, b0, a0, b2), (a0, b1, a1, b0))]  # fmt: skip
    return on.Concat(*parts, axis=dim)


def _trace(on: Writer, x: Value) -> Value:
    rows, columns = (on.count_up(on.length(x, axis)) for axis in (0, 1))
    kept = on.Where(on.Equal(on.Unsqueeze(rows, [1]), columns), x, 0)
    return on.ReduceSum(kept, [0, 1], keepdims=0)


def _matrix_product(on: Writer, *matrices: Value) -> Value:
    product, *rest = matrices
    for matrix in rest:
        product = on.MatMul(product, matrix)
    return product


def _matrix_power(on: Writer, x: Value, n: int) -> Value:
    return _matrix_product(on, *[x] * n) if n > 1 else x


def _sign_and_log_of_determinant(on: Writer, x: Value) -> Sequence[Value]:
    determinant = on.Det(x)
    return on.Sign(determinant), on.Log(on.Abs(determinant))


def _norm_except(on: Writer, x: Value, pow: float, dim: int) -> Value:
    if dim == -1:
        return norm_of(on, x, pow, None, False)
    return norm_of(on, x, pow, [axis for axis in range(on.rank(x)) if axis != dim], True)


def _distances(on: Writer, a: Value, b: Value, p: float, compute_mode: str) -> Value:
    return norm_of(on, on.Sub(on.Unsqueeze(a, [-2]), on.Unsqueeze(b, [-3])), p, [-1], False)


def _distance(on: Writer, a: Value, b: Value, p: float) -> Value:
    return norm_of(on, on.Sub(a, b), p, None, False)


def _pair_distances(on: Writer, x: Value, p: float) -> Value:
    count = on.length(x, 0)
    square = on.Expand(on.graph.constant(np.array(1, np.int64)), on.Concat(count, count, axis=0))
    pairs = on.NonZero(on.Trilu(square, on.graph.constant(np.array(1, np.int64))))
    first, second = (on.Gather(x, on.Gather(pairs, on.graph.constant(np.array(side))), axis=0) for side in (0, 1))
    return norm_of(on, on.Sub(first, second), p, [-1], False)


def _bilinear(on: Writer, a: Value, b: Value, weight: Value, bias: Value | None = None) -> Value:
    before = "xyz"[: on.rank(a) - 1]
    made = on.Einsum(a, weight, b, equation=f"{before}i,oij,{before}j->{before}o")
    return made if bias is None else on.Add(made, bias)


def _renormalized(on: Writer, x: Value, p: float, dim: int, maxnorm: float) -> Value:
    axes = [axis for axis in range(on.rank(x)) if axis != dim % on.rank(x)]
    norm = norm_of(on, x, p, axes, True)
    factor = on.Where(on.Greater(norm, maxnorm), on.Div(maxnorm, on.Add(norm, 1e-7)), 1.0)
    return on.Mul(x, factor)


def _slopes(on: Writer, y: Value, dim: int) -> tuple[Value, Value]:
    """All elements along an axis but the last, and all but the first."""
    return on.Slice(y, [0], [-1], [dim]), on.Slice(y, [1], [2**63 - 1], [dim])


def _areas(on: Writer, y: Value, x: Value | None, dx: float, dim: int) -> Value:
    first, second = _slopes(on, y, dim)
    if x is None:
        return on.Mul(on.Add(first, second), dx / 2)
    axis = dim % on.rank(y)
    start, end = _slopes(on, x, 0 if on.rank(x) == 1 else dim)
    width = on.Sub(end, start)
    if on.rank(x) == 1 and on.rank(y) > axis + 1:
        width = on.Unsqueeze(width, list(range(1, on.rank(y) - axis)))
    return on.Div(on.Mul(on.Add(first, second), width), 2.0)


def _trapezoid(on: Writer, y: Value, x: Value | None = None, *, dx: float, dim: int) -> Value:
    return on.ReduceSum(_areas(on, y, x, dx, dim), [dim], keepdims=0)


def _running_trapezoid(on: Writer, y: Value, x: Value | None = None, *, dx: float, dim: int) -> Value:
    return on.CumSum(_areas(on, y, x, dx, dim), [dim])


def _gradient(on: Writer, x: Value, spacing: float, dim: int, edge_order: int) -> Value:
    first, second = _slopes(on, x, dim)
    step = on.Div(on.Sub(second, first), spacing)
    before, after = _slopes(on, step, dim)
    inner = on.Div(on.Add(before, after), 2.0)
    edges = [on.Slice(step, [at], [end], [dim]) for at, end in ((0, 1), (-1, 2**63 - 1))]
    if edge_order == 2:
        near = [on.Slice(inner, [at], [end], [dim]) for at, end in ((0, 1), (-1, 2**63 - 1))]
        edges = [on.Sub(on.Mul(edge, 2.0), at) for edge, at in zip(edges, near, strict=True)]
    return on.Concat(edges[0], inner, edges[1], axis=dim)


def _axes(on: Writer, x: Value, dim: Any) -> list[int]:
    return list(range(on.rank(x))) if dim is None else [dim] if isinstance(dim, int) else list(dim)


def _sum_of_numbers(on: Writer, x: Value, dim: Any, keepdim: bool) -> Value:
    return on.ReduceSum(on.Where(on.IsNaN(x), 0, x), _axes(on, x, dim), keepdims=int(keepdim))


def _mean_of_numbers(on: Writer, x: Value, dim: Any, keepdim: bool) -> Value:
    there = on.cast(on.Not(on.IsNaN(x)), x.type.dtype or "f32")
    return on.Div(_sum_of_numbers(on, x, dim, keepdim), on.ReduceSum(there, _axes(on, x, dim), keepdims=int(keepdim)))


def _variance_mean(on: Writer, x: Value, dim: Axes, correction: float, keepdim: bool) -> Sequence[Value]:
    mean = on.ReduceMean(x, _axes(on, x, dim), keepdims=int(keepdim))
    return variance_of(on, x, dim, correction, keepdim), mean


def _deviation_mean(on: Writer, x: Value, dim: Axes, correction: float, keepdim: bool) -> Sequence[Value]:
    variance, mean = _variance_mean(on, x, dim, correction, keepdim)
    return on.Sqrt(variance), mean


def _degrees(on: Writer, x: Value, correction: float) -> Value:
    count = on.cast(on.length(x, 1), x.type.dtype or "f32")
    return on.Max(on.Sub(count, float(correction)), 0.0)


def _covariance(on: Writer, x: Value, correction: float) -> Value:
    if on.rank(x) < 2:
        return on.Squeeze(_covariance(on, on.Unsqueeze(x, [0]), correction), [0, 1])
    centred = on.Sub(x, on.ReduceMean(x, [1], keepdims=1))
    return on.Div(on.MatMul(centred, on.Transpose(centred, perm=[1, 0])), _degrees(on, x, correction))


def _correlation(on: Writer, x: Value) -> Value:
    if on.rank(x) < 2:
        return on.Squeeze(_correlation(on, on.Unsqueeze(x, [0])), [0, 1])
    found = _covariance(on, x, 1)
    deviation = on.Sqrt(on.Div(on.ReduceSumSquare(on.Sub(x, on.ReduceMean(x, [1])), [1]), _degrees(on, x, 1)))
    return on.Clip(on.Div(on.Div(found, deviation), on.Transpose(deviation, perm=[1, 0])), -1.0, 1.0)


def _bag(on: Writer, weight: Value, indices: Value, offsets: Value | None = None, factors: Value | None = None, *,
         mode: str, include_last_offset: bool, padding_idx: int | None, scale_grad_by_freq: bool,
         sparse: bool) -> Value:  # fmt: skip
    """Rows picked into [bags, places, size], reduced over those places that belong to the bag."""
    belongs = on.Expand(on.graph.constant(np.array(True)), on.Shape(indices))
    if padding_idx is not None:
        belongs = on.Not(on.Equal(indices, padding_idx % on.size(weight, 0)))
    rows = on.Gather(weight, indices)
    if factors is not None:
        rows = on.Mul(rows, on.Unsqueeze(factors, [-1]))
    if offsets is not None:
        starts = on.Slice(offsets, [0], [-1], [0]) if include_last_offset else offsets
        places = on.Unsqueeze(on.count_up(on.length(indices, 0)), [1])
        bag = on.Sub(on.ReduceSum(on.cast(on.LessOrEqual(starts, places), "i64"), [1], keepdims=0), 1)
        bags = on.Unsqueeze(on.count_up(on.length(starts, 0)), [1])
        belongs, rows = on.And(on.Equal(bags, bag), belongs), on.Unsqueeze(rows, [0])
    belongs = on.Unsqueeze(belongs, [-1])
    count = on.ReduceSum(on.cast(belongs, weight.type.dtype or "f32"), [1], keepdims=0)
    if mode == "max":
        largest = on.ReduceMax(on.Where(belongs, rows, float("-inf")), [1], keepdims=0)
        return on.Where(on.Greater(count, 0), largest, 0)
    total = on.ReduceSum(on.Where(belongs, rows, 0), [1], keepdims=0)
    return total if mode == "sum" else on.Div(total, on.Max(count, 1.0))


def _conv_of_sequences(on: Writer, x: Value, weight: Value, bias: Value, pad: int) -> Value:
    """Time, batch and channels in another order, and so the weight."""
    turned = on.Conv(on.Transpose(x, perm=[1, 2, 0]), on.Transpose(weight, perm=[2, 1, 0]), bias, pads=[pad, pad])
    return on.Transpose(turned, perm=[2, 0, 1])


def _sequence_output_axis(node: Any) -> int:
    return 2


for _name, _write, _doc in (
    ("AddMatVec", _add_vector_product, "beta * x + alpha * a @ b, of a matrix and a vector."),
    ("AddOuter", _add_outer, "beta * x + alpha times the outer product of two vectors."),
    ("AddSummedMatMul", _add_summed_products, "beta * x + alpha times the sum of the products of two batches."),
):
    function(_name, "x a b", _write, (), None, _doc, beta=1.0, alpha=1.0)

function("Inner", "a b", _inner, (), types_if_known, "The products over the last axes.")
function("TensorDot", "a b", _tensor_dot, (), types_if_known, "The products over these axes of each.", dims=2)
function("Kronecker", "a b", _kronecker, (), types_if_known, "Every element of a times the whole of b, in its place.")
function("Cross", "a b", _cross, (), types_if_known, "The cross product of vectors of three.", dim=None)
function("Trace", "x", _trace, (), types_if_known, "The sum of the diagonal of a matrix.")
function("ChainMatMul", "matrices*", _matrix_product, (), types_if_known, "The product of several matrices.")
function("MatrixPower", "x", _matrix_power, (), types_if_known, "The product of n times the same matrices.", n=1)
function("LogDeterminant", "x", lambda on, x: on.Log(on.Det(x)), (), types_if_known, "log(det(x)) of matrices.")
function("SignAndLogDeterminant", "x", _sign_and_log_of_determinant, (), None, "The sign of det(x), log(|det(x)|).", 2)
function("NormExcept", "x", _norm_except, (), types_if_known, "The norm over all axes but one.", pow=2, dim=0)
function("Distances", "a b", _distances, (), types_if_known, "The distance of every row of a to every row of b.",
         p=2.0, compute_mode="use_mm_for_euclid_dist_if_necessary")  # fmt: skip
function("Distance", "a b", _distance, (), types_if_known, "The norm of the difference.", p=2.0)
function("PairDistances", "x", _pair_distances, (), types_if_known, "The distances of every two rows.", p=2.0)
function("Bilinear", "a b weight bias?", _bilinear, (), types_if_known, "a @ W @ b + bias for every output's matrix W.")
function("Renormalized", "x", _renormalized, (), types_if_known, "x, slices of a larger norm scaled down to it.",
         p=2.0, dim=0, maxnorm=1.0)  # fmt: skip
function("Trapezoid", "y x?", _trapezoid, (), types_if_known, "The area below a line through points.",
         dx=1.0, dim=-1)  # fmt: skip
function("CumulativeTrapezoid", "y x?", _running_trapezoid, (), types_if_known, "The areas below a line so far.",
         dx=1.0, dim=-1)  # fmt: skip
function("Gradient", "x", _gradient, (), types_if_known, "The slope along an axis, from both neighbours.",
         spacing=1.0, dim=0, edge_order=1)  # fmt: skip
function("NanSum", "x", _sum_of_numbers, (), types_if_known, "The sum without what is NaN.", dim=None, keepdim=False)
function("NanMean", "x", _mean_of_numbers, (), types_if_known, "The mean without what is NaN.", dim=None, keepdim=False)
for _name, _spread, _doc in (("VarianceMean", _variance_mean, "The variance and the mean."),
                             ("DeviationMean", _deviation_mean, "The standard deviation and the mean.")):  # fmt: skip
    function(_name, "x", _spread, (), None, _doc, 2, dim=None, correction=1, keepdim=False)
function("Covariance", "x", _covariance, (), types_if_known, "The covariances of the rows.", correction=1)
function("Correlation", "x", _correlation, (), types_if_known, "The covariances of the rows over their deviations.")
function("Embedding", "weight indices", lambda on, weight, indices, **_: on.Gather(weight, indices), (CopiesData(),),
         types_if_known,
         "Rows of the weight; its attributes only change how it trains.", padding_idx=None, scale_grad_by_freq=False,
         sparse=False)  # fmt: skip
function("EmbeddingBag", "weight indices offsets? per_sample_weights?", _bag, (), types_if_known,
         "Rows of the weight, summed, averaged or compared over bags of them.", mode="mean", include_last_offset=False,
         padding_idx=None, scale_grad_by_freq=False, sparse=False)  # fmt: skip
function("ConvTBC", "x weight bias", _conv_of_sequences, (Weighted(_sequence_output_axis),), types_if_known,
         "A convolution over time, the first axis; batch and channels follow.", pad=0)  # fmt: skip
