"""Lowerings of torch's functions whose results are as large as the data says, and of counts of elements."""

from __future__ import annotations

from typing import Any

from qir.frontends.torch_computed import is_computed
from qir.frontends.torch_elements import real
from qir.frontends.torch_functions import floating, is_number, spelled
from qir.frontends.torch_indexing import expand
from qir.frontends.torch_lowerings import Builder, composite, known, lowers
from qir.frontends.torch_tensors import flatten, unsqueeze
from qir.graph import Value

composite("qir.MaskedSelect", spelled("masked_select"), lambda input, mask: ((input, mask), {}))


@lowers(*spelled("nonzero"))
def nonzero(build: Builder, input: Value, *, as_tuple: bool = False) -> Any:
    """qir.NonZeroPlaces; a column of them for each axis."""
    places = build("qir.NonZeroPlaces", input)
    if not as_tuple:
        return places
    known(bool(input.type.rank), "a tensor of unknown rank")
    return tuple(build("qir.Index", places, index=(slice(None), axis)) for axis in range(input.type.rank or 0))


@lowers(*spelled("argwhere"))
def argwhere(build: Builder, input: Value) -> Value:
    """qir.NonZeroPlaces."""
    return build("qir.NonZeroPlaces", input)


@lowers(*spelled("unique"))
def unique(build: Builder, input: Value, sorted: bool = True, return_inverse: bool = False,
           return_counts: bool = False, dim: int | None = None) -> Any:  # fmt: skip
    """qir.Unique."""
    found = build.several("qir.Unique", 3, input, dim=dim)
    kept = [part for part, wanted in zip(found, (True, return_inverse, return_counts), strict=True) if wanted]
    return kept[0] if len(kept) == 1 else tuple(kept)


@lowers(*spelled("unique_consecutive"))
def unique_consecutive(build: Builder, input: Value, *, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:  # fmt: skip
    """qir.UniqueInRow."""
    known(dim is None, "slices that differ from the one before")
    found = build.several("qir.UniqueInRow", 3, input)
    kept = [part for part, wanted in zip(found, (True, return_inverse, return_counts), strict=True) if wanted]
    return kept[0] if len(kept) == 1 else tuple(kept)


composite("qir.Combinations", spelled("combinations"), lambda input, r=2, with_replacement=False: (
    (input,), {"r": r, "with_replacement": with_replacement}))  # fmt: skip


@lowers(*spelled("bincount"))
def bincount(build: Builder, input: Value, weights: Any = None, minlength: int = 0) -> Value:
    """qir.CountNumbers."""
    return build("qir.CountNumbers", input, weights, minlength=minlength)


@lowers(*spelled("repeat_interleave"))
def repeat_interleave(build: Builder, input: Value, repeats: Any = None, dim: Any = None, *,
                      output_size: Any = None) -> Value:  # fmt: skip
    """qir.RepeatEach, each equally often; so often as is computed, a new axis of that size joined to its axis."""
    if is_computed(repeats) and isinstance(dim, int) and input.type.rank is not None:
        rank, axis = input.type.rank, dim % input.type.rank
        sizes = [-1] * (axis + 1) + [repeats] + [-1] * (rank - axis - 1)
        repeated = expand(build, unsqueeze(build, input, axis + 1), *sizes)
        return flatten(build, repeated, axis, axis + 1)  # type: ignore[no-any-return]
    known(is_number(repeats), "a number for each slice")
    return build("qir.RepeatEach", input, repeats=repeats, dim=dim)


@lowers(*spelled("histc"))
def histc(build: Builder, input: Value, bins: int = 100, min: Any = 0, max: Any = 0) -> Value:
    """qir.Histogram between stated limits."""
    known(is_number(bins, min, max) and min < max, "the limits of the data")
    floating(input)
    return build("qir.Histogram", input, bins=bins, min=float(min), max=float(max))


@lowers(*spelled("angle"))
def angle(build: Builder, input: Value) -> Value:
    """qir.RealAngle of real floats."""
    real(input)
    floating(input)
    return build("qir.RealAngle", input)
