"""Composites in the domain `qir.` that sum over axes: reductions, norms, normalization, products, resampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.errors import QirError
from qir.operators.functions import Writer, function, same_type, types_if_known
from qir.ops import Attribute, OpDef, declare
from qir.traits import IdentityInInference, Stateful, Unary, Weighted

if TYPE_CHECKING:
    from qir.graph import Graph, Node, Value

Axes = Sequence[int] | None


def _axes(on: Writer, x: Value, dim: Axes) -> list[int]:
    return list(range(on.rank(x))) if dim is None else list(dim)


def variance_of(on: Writer, x: Value, dim: Axes, correction: float, keepdim: bool) -> Value:
    """The mean square distance from the mean along axes, over `n - correction`."""
    axes = _axes(on, x, dim)
    count = on.ReduceProd(on.Gather(on.Shape(x), [axis % on.rank(x) for axis in axes]), keepdims=0)
    degrees = on.Max(on.Sub(on.cast(count, x.type.dtype or "f32"), float(correction)), 0.0)
    centred = on.Sub(x, on.ReduceMean(x, axes, keepdims=1))
    total = on.ReduceSum(on.Mul(centred, centred), axes, keepdims=int(keepdim))
    return on.Div(total, degrees)


def norm_of(on: Writer, x: Value, p: float, dim: Axes, keepdim: bool) -> Value:
    """The p-norm along axes."""
    axes, keep = _axes(on, x, dim), int(keepdim)
    if p in (1, 2):
        short: Value = getattr(on, f"ReduceL{int(p)}")(x, axes, keepdims=keep)
        return short
    size = on.Abs(x)
    if abs(p) == float("inf"):
        return on.ReduceMax(size, axes, keepdims=keep) if p > 0 else on.ReduceMin(size, axes, keepdims=keep)
    if p == 0:
        raise QirError("counting elements that are not 0 has no expansion", on.node)
    return on.Pow(on.ReduceSum(on.Pow(size, float(p)), axes, keepdims=keep), 1 / p)


def _normalize(on: Writer, x: Value, p: float, dim: int, eps: float) -> Value:
    return on.Div(x, on.Max(norm_of(on, x, p, [dim], True), eps))


def _some(on: Writer, x: Value, dim: Axes, keepdim: bool) -> Value:
    return on.ReduceMax(x, _axes(on, x, dim), keepdims=int(keepdim))


def _every(on: Writer, x: Value, dim: Axes, keepdim: bool) -> Value:
    return on.ReduceMin(x, _axes(on, x, dim), keepdims=int(keepdim))


def _cosine(on: Writer, a: Value, b: Value, dim: int, eps: float) -> Value:
    products = on.Mul(_normalize(on, a, 2, dim, eps), _normalize(on, b, 2, dim, eps))
    return on.ReduceSum(products, [dim], keepdims=0)


def _distance(on: Writer, a: Value, b: Value, p: float, eps: float, keepdim: bool) -> Value:
    return norm_of(on, on.Add(on.Sub(a, b), eps), p, [-1], keepdim)


def _gated(on: Writer, x: Value, dim: int) -> Value:
    half = on.size(x, dim) // 2
    first, second = on.Slice(x, [0], [half], [dim]), on.Slice(x, [half], [2 * half], [dim])
    return on.Mul(first, on.Sigmoid(second))


def standardized(on: Writer, x: Value, axes: list[int], eps: float) -> Value:
    """`x` with the mean 0 and the variance 1 along axes."""
    centred = on.Sub(x, on.ReduceMean(x, axes, keepdims=1))
    variance = on.ReduceMean(on.Mul(centred, centred), axes, keepdims=1)
    return on.Div(centred, on.Sqrt(on.Add(variance, eps)))


def _instance_norm(on: Writer, x: Value, eps: float) -> Value:
    return standardized(on, x, list(range(2, on.rank(x))), eps)


def _layer_norm(on: Writer, x: Value, normalized_shape: Sequence[int], eps: float) -> Value:
    return standardized(on, x, list(range(-len(normalized_shape), 0)), eps)


def _rms_norm(on: Writer, x: Value, normalized_shape: Sequence[int], eps: float) -> Value:
    square = on.ReduceMean(on.Mul(x, x), list(range(-len(normalized_shape), 0)), keepdims=1)
    return on.Div(x, on.Sqrt(on.Add(square, eps)))


def _add_product(on: Writer, x: Value, a: Value, b: Value, beta: float, alpha: float) -> Value:
    product = on.MatMul(a, b)
    product = product if alpha == 1 else on.Mul(product, alpha)
    return on.Add(x if beta == 1 else on.Mul(x, beta), product)


_PRODUCT = (Weighted(lambda node: (node.operands[2].type.rank or 2) - 1, input=1, weight=2, bias=0),)

function("Variance", "x", variance_of, (), types_if_known,
         "The mean square distance from the mean, over `n - correction`.",
         dim=None, correction=1, keepdim=False)  # fmt: skip
function("StandardDeviation", "x", lambda on, x, **given: on.Sqrt(variance_of(on, x, **given)), (), types_if_known,
         "The square root of the variance.", dim=None, correction=1, keepdim=False)  # fmt: skip
function("Norm", "x", norm_of, (), types_if_known, "The sum of |x| ** p, to the power of 1 / p.",
         p=2.0, dim=None, keepdim=False)  # fmt: skip
function("Normalize", "x", _normalize, (), same_type, "x divided by its norm along an axis, at least by eps.",
         p=2.0, dim=1, eps=1e-12)  # fmt: skip
function("Any", "x", _some, (), types_if_known, "Whether one of the booleans is true.", dim=None, keepdim=False)
function("All", "x", _every, (), types_if_known, "Whether all of the booleans are true.", dim=None, keepdim=False)
function("CosineSimilarity", "a b", _cosine, (), types_if_known, "The cosine of the angle between vectors.",
         dim=1, eps=1e-8)  # fmt: skip
function("PairwiseDistance", "a b", _distance, (), types_if_known, "The norm of a - b + eps along the last axis.",
         p=2.0, eps=1e-6, keepdim=False)  # fmt: skip
function("Glu", "x", _gated, (), types_if_known, "The first half, times the sigmoid of the second.", dim=-1)
function("InstanceNorm", "x", _instance_norm, (), same_type, "Each channel of each sample, standardized.", eps=1e-5)
function("LayerNorm", "x", _layer_norm, (), same_type, "The last axes, standardized.", normalized_shape=(), eps=1e-5)
function("RMSNorm", "x", _rms_norm, (), same_type, "The last axes, divided by the root of their mean square.",
         normalized_shape=(), eps=1e-5)  # fmt: skip
for _name in ("AddMatMul", "AddBatchMatMul"):
    function(_name, "x a b", _add_product, _PRODUCT, None, "beta * x + alpha * a @ b.", beta=1.0, alpha=1.0)


_RESIZE: dict[str, dict[str, Any]] = {
    "nearest": {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    **{name: {"mode": "linear"} for name in ("linear", "bilinear", "trilinear")},
    "bicubic": {"mode": "cubic", "cubic_coeff_a": -0.75},
    "nearest-exact": {"mode": "nearest", "coordinate_transformation_mode": "half_pixel",
                      "nearest_mode": "round_prefer_ceil"},
}  # fmt: skip


def _interpolate(on: Writer, x: Value, size: Any, scale_factor: Any, mode: str, align_corners: Any,
                 antialias: bool) -> Value:  # fmt: skip
    attrs = dict(_RESIZE[mode])
    if antialias:
        attrs |= {"antialias": 1, "exclude_outside": 1, "coordinate_transformation_mode": "half_pixel"}
        attrs |= {"cubic_coeff_a": -0.5} if mode == "bicubic" else {}
    elif not mode.startswith("nearest"):
        attrs["coordinate_transformation_mode"] = "align_corners" if align_corners else "pytorch_half_pixel"
    axes = list(range(2, on.rank(x)))
    if size is not None:
        sizes = list(size) if isinstance(size, tuple | list) else [size] * len(axes)
        return on.Resize(x, None, None, sizes, axes=axes, **attrs)
    scales = scale_factor if isinstance(scale_factor, tuple | list) else [scale_factor] * len(axes)
    return on.Resize(x, None, np.array(scales, np.float32), axes=axes, **attrs)


function("Interpolate", "x", _interpolate, (), types_if_known, "x at another size: torch's interpolate.",
         size=None, scale_factor=None, mode="nearest", align_corners=None, antialias=False)  # fmt: skip


def _drop(name: str, doc: str, **attributes: Attribute) -> None:
    declare(
        OpDef(
            f"qir.{name}", ("x",), 1, 1, attributes={"p": Attribute("FLOAT", required=True), **attributes},
            traits=(Unary(), Stateful(), IdentityInInference()), expand=_identity, infer=same_type, doc=doc,
        )
    )  # fmt: skip


def _identity(graph: Graph, node: Node) -> Sequence[Value]:
    """The operand itself."""
    return [node.operands[0]]


_drop("FeatureDropout", "When training, drops whole channels.", rank=Attribute("INT", required=True))
_drop("AlphaDropout", "When training, sets elements to the negative saturation of SELU.")
_drop("FeatureAlphaDropout", "When training, sets whole channels to the negative saturation of SELU.")
