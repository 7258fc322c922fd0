"""Lowerings of Keras's padding, cropping and of blocks of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import layers, ops

from qir.frontends.keras_dtypes import tensor
from qir.frontends.keras_layouts import channels_back, channels_first, is_last, rank_of
from qir.frontends.keras_lowerings import KerasBuilder, lowers
from qir.graph import Value
from qir.lowering import known

_MODES = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}


@lowers(ops.pad)
def pad(build: KerasBuilder, x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Value:
    """Pad."""
    value = tensor(build, x)
    rank = rank_of(value)
    widths = np.broadcast_to(np.asarray(pad_width), (rank, 2))
    known(mode in _MODES, f"padding of mode {mode!r}")
    fill = (constant_values if constant_values is not None else 0) if mode == "constant" else None
    amounts = build.indices([*widths[:, 0].tolist(), *widths[:, 1].tolist()])
    return build("Pad", value, amounts, fill, mode=_MODES[mode])


def _space(x: Value, data_format: str) -> range:
    return range(1, rank_of(x) - 1) if is_last(data_format) else range(2, rank_of(x))


@lowers(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
def zero_padding(build: KerasBuilder, inputs: Value, padding: Any, data_format: str = "channels_last") -> Value:
    """Pad of the axes of space."""
    sides = [padding] if isinstance(padding[0], int) else padding
    amounts = [*(before for before, _ in sides), *(after for _, after in sides)]
    return build("Pad", inputs, build.indices(amounts), 0.0, build.indices(_space(inputs, data_format)))


@lowers(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D)
def cropping(build: KerasBuilder, inputs: Value, cropping: Any, data_format: str = "channels_last") -> Value:
    """Slice of the axes of space."""
    sides = [cropping] if isinstance(cropping[0], int) else cropping
    starts = [before for before, _ in sides]
    ends = [-after if after else 2**31 - 1 for _, after in sides]
    axes = build.indices(_space(inputs, data_format))
    return build("Slice", inputs, build.indices(starts), build.indices(ends), axes)


@lowers(ops.depth_to_space)
def depth_to_space(build: KerasBuilder, x: Any, block_size: int, data_format: str = "channels_last") -> Value:
    """DepthToSpace."""
    value = channels_first(build, tensor(build, x), data_format)
    mode = "DCR" if is_last(data_format) else "CRD"
    return channels_back(build, build("DepthToSpace", value, blocksize=block_size, mode=mode), data_format)


@lowers(ops.space_to_depth)
def space_to_depth(build: KerasBuilder, x: Any, block_size: int, data_format: str = "channels_last") -> Value:
    """SpaceToDepth."""
    if not is_last(data_format):
        return build("qir.PixelUnshuffle", tensor(build, x), downscale_factor=block_size)
    value = channels_first(build, tensor(build, x), data_format)
    return channels_back(build, build("SpaceToDepth", value, blocksize=block_size), data_format)
