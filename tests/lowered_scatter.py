"""More of `tests.lowered_calls`: what writes elements, shapes one tensor after others, picks diagonals and windows."""

from __future__ import annotations

from typing import Any

import torch

from tests.lowered_calls import MATRIX, ROW, TRUE, WHOLE, Call, X, Y, call, normal

_generator = torch.Generator().manual_seed(0)


def places(limit: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, limit, shape, generator=_generator)


ONCE = torch.stack([torch.randperm(4, generator=_generator) for _ in range(6)]).reshape(2, 3, 4)[..., :3]
"""Places along the last axis of X, none of them twice."""
TWICE = places(3, 2, 3, 4)
AXIS = torch.tensor([2, 0])
SQUARE = normal(3, 4, 4)
_scattered = [call(X, 2, ONCE, Y), call(X, -1, index=ONCE, src=normal(2, 3, 3))]
_indexed = [call(X, 1, AXIS, normal(2, 2, 4)), call(X, dim=-1, index=AXIS, source=normal(2, 3, 2))]
_diagonals = [call(SQUARE), call(SQUARE, 1, 1, 2), call(SQUARE, offset=-1, dim1=-1, dim2=0), call(X, 2, -2, -1)]

SCATTER_CALLS: dict[str, list[Call]] = {
    "scatter": [*_scattered, call(X, 2, ONCE, value=0.5), call(X, 2, ONCE, Y, reduce="add"),
                call(X, 2, ONCE, value=2.0, reduce="multiply"), call(WHOLE, 1, ONCE[0], WHOLE * 2)],
    "scatteradd": [call(X, 1, TWICE, Y), call(X, dim=1, index=TWICE[:, :2], src=Y),
                   call(WHOLE, 0, places(3, 3, 4), WHOLE * 2)],
    "scatterreduce": [call(X, 1, TWICE, Y, reduce, include_self=kept)
                      for reduce in ("sum", "prod", "mean", "amax", "amin") for kept in (True, False)],
    "indexcopy": _indexed,
    "indexadd": [*_indexed, call(X, 1, torch.tensor([2, 2]), normal(2, 2, 4), alpha=0.5)],
    "indexreduce": [call(X, 1, torch.tensor([2, 2]), normal(2, 2, 4), reduce, include_self=kept)
                    for reduce in ("prod", "mean", "amax", "amin") for kept in (True, False)],
    "indexfill": [call(X, 1, AXIS, 0.5), call(X, dim=-1, index=AXIS, value=-1), call(WHOLE, 0, AXIS, 7)],
    "index_put": [call(X, [places(2, 5), places(3, 5)], normal(5, 4), accumulate=True),
                  call(X, (AXIS % 2, AXIS, AXIS + 1), normal(2)), call(MATRIX, (AXIS,), normal(2, 4)),
                  call(X, (TRUE,), torch.tensor(0.5)), call(MATRIX, (AXIS,), torch.tensor(1.5))],
    "put": [call(X, torch.tensor([3, 9, 20]), normal(3)), call(X, places(24, 2, 3), normal(2, 3), accumulate=True)],
    "maskedscatter": [call(X, TRUE, Y), call(X, MATRIX > 0, Y)],
    "selectscatter": [call(X, normal(2, 4), 1, 2), call(X, normal(2, 3), -1, -2)],
    "slicescatter": [call(X, normal(2, 2, 4), 1, 1), call(X, normal(2, 3, 2), dim=-1, start=0, end=4, step=2),
                     call(X, Y, 1)],
    "diagonalscatter": [call(SQUARE, normal(3, 3), 1, 1, 2), call(SQUARE, normal(3, 3), offset=-1, dim1=-1, dim2=1),
                        call(X, normal(2, 3), 0, -2, -1)],
    "fill": [call(X, 0.5), call(WHOLE, 3)],
    "zero": [call(X), call(WHOLE)],
    "copy": [call(X, Y), call(X, ROW), call(X, WHOLE)],
    "fill_diagonal": [call(MATRIX, 0.5), call(WHOLE, 7)],
    "zeros_like": [call(X), call(WHOLE), call(X, dtype=torch.int64)],
    "ones_like": [call(X), call(TRUE), call(X, dtype=torch.float64)],
    "full_like": [call(X, 0.5), call(WHOLE, 2), call(WHOLE, fill_value=0.5, dtype=torch.float32)],
    **{name: [call(X, 2, 3), call(WHOLE, (4,)), call(X, [2, 1], dtype=torch.bool)]
       for name in ("new_zeros", "new_ones")},
    "new_full": [call(X, (2, 3), 0.5), call(WHOLE, [4], fill_value=2)],
    "expandas": [call(normal(2, 1, 4), X), call(ROW, X)],
    "reshapeas": [call(X, normal(4, 6)), call(X, normal(2, 12))],
    "sum_to_size": [call(X, (3, 1)), call(X, [2, 3, 1]), call(X, (2, 3, 4))],
    "broadcast_tensors": [call(X, ROW), call(ROW, normal(3, 1), normal(1)), call(X)],
    "meshgrid": [call(ROW, normal(3), indexing="ij"), call([ROW, normal(3), normal(2)], indexing="xy"), call(ROW)],
    "cartesian_prod": [call(ROW, normal(3)), call(ROW, normal(3), normal(2)), call(ROW)],
    "block_diag": [call(MATRIX, normal(2, 3)), call(MATRIX, ROW, normal(2, 2)), call(MATRIX)],
    **{f"atleast_{rank}d": [call(X), call(MATRIX), call(ROW), call([MATRIX, ROW]), call(torch.tensor(0.5))]
       for rank in (1, 2, 3)},
    "diagonal": _diagonals,
    "diagonalmatrix": [call(X), call(X, 1), call(X, offset=-2, dim1=0, dim2=2)],
    "windows": [call(X, 1, 2, 1), call(X, -1, 2, 2), call(X, dimension=2, size=3, step=2)],
    "takealong": [call(X, TWICE, 1), call(X, places(4, 2, 3, 5), dim=-1), call(X, places(24, 6)),
                  call(X, places(3, 1, 2, 1), 1)],
    "diag": [call(ROW), call(ROW, 1), call(MATRIX), call(MATRIX, diagonal=-1)],
    "diagflat": [call(MATRIX), call(ROW, -1)],
    "take": [call(X, places(24, 2, 3)), call(X, torch.tensor([-1, 0]))],
    "one_hot": [call(places(5, 3, 2), 5), call(places(5, 3), num_classes=6)],
    "rot90": [call(X), call(X, 2, (0, 1)), call(X, k=-1, dims=[1, 2]), call(X, 4)],
    "hsplit": [call(X, 3), call(X, [1, 2])],
    "vsplit": [call(SQUARE.permute(1, 0, 2), 2)],
    "dsplit": [call(X, 2), call(X, (1, 3))],
    "_slice": [call(X, 1, 0, 2), call(X, dim=-1, start=1, end=4, step=2)],
    "unravel_index": [call(places(24, 5), (2, 3, 4))],
    "tensor_split": [call(X, 2, -2), call(X, 3, dim=2), call(X, [1, 3], dim=2), call(X, (-3,), -1)],
}  # fmt: skip
"""By the name of the lowering."""

_split = [call(X, 2, 1), call(X, 3, dim=-1)]
_sized = [call(X, [1, 3], -1)]

SCATTER_SPELLED: dict[Any, list[Call]] = {
    torch.split_copy: _split, torch.unsafe_split: _split, "Tensor.unsafe_split": _split,
    torch.split_with_sizes_copy: _sized, torch.unsafe_split_with_sizes: _sized,
    "Tensor.unsafe_split_with_sizes": _sized,
}  # fmt: skip
"""Further or, where the lowering's calls do not fit, other calls of one spelling."""

OTHER_SCATTER_ARGUMENTS = tuple(SCATTER_SPELLED)
"""Spellings that take none of the calls of their lowering."""
