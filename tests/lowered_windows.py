"""More of `tests.lowered_calls`: pooling with places, folding, sampling, norms of other statistics or without scale."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.lowered_calls import IMAGE, LINE, MATRIX, VOLUME, Call, X, call, normal

GRID = normal(2, 5, 6, 2) * 0.6
THETA = normal(2, 2, 3)
COLUMNS = normal(2, 3 * 4, 6)
MEAN, VARIANCE = normal(4), normal(4).abs() + 0.5
_inputs = (LINE, IMAGE, VOLUME)
_evens = (normal(2, 4, 8), normal(2, 3, 6, 8), normal(2, 2, 4, 4, 6))


def _unpooled(rank: int) -> tuple[Tensor, Tensor]:
    pool: Any = getattr(F, f"max_pool{rank}d")
    values, places = pool(_evens[rank - 1], 2, return_indices=True)
    return values, places


UNPOOLED = [_unpooled(rank) for rank in (1, 2, 3)]
"""For each rank, what max pooling returns."""

WINDOW_CALLS: dict[str, list[Call]] = {
    **{f"adaptive_max_pool{rank}d{suffix}": [call(_inputs[rank - 1], 2), call(_inputs[rank - 1], output_size=3)]
       for rank in (1, 2, 3) for suffix in ("", "_with_indices")},
    **{f"max_pool{rank}d_with_indices": [call(_inputs[rank - 1], 2), call(_inputs[rank - 1], 3, stride=2, padding=1)]
       for rank in (1, 2, 3)},
    **{f"max_unpool{rank}d": [call(*UNPOOLED[rank - 1], 2),
                              call(*UNPOOLED[rank - 1], kernel_size=2, output_size=_evens[rank - 1].shape[2:])]
       for rank in (1, 2, 3)},
    **{f"lp_pool{rank}d": [call(_inputs[rank - 1], 2, 2), call(_inputs[rank - 1].abs(), 3.0, 3, stride=1)]
       for rank in (1, 2, 3)},
    "unfold": [call(IMAGE, 2), call(IMAGE, (2, 3), dilation=2, padding=1, stride=(1, 2)), call(normal(3, 5, 6), 2)],
    "fold": [call(COLUMNS, (3, 4), 2), call(normal(2, 3 * 4, 18), (4, 5), (2, 2), padding=(0, 1), stride=1),
             call(normal(12, 6), (3, 4), 2)],
    "grid_sample": [call(IMAGE, GRID, align_corners=False), call(IMAGE, GRID, "nearest", align_corners=True),
                    call(IMAGE, GRID, mode="bilinear", padding_mode="border", align_corners=True),
                    call(IMAGE, GRID, "bicubic", "reflection", False)],
    "grid_sampler": [call(IMAGE, GRID, 0, 1, True)],
    "affine_grid": [call(THETA, [2, 3, 4, 5], False), call(THETA, (2, 1, 3, 3), align_corners=True)],
    "layer_norm": [call(X, (4,), normal(4), normal(4)), call(X, [3, 4], weight=normal(3, 4), eps=1e-3),
                   call(X, (4,)), call(X, (3, 4), None, None, 0.1)],
    "group_norm": [call(IMAGE, 2, normal(4), normal(4)), call(IMAGE, 4, weight=normal(4), bias=normal(4), eps=0.1),
                   call(IMAGE, 2), call(LINE, 2, eps=0.1), call(MATRIX, 2)],
    "batch_norm": [call(IMAGE, MEAN, VARIANCE), call(LINE, MEAN, VARIANCE, normal(4), normal(4), False, 0.1, 1e-3),
                   call(MATRIX, MEAN, VARIANCE, weight=normal(4), bias=normal(4)),
                   call(IMAGE, None, None, normal(4), normal(4), True), call(IMAGE, None, None, training=True)],
    "aten_batch_norm": [call(IMAGE, normal(4), normal(4), MEAN, VARIANCE, False, 0.1, 1e-5, False)],
    "aten_instance_norm": [call(IMAGE, normal(4), normal(4), None, None, True, 0.1, 1e-5, False)],
    "convolution": [call(IMAGE, normal(6, 2, 3, 3), None, (1, 2), (1, 1), (1, 1), False, (0, 0), 2),
                    call(LINE, normal(4, 3, 3), normal(3), (2,), (1,), (1,), True, (1,), 1)],
}  # fmt: skip
"""By the name of the lowering."""

WINDOW_SPELLED: dict[Any, list[Call]] = {
    F.max_pool2d: [call(IMAGE, 2, return_indices=True), call(IMAGE, 3, 2, 1, return_indices=True)],
    F.adaptive_max_pool2d: [call(IMAGE, (3, 2), return_indices=True), call(IMAGE, (None, 3))],
    torch.grid_sampler_3d: [call(VOLUME, normal(2, 3, 4, 5, 3) * 0.6, 0, 0, False)],
}
"""Further or, where the lowering's calls do not fit, other calls of one spelling."""

OTHER_WINDOW_ARGUMENTS = (torch.grid_sampler_3d,)
"""Spellings that take none of the calls of their lowering."""

WINDOW_LAYERS: dict[type, list[tuple[dict[str, Any], Tensor]]] = {
    **{getattr(nn, f"AdaptiveMaxPool{rank}d"): [({"output_size": 2}, _inputs[rank - 1]),
                                                ({"output_size": 3, "return_indices": True}, _inputs[rank - 1])]
       for rank in (1, 2, 3)},
    **{getattr(nn, f"MaxPool{rank}d"): [({"kernel_size": 2, "return_indices": True}, _inputs[rank - 1]),
                                        ({"kernel_size": 3, "padding": 1, "ceil_mode": True}, _inputs[rank - 1])]
       for rank in (1, 2, 3)},
    **{getattr(nn, f"LPPool{rank}d"): [({"norm_type": 2, "kernel_size": 2}, _inputs[rank - 1])] for rank in (1, 2, 3)},
    nn.Unfold: [({"kernel_size": 2, "padding": 1}, IMAGE)],
    nn.Fold: [({"output_size": (3, 4), "kernel_size": 2}, COLUMNS)],
    nn.CrossMapLRN2d: [({"size": 3}, IMAGE), ({"size": 3, "alpha": 0.1, "beta": 0.5, "k": 2.0}, IMAGE)],
    nn.BatchNorm1d: [({"num_features": 4}, LINE), ({"num_features": 4, "eps": 0.1}, MATRIX),
                     ({"num_features": 4, "affine": False}, LINE),
                     ({"num_features": 4, "track_running_stats": False}, LINE)],
    nn.BatchNorm2d: [({"num_features": 4, "momentum": 0.3}, IMAGE), ({"num_features": 4, "affine": False}, IMAGE)],
    nn.LayerNorm: [({"normalized_shape": 4}, X), ({"normalized_shape": (3, 4), "bias": False}, X),
                   ({"normalized_shape": 4, "elementwise_affine": False}, X)],
    nn.GroupNorm: [({"num_groups": 2, "num_channels": 4}, IMAGE),
                   ({"num_groups": 2, "num_channels": 4, "affine": False}, IMAGE)],
}  # fmt: skip
"""Options of each layer, and what it is called with."""
