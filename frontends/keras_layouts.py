"""Where Keras has the channels, and how its spatial layers pad."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qir.frontends.keras_lowerings import KerasBuilder
from qir.graph import Value
from qir.lowering import known


def is_last(data_format: str | None) -> bool:
    """Whether the channels are the last axis. Raises Unlowered where it is left to Keras's settings."""
    known(data_format in ("channels_last", "channels_first"), "no stated data_format")
    return data_format == "channels_last"


def channels_first(build: KerasBuilder, x: Value, data_format: str) -> Value:
    """The tensor with its channels as the second axis, as ONNX has them."""
    rank = rank_of(x)
    return build("Transpose", x, perm=(0, rank - 1, *range(1, rank - 1))) if is_last(data_format) else x


def channels_back(build: KerasBuilder, x: Value, data_format: str) -> Value:
    """The tensor with its channels where Keras has them."""
    rank = rank_of(x)
    return build("Transpose", x, perm=(0, *range(2, rank), 1)) if is_last(data_format) else x


def rank_of(x: Value) -> int:
    """The number of axes. Raises Unlowered where it is not known."""
    known(x.type.rank is not None, "a tensor of unknown rank")
    return x.type.rank or 0


def spatial_pads(x: Value, padding: str, kernel: Sequence[int], strides: Sequence[int],
                 dilations: Sequence[int]) -> dict[str, Any]:  # fmt: skip
    """The attributes that pad a tensor with channels first as Keras does: as little as possible, more of it behind."""
    if padding == "valid":
        return {}
    known(padding == "same", f"padding={padding!r}")
    before, after = [], []
    sizes = (x.type.shape or ())[2:]
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = dilation * (k - 1)
        if stride != 1 and not isinstance(size, int):
            return {"auto_pad": "SAME_UPPER"}
        total = (
            reach if stride == 1 else max((-(-int(size or 0) // stride) - 1) * stride + reach + 1 - int(size or 0), 0)
        )
        before.append(total // 2)
        after.append(total - total // 2)
    return {"pads": (*before, *after)} if any(after) else {}
