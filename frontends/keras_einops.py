"""The lowering of `keras.ops.rearrange`."""

from __future__ import annotations

import re
from math import prod
from typing import Any

from keras import ops

from qir.frontends.keras_dtypes import tensor as tensor_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.frontends.keras_shapes import to_shape
from qir.graph import Value
from qir.lowering import known


def _groups(side: str) -> list[list[str]]:
    """The names of each axis: several in brackets are joined."""
    return [part.strip("()").split() for part in re.findall(r"\w+|\([^)]*\)", side)]


@lowers(ops.rearrange)
def rearrange(build: KerasBuilder, tensor: Any, pattern: str, **axes_lengths: Any) -> Value:
    """Reshape, Transpose, Reshape."""
    axes_lengths = axes_lengths.pop("axes_lengths", axes_lengths)
    value = tensor_of(build, tensor)
    before, after = (_groups(side) for side in pattern.split("->"))
    shape = value.type.shape
    known(shape is not None and all(isinstance(size, int) for size in shape), "a tensor of unknown sizes")
    sizes: dict[str, int] = dict(axes_lengths)
    for names, size in zip(before, shape or (), strict=True):
        unknown = [name for name in names if name not in sizes]
        known(len(unknown) <= 1, "two sizes of one axis that are not stated")
        if unknown:
            sizes[unknown[0]] = int(size or 0) // prod(sizes[name] for name in names if name in sizes)
    first = [name for names in before for name in names]
    last = [name for names in after for name in names]
    known(sorted(first) == sorted(last), "axes that come or go")
    apart = to_shape(build, value, [sizes[name] for name in first])
    moved = build("Transpose", apart, perm=tuple(first.index(name) for name in last))
    return to_shape(build, moved, [prod(sizes[name] for name in names) for names in after])
