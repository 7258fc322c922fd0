"""Lowerings of torch's attention."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F

from qir.frontends.torch_lowerings import Builder, known, lowers
from qir.graph import Value


@lowers(F.scaled_dot_product_attention)
def scaled_dot_product_attention(build: Builder, query: Value, key: Value, value: Value, attn_mask: Any = None,
                                 dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None,
                                 enable_gqa: bool = False) -> Value:  # fmt: skip
    """qir.ScaledDotProductAttention."""
    known(dropout_p == 0, "a dropout that is on in inference too")
    known(isinstance(is_causal, bool) and (scale is None or isinstance(scale, int | float)), "a computed option")
    return build("qir.ScaledDotProductAttention", query, key, value, attn_mask, is_causal=is_causal, scale=scale,
                 enable_gqa=enable_gqa)  # fmt: skip
