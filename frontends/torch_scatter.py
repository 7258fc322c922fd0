"""Lowerings of torch's functions that write elements into a tensor, and return what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from qir.frontends.torch_functions import is_number, spelled
from qir.frontends.torch_lowerings import Builder, composite, known, lowers
from qir.graph import Value
from qir.types import ScalarType


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Value) and not isinstance(value.type, ScalarType)


@lowers(*spelled("scatter"))
def scatter(build: Builder, input: Value, dim: int, index: Value, src: Any = None, *, value: Any = None,
            reduce: str | None = None) -> Value:  # fmt: skip
    """qir.Scatter of a tensor, qir.ScatterValue of a number."""
    given = value if src is None else src
    known(is_number(dim) and reduce in (None, "add", "multiply"), "a computed axis")
    if _is_tensor(given):
        return build("qir.Scatter", input, index, given, dim=dim, reduce=reduce)
    known(is_number(given), "a computed number")
    return build("qir.ScatterValue", input, index, dim=dim, value=given, reduce=reduce)


composite("qir.ScatterAdd", spelled("scatter_add"), lambda input, dim, index, src: ((input, index, src), {"dim": dim}))
composite("qir.ScatterReduce", spelled("scatter_reduce"), lambda input, dim, index, src, reduce, *, include_self=True: (
    (input, index, src), {"dim": dim, "reduce": reduce, "include_self": include_self}))  # fmt: skip
composite("qir.IndexCopy", spelled("index_copy"), lambda input, dim, index, source: (
    (input, index, source), {"dim": dim}))  # fmt: skip
composite("qir.IndexAdd", spelled("index_add"), lambda input, dim, index, source, *, alpha=1: (
    (input, index, source), {"dim": dim, "alpha": alpha}))  # fmt: skip
composite("qir.IndexReduce", spelled("index_reduce"), lambda input, dim, index, source, reduce, *, include_self=True: (
    (input, index, source), {"dim": dim, "reduce": reduce, "include_self": include_self}))  # fmt: skip
composite("qir.IndexFill", spelled("index_fill"), lambda input, dim, index, value: (
    (input, index), {"dim": dim, "value": value}))  # fmt: skip
composite("qir.Put", spelled("put"), lambda input, index, source, accumulate=False: (
    (input, index, source), {"accumulate": accumulate}))  # fmt: skip
composite("qir.MaskedScatter", spelled("masked_scatter"), lambda input, mask, source: ((input, mask, source), {}))
composite("qir.SelectScatter", spelled("select_scatter"), lambda input, src, dim, index: (
    (input, src), {"dim": dim, "index": index}))  # fmt: skip
composite("qir.SliceScatter", spelled("slice_scatter"), lambda input, src, dim=0, start=None, end=None, step=1: (
    (input, src), {"dim": dim, "start": start, "end": end, "step": step}))  # fmt: skip
composite("qir.DiagonalScatter", spelled("diagonal_scatter"), lambda input, src, offset=0, dim1=0, dim2=1: (
    (input, src), {"offset": offset, "dim1": dim1, "dim2": dim2}))  # fmt: skip


@lowers(*spelled("index_put"))
def index_put(build: Builder, input: Value, indices: Sequence[Any], values: Any, accumulate: bool = False) -> Value:
    """qir.IndexPut, for places in the first axes, or a mask with one value for all of its places."""
    known(isinstance(indices, list | tuple) and all(map(_is_tensor, indices)), "an axis without an index")
    dtypes = {index.type.dtype for index in indices}
    known(None not in dtypes, "an index of unknown dtype")
    if "bool" in dtypes:
        known(len(indices) == 1 and build.value(values).type.rank == 0, "a mask with several values")  # type: ignore[union-attr]
    return build("qir.IndexPut", input, values, *indices, accumulate=accumulate)


# -- what overwrites a whole tensor ------------------------------------------------------------------------------------


@lowers("Tensor.fill_", torch.fill, torch.fill_)
def fill(build: Builder, input: Value, value: Any) -> Value:
    """qir.Fill, or qir.CopyInto of a tensor without axes."""
    if _is_tensor(value):
        known(value.type.rank == 0, "a tensor with axes")
        return build("qir.CopyInto", input, value)
    known(is_number(value), "a computed number")
    return build("qir.Fill", input, value=value)


@lowers("Tensor.zero_", torch.zero_)
def zero(build: Builder, input: Value) -> Value:
    """qir.Fill with 0."""
    return build("qir.Fill", input, value=0)


@lowers("Tensor.copy_")
def copy(build: Builder, input: Value, src: Any, non_blocking: bool = False) -> Value:
    """qir.CopyInto: the other tensor in the shape and dtype of this one."""
    known(_is_tensor(src), "a number")
    return build("qir.CopyInto", input, src)


@lowers("Tensor.fill_diagonal_")
def fill_diagonal(build: Builder, input: Value, fill_value: Any, wrap: bool = False) -> Value:
    """qir.FillDiagonal of a matrix."""
    known(is_number(fill_value) and not wrap and input.type.rank in (None, 2), "a diagonal that wraps")
    return build("qir.FillDiagonal", input, fill_value=fill_value)
