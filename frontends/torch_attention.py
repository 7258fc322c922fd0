"""Lowerings of torch's attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F

from qir.attributes import TRAINING
from qir.frontends.torch_lowerings import Builder, known, lowers
from qir.graph import Value


@dataclass(frozen=True)
class InTraining:
    """A rate of dropout that is 0 in inference."""

    rate: float


@lowers("qir.backends.torch_composed.attention")
def attention(build: Builder, query: Value, key: Value, value: Value, attn_mask: Any = None, dropout: float = 0.0,
              training: Any = False, **options: Any) -> Value:  # fmt: skip
    """The attention of an emitted module, with dropout in training."""
    known(training is TRAINING, "a dropout that is on in inference too")
    return scaled_dot_product_attention(build, query, key, value, attn_mask, InTraining(dropout), **options)  # type: ignore[no-any-return]


@lowers(F.scaled_dot_product_attention)
def scaled_dot_product_attention(build: Builder, query: Value, key: Value, value: Value, attn_mask: Any = None,
                                 dropout_p: Any = 0.0, is_causal: bool = False, scale: Any = None,
                                 enable_gqa: bool = False) -> Value:  # fmt: skip
    """qir.ScaledDotProductAttention."""
    known(dropout_p == 0 or isinstance(dropout_p, InTraining), "a dropout that is on in inference too")
    dropout = dropout_p.rate if isinstance(dropout_p, InTraining) else None
    known(isinstance(is_causal, bool) and (scale is None or isinstance(scale, int | float)), "a computed option")
    return build("qir.ScaledDotProductAttention", query, key, value, attn_mask, is_causal=is_causal, scale=scale,
                 enable_gqa=enable_gqa, dropout=dropout)  # fmt: skip
