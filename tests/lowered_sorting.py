"""More of `tests.lowered_calls`: signs, shifts, comparisons, extremes with their places, order, running results."""

from __future__ import annotations

import operator
from typing import Any

import torch

from tests.lowered_calls import LARGE, MATRIX, NAN, ROW, TRUE, UNIT, WHOLE, Call, X, Y, call, normal

ZEROS = torch.tensor([0.0, -0.0, 1.5, -1.5, torch.inf, -torch.inf])
INFINITE = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.5])
SHUFFLED = torch.randperm(24, generator=torch.Generator().manual_seed(0)).reshape(2, 3, 4)
TIES = torch.tensor([[1.0, 3.0, 3.0, 2.0], [2.0, 2.0, 1.0, 2.0], [0.0, -1.0, -1.0, 5.0]])
EDGES = torch.tensor([-1.0, 0.0, 0.5, 2.0])
MIXED = WHOLE - 6
REPEATED = torch.tensor([[3, 1, 3, 0], [1, 1, 7, 3], [3, 1, 3, 0]])
SHIFTS = torch.tensor([0, 1, 2, 3])
_along = [call(X, 1), call(X, dim=-1, keepdim=True), call(X, 0, True), call(SHUFFLED, 2)]
_running = [call(X, 1), call(X, dim=-1), call(TIES, 1)]

SORTING_CALLS: dict[str, list[Call]] = {
    "copysign": [call(X, Y), call(X, -1.0), call(normal(6), ZEROS)],
    **{name: [call(X, Y), call(INFINITE, normal(4)), call(normal(4), INFINITE), call(MIXED, WHOLE)]
       for name in ("fmax", "fmin")},
    "logaddexp2": [call(X, Y)],
    "heaviside": [call(ZEROS, normal(6)), call(MIXED, WHOLE)],
    "signbit": [call(ZEROS), call(X), call(MIXED)],
    "nantonum": [call(INFINITE), call(INFINITE, 0.5, 2.0), call(INFINITE, neginf=-3.0), call(INFINITE, nan=1)],
    "isclose": [call(X, Y), call(X, X + 1e-6), call(X, Y, 0.5, atol=0.1), call(INFINITE, INFINITE, equal_nan=True),
                call(INFINITE, INFINITE), call(MIXED, WHOLE, atol=7)],
    "isreal": [call(X), call(NAN), call(WHOLE), call(TRUE)],
    "ldexp": [call(X, SHIFTS), call(X, Y)],
    "float_power": [call(LARGE, Y), call(X, 2), call(WHOLE, 3), call(LARGE, 0.5)],
    "float_power_in_place": [call(X.double(), 2), call(LARGE.double(), Y)],
    **{name: [call(MIXED, SHIFTS), call(MIXED, 2)] for name in ("shiftleft", "shiftright")},
    **{f"{name}_reflected": [call(SHIFTS, 5), call(SHIFTS, -9)] for name in ("shiftleft", "shiftright")},
    "itself": [call(X), call(WHOLE)],
    "sgn": [call(X), call(MIXED)],
    "adjoint": [call(X), call(MATRIX)],
    "vdot": [call(ROW, normal(4))],
    "type_as": [call(X, WHOLE), call(WHOLE, X), call(X, TRUE)],
    "isin": [call(MIXED, WHOLE), call(MIXED, torch.tensor([2, -3]), invert=True)],
    **{name: [*_along, call(X), call(X, Y), call(WHOLE)] for name in ("largest", "smallest")},
    "aminmax": [call(X), call(X, dim=1), call(X, dim=-1, keepdim=True), call(WHOLE)],
    "topk": [call(X, 2), call(X, 2, 1), call(X, 3, dim=-1, largest=False), call(SHUFFLED, 1, sorted=True)],
    **{name: [call(X), call(X, 1), call(X, dim=0, descending=True), call(SHUFFLED, -1),
              call(TIES, dim=1, stable=True), call(TIES, dim=1, descending=True, stable=True)]
       for name in ("sort", "argsort")},
    "msort": [call(X), call(SHUFFLED)],
    "kthvalue": [call(X, 2), call(X, 1, 1), call(X, k=3, dim=-1, keepdim=True)],
    "median": [call(X, 1), call(X, dim=-1, keepdim=True)],
    "quantile": [call(X, 0.3, 1), call(X, 0.5, dim=-1, keepdim=True), call(X, 1.0, 2)],
    "cumulativemax": _running,
    "cumulativemin": _running,
    "cumulativelogsumexp": [call(X, 1), call(UNIT * 50, dim=-1)],
    "cumprod": [call(X, 1), call(X, dim=-1)],
    "searchsorted": [call(EDGES, X), call(EDGES, EDGES, right=True), call(EDGES, X, side="right", out_int32=True),
                     call(TIES.sort(1).values, TIES)],
    "bucketize": [call(X, EDGES), call(EDGES, EDGES, right=True), call(X, EDGES, out_int32=True)],
    "combinations": [call(ROW), call(ROW, with_replacement=True), call(ROW, r=2)],
    "nonzero": [call(X.relu()), call(TRUE)],
    "argwhere": [call(X.relu()), call(MIXED)],
    "maskedselect": [call(X, TRUE), call(X, MATRIX > 0), call(MATRIX, TRUE)],
    "unique": [call(REPEATED), call(REPEATED, return_inverse=True), call(REPEATED, True, True, True),
               call(REPEATED, dim=0, return_counts=True)],
    "unique_consecutive": [call(REPEATED), call(REPEATED, return_inverse=True),
                           call(REPEATED, return_inverse=True, return_counts=True)],
    "bincount": [call(REPEATED[0]), call(REPEATED[0], minlength=9), call(REPEATED[0], normal(4))],
    "repeat_interleave": [call(X, 2), call(X, 3, 1), call(X, repeats=2, dim=-1)],
    "histc": [call(X, 10, -2, 2), call(X, bins=4, min=-1, max=0.5)],
    "angle": [call(X), call(INFINITE), call(ZEROS)],
    "reducesum": [call(X), call(X, [1]), call(X, (0, -1), keepdim=True), call(WHOLE, 1), call(TRUE, 0),
                  call(X, dtype=torch.float64), call(WHOLE.int(), 0, dtype=torch.float32)],
    "reducemean": [call(X), call(X, [1]), call(X, (0, -1), keepdim=True), call(WHOLE, 1, dtype=torch.float32)],
    "div": [call(X, LARGE), call(X, 3), call(X, WHOLE), call(WHOLE, LARGE[0, :, :]), call(MIXED, 4)],
}  # fmt: skip
"""By the name of the lowering."""

_rounded = [call(X, LARGE, rounding_mode="floor"), call(X, 0.7, rounding_mode="trunc"),
            call(MIXED, SHIFTS + 2, rounding_mode="floor"), call(MIXED, 4, rounding_mode="trunc")]  # fmt: skip

SORTING_SPELLED: dict[Any, list[Call]] = {
    torch.div: _rounded,
    "Tensor.divide": _rounded,
    operator.truediv: [call(1.5, LARGE), call(2, WHOLE + 1), call(WHOLE, WHOLE + 1)],
}
"""Further or, where the lowering's calls do not fit, other calls of one spelling."""
