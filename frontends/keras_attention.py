"""Lowerings of Keras's attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from qir.frontends.keras_dtypes import agreed, cast, tensor
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_shapes import size_of
from qir.graph import Value
from qir.lowering import known

LEAST = float(np.float32(-0.7 * 3.38953e38))
"""What Keras adds to the scores of places that a mask hides, in float32."""


@lowers(ops.dot_product_attention)
def dot_product_attention(build: KerasBuilder, query: Any, key: Any, value: Any, bias: Any = None, mask: Any = None,
                          scale: Any = None, is_causal: bool = False, flash_attention: Any = None,
                          attn_logits_soft_cap: Any = None) -> Value:  # fmt: skip
    """qir.ScaledDotProductAttention, the heads before the places."""
    known(attn_logits_soft_cap is None, "a cap on the scores")
    parts = agreed(build, query, key, value)
    heads, own = size_of(parts[0], 2), size_of(parts[1], 2)
    added = None if bias is None else tensor(build, bias)
    if mask is not None:
        shown = cast(build, mask, "bool")
        if is_causal:
            before = np.tril(np.ones((size_of(parts[0], 1), size_of(parts[1], 1)), bool))
            shown = build("And", shown, before)
        added = build("Where", shown, np.array(0, np.float32), np.array(LEAST, np.float32))
    turned = [build("Transpose", part, perm=(0, 2, 1, 3)) for part in parts]
    made = build("qir.ScaledDotProductAttention", *turned, added, is_causal=bool(is_causal) and mask is None,
                 scale=None if scale is None else float(scale), enable_gqa=heads != own)  # fmt: skip
    return build("Transpose", made, perm=(0, 2, 1, 3))
