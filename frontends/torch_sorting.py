"""Lowerings of torch's functions that compare along an axis: extremes and their places, order, running results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from qir.frontends.torch_functions import floating, is_number, spelled
from qir.frontends.torch_lowerings import Builder, Lowering, composite, known, lowers
from qir.frontends.torch_tensors import maximum, minimum
from qir.graph import Value
from qir.types import ScalarType


def named(name: str) -> Callable[[Sequence[Value]], Any]:
    """What arranges two values as torch's named tuple of that function does."""
    return lambda values: getattr(torch.return_types, name)(tuple(values))


def _extreme(name: str, op: str, reduce: str, of_two: Lowering) -> None:
    def lowering(build: Builder, input: Value, *args: Any, **kwargs: Any) -> Any:
        """The extreme of all elements, that of two tensors, or those along an axis with their places."""
        other = args[0] if args else kwargs.get("other")
        if isinstance(other, Value) and not isinstance(other.type, ScalarType):
            return of_two(build, input, *args, **kwargs)
        if not args and not kwargs:
            return build(reduce, input, keepdims=0)
        return along(build, input, *args, **kwargs)

    def along(build: Builder, input: Value, dim: Any, keepdim: bool = False) -> Any:
        known(isinstance(dim, int) and isinstance(keepdim, bool), "an axis that is computed")
        return named(name)(build.several(op, 2, input, dim=dim, keepdim=keepdim))

    lowering.__name__ = op.rpartition(".")[2].lower()
    lowers(*spelled(name))(lowering)


_extreme("max", "qir.Largest", "ReduceMax", maximum)
_extreme("min", "qir.Smallest", "ReduceMin", minimum)


@lowers(*spelled("aminmax"))
def aminmax(build: Builder, input: Value, *, dim: Any = None, keepdim: bool = False) -> Any:
    """ReduceMin and ReduceMax."""
    known(dim is not None or not keepdim, "all axes kept")
    parts = [build(op, input, None if dim is None else build.indices([dim]), keepdims=int(keepdim))
             for op in ("ReduceMin", "ReduceMax")]  # fmt: skip
    return named("aminmax")(parts)


@lowers(*spelled("topk"))
def topk(build: Builder, input: Value, k: Any, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """TopK."""
    known(is_number(k, dim), "a computed number of elements")
    made = build.several("TopK", 2, input, build.indices([k]), axis=dim, largest=int(largest), sorted=int(sorted))
    return named("topk")(made)


@lowers(*spelled("sort"))
def sort(build: Builder, input: Value, *args: Any, **kwargs: Any) -> Any:
    """qir.Sort."""
    options = _order_options(*args, **kwargs)
    return named("sort")(build.several("qir.Sort", 2, input, **options))


@lowers(*spelled("argsort"))
def argsort(build: Builder, input: Value, *args: Any, **kwargs: Any) -> Value:
    """qir.ArgSort."""
    return build("qir.ArgSort", input, **_order_options(*args, **kwargs))


def _order_options(dim: int = -1, descending: bool = False, stable: Any = False) -> dict[str, Any]:
    known(is_number(dim, descending), "an order that is computed")
    return {"dim": dim, "descending": descending, "stable": bool(stable)}


@lowers(*spelled("msort"))
def msort(build: Builder, input: Value) -> Value:
    """qir.Sort along axis 0."""
    return build.several("qir.Sort", 2, input, dim=0)[0]


@lowers(*spelled("kthvalue"))
def kthvalue(build: Builder, input: Value, k: Any, dim: int = -1, keepdim: bool = False) -> Any:
    """qir.KthValue."""
    known(is_number(k, dim), "a place that is computed")
    return named("kthvalue")(build.several("qir.KthValue", 2, input, k=k, dim=dim, keepdim=keepdim))


@lowers(*spelled("median"))
def median(build: Builder, input: Value, dim: Any = None, keepdim: bool = False) -> Any:
    """qir.Median."""
    if dim is None:
        return build.several("qir.Median", 2, build("Reshape", input, build.indices([-1])), dim=0)[0]
    return named("median")(build.several("qir.Median", 2, input, dim=dim, keepdim=keepdim))


@lowers(*spelled("quantile"))
def quantile(build: Builder, input: Value, q: Any, dim: Any = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Value:  # fmt: skip
    """qir.Quantile of one part."""
    known(is_number(q) and interpolation == "linear", "several parts, or another interpolation")
    floating(input)
    return build("qir.Quantile", input, q=float(q), dim=dim, keepdim=keepdim)


for _name, _op in (("cummax", "qir.CumulativeMax"), ("cummin", "qir.CumulativeMin")):
    composite(_op, spelled(_name), lambda input, dim: ((input,), {"dim": dim}), named(_name))

composite("qir.CumulativeLogSumExp", spelled("logcumsumexp"), lambda input, dim: ((input,), {"dim": dim}))


@lowers(*spelled("cumprod"))
def cumprod(build: Builder, input: Value, dim: int, *, dtype: Any = None) -> Value:
    """qir.CumulativeProduct."""
    known(dtype is None and (input.type.dtype or "?")[0] in "?f", "a product in another dtype")
    known(is_number(dim), "a computed axis")
    return build("qir.CumulativeProduct", input, dim=dim)


@lowers(*spelled("searchsorted"))
def searchsorted(build: Builder, sorted_sequence: Value, input: Any, *, out_int32: bool = False, right: bool = False,
                 side: Any = None, sorter: Any = None) -> Value:  # fmt: skip
    """qir.SearchSorted."""
    known(sorter is None and isinstance(input, Value), "a sequence to be sorted, or a number")
    return build("qir.SearchSorted", sorted_sequence, input, right=right or side == "right", out_int32=out_int32)


@lowers(*spelled("bucketize"))
def bucketize(build: Builder, input: Value, boundaries: Any, *, out_int32: bool = False,
              right: bool = False) -> Value:  # fmt: skip
    """qir.SearchSorted with the two the other way round."""
    known(isinstance(input, Value), "a number")
    return searchsorted(build, build.value(boundaries), input, out_int32=out_int32, right=right)  # type: ignore[no-any-return]
