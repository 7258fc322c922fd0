"""More of `tests.lowered_calls`: products, distances, weighted sums and rows of embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.lowered_calls import MATRIX, ROW, TRUE, WHOLE, Call, X, Y, call, normal

HOLES = torch.where(X > 1, torch.nan, X)
SQUARE = normal(4, 4) / 2
SPD = (normal(2, 4, 4) / 4 + torch.eye(4) * 2)[:, :3, :3]
ROWS = torch.tensor([[1, 3, 0], [2, 2, 5]])
OFFSETS = torch.tensor([0, 2, 2])
PLACES = torch.tensor([0.0, 0.5, 2.0, 2.25])

PRODUCT_CALLS: dict[str, list[Call]] = {
    "addmatvec": [call(normal(3), MATRIX, ROW), call(normal(3), MATRIX, ROW, beta=0.5, alpha=2)],
    "addouter": [call(MATRIX, normal(3), ROW), call(MATRIX, normal(3), ROW, beta=0.5, alpha=0.3)],
    "addsummedmatmul": [call(normal(3, 5), X, normal(2, 4, 5)),
                        call(normal(3, 5), X, normal(2, 4, 5), beta=2, alpha=0.5)],
    "inner": [call(X, MATRIX), call(ROW, normal(4)), call(MATRIX, ROW)],
    "kronecker": [call(MATRIX, normal(2, 3)), call(X, normal(2, 1, 2)), call(ROW, MATRIX)],
    "cross": [call(normal(2, 3, 3), normal(2, 3, 3), -1), call(X, Y, dim=1)],
    "trace": [call(MATRIX), call(normal(3, 3)), call(WHOLE)],
    "tensordot": [call(X, normal(3, 4, 5)), call(X, normal(4, 2), 1), call(X, normal(4, 5, 3), dims=([2, 1], [0, 2]))],
    "chain_matmul": [call(MATRIX, normal(4, 5), normal(5, 2))],
    "matrix_power": [call(SQUARE, 2), call(SQUARE, 3), call(SQUARE, n=1)],
    "distances": [call(X, normal(2, 5, 4)), call(X, normal(2, 5, 4), p=1.0), call(MATRIX, normal(5, 4), float("inf"))],
    "distance": [call(X, Y), call(X, Y, 1), call(X, ROW, p=3)],
    "pairdistances": [call(MATRIX), call(MATRIX, 1.0)],
    "bilinear": [call(MATRIX, normal(3, 5), normal(6, 4, 5), normal(6)), call(X, normal(2, 3, 5), normal(6, 4, 5))],
    "renormalized": [call(X, 2, 1, 1.5), call(X, p=1, dim=-1, maxnorm=3.0)],
    "grouped_mm": [call(normal(6, 8), normal(3, 8, 4), offs=torch.tensor(ends, dtype=torch.int32))
                   for ends in ([2, 3, 6], [0, 4, 6], [6, 6, 6])],
    "trapezoid": [call(X), call(X, dx=0.5, dim=1), call(X, PLACES), call(X, Y, dim=0)],
    "cumulativetrapezoid": [call(X), call(X, dx=0.5, dim=1), call(X, PLACES)],
    "gradient": [call(MATRIX), call(X, dim=2), call(X, spacing=0.5, dim=(1, 2)), call(normal(4, 5), edge_order=2)],
    "diff": [call(X), call(X, 2, 1), call(X, dim=0), call(X, prepend=Y), call(WHOLE, append=WHOLE * 2)],
    "count_nonzero": [call(X.relu()), call(WHOLE, 1), call(TRUE, (0, 2)), call(X.relu(), dim=-1)],
    "frobenius_norm": [call(X, [1]), call(X, (1, 2), keepdim=True)],
    **{name: [call(HOLES), call(HOLES, 1), call(HOLES, dim=(0, 2), keepdim=True)] for name in ("nansum", "nanmean")},
    **{name: [call(X), call(X, 1), call(X, (0, 2), keepdim=True), call(X, dim=-1, unbiased=False),
              call(X, dim=1, correction=0)] for name in ("var_mean", "std_mean")},
    **{name: [call(SQUARE), call(SPD)] for name in ("det", "logdeterminant", "signandlogdeterminant")},
    "normexcept": [call(X), call(X, 1, 2), call(X, dim=-1)],
    "correlation": [call(MATRIX), call(ROW)],
    "covariance": [call(MATRIX), call(ROW), call(MATRIX, correction=0)],
    "convtbc": [call(normal(7, 2, 4), normal(3, 4, 5), normal(5), 1),
                call(normal(7, 2, 4), normal(2, 4, 5), normal(5))],
    "embedding": [call(WHOLE, normal(12, 5)), call(WHOLE, normal(12, 5), 3),
                  call(WHOLE, normal(12, 5), padding_idx=-1)],
    "rows": [call(normal(12, 5), WHOLE), call(normal(12, 5), WHOLE, 3)],
    "embedding_bag": [
        *(call(ROWS, normal(6, 4), mode=mode) for mode in ("mean", "sum", "max")),
        *(call(ROWS.reshape(-1), normal(6, 4), OFFSETS, mode=mode) for mode in ("mean", "sum", "max")),
        call(ROWS, normal(6, 4), mode="sum", per_sample_weights=normal(2, 3)),
        call(ROWS.reshape(-1), normal(6, 4), torch.tensor([0, 2, 6]), include_last_offset=True),
        call(ROWS, normal(6, 4), padding_idx=2), call(ROWS, normal(6, 4), padding_idx=2, mode="max"),
    ],
}  # fmt: skip
"""By the name of the lowering."""

PRODUCT_SPELLED: dict[Any, list[Call]] = {}
"""Further or, where the lowering's calls do not fit, other calls of one spelling."""

PRODUCT_LAYERS: dict[type, list[tuple[dict[str, Any], Tensor]]] = {
    nn.Embedding: [({"num_embeddings": 12, "embedding_dim": 5}, WHOLE),
                   ({"num_embeddings": 12, "embedding_dim": 5, "padding_idx": 0}, WHOLE)],
    nn.EmbeddingBag: [({"num_embeddings": 12, "embedding_dim": 5}, WHOLE),
                      ({"num_embeddings": 12, "embedding_dim": 5, "mode": "max", "padding_idx": 3}, WHOLE)],
}  # fmt: skip
"""Options of each layer, and what it is called with."""
