"""Lowerings of torch's functions of windows and places of images: pooling with places, folding, sampling."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.frontends.torch_functions import floating, is_number
from qir.frontends.torch_indexing import whole
from qir.frontends.torch_lowerings import Builder, Lowering, composite, known, lowers, numbers
from qir.frontends.torch_pooling import max_pool, sizes_of, strides_of
from qir.graph import Value

RANKS = (1, 2, 3)


def _adaptive(rank: int, with_places: bool, *spellings: Any) -> None:
    def lowering(build: Builder, input: Value, output_size: Any, return_indices: bool = False) -> Any:
        sizes = sizes_of(output_size, rank)
        if return_indices or with_places:
            return tuple(build.several("qir.AdaptiveMaxPoolWithPlaces", 2, input, output_size=sizes))
        return build("qir.AdaptiveMaxPool", input, output_size=sizes)

    lowering.__name__ = f"adaptive_max_pool{rank}d" + "_with_indices" * with_places
    lowers(*spellings)(lowering)


def _pool_with_places(rank: int, *spellings: Any) -> None:
    def lowering(build: Builder, input: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = True) -> Any:  # fmt: skip
        return max_pool(build, rank, input, kernel_size, stride, padding, dilation, ceil_mode, True)

    lowering.__name__ = f"max_pool{rank}d_with_indices"
    lowers(*spellings)(lowering)


def _unpool(rank: int, *spellings: Any) -> None:
    def lowering(build: Builder, input: Value, indices: Value, kernel_size: Any, stride: Any = None, padding: Any = 0,
                 output_size: Any = None) -> Value:  # fmt: skip
        kernel = numbers(kernel_size, rank)
        return build("qir.MaxUnpool", input, indices, kernel_size=kernel, stride=strides_of(stride, kernel),
                     padding=numbers(padding, rank),
                     output_size=None if output_size is None else whole(tuple(output_size)))  # fmt: skip

    lowering.__name__ = f"max_unpool{rank}d"
    lowers(*spellings)(lowering)


def _unpool_layer(rank: int) -> None:
    function: Lowering = lowers.table[getattr(F, f"max_unpool{rank}d")]

    def lowering(build: Builder, input: Value, indices: Value, output_size: Any = None, *, kernel_size: Any,
                 stride: Any, padding: Any) -> Any:  # fmt: skip
        return function(build, input, indices, kernel_size, stride, padding, output_size)

    lowering.__name__ = f"max_unpool{rank}d"
    lowers(getattr(nn, f"MaxUnpool{rank}d"))(lowering)


def _power_pool(rank: int, *spellings: Any) -> None:
    def lowering(build: Builder, input: Value, norm_type: Any, kernel_size: Any, stride: Any = None,
                 ceil_mode: bool = False) -> Value:  # fmt: skip
        known(is_number(norm_type) and not ceil_mode, "windows beyond the edge")
        floating(input)
        kernel = numbers(kernel_size, rank)
        return build("qir.PowerPool", input, norm_type=norm_type, kernel_size=kernel,
                     stride=strides_of(stride, kernel))  # fmt: skip

    lowering.__name__ = f"lp_pool{rank}d"
    lowers(*spellings)(lowering)


for _rank in RANKS:
    _adaptive(_rank, False, getattr(F, f"adaptive_max_pool{_rank}d"), getattr(nn, f"AdaptiveMaxPool{_rank}d"))
    _adaptive(_rank, True, getattr(F, f"adaptive_max_pool{_rank}d_with_indices"),
              *([torch.adaptive_max_pool1d] if _rank == 1 else []))  # fmt: skip
    _pool_with_places(_rank, getattr(F, f"max_pool{_rank}d_with_indices"),
                      *([torch.max_pool1d_with_indices] if _rank == 1 else []))  # fmt: skip
    _unpool(_rank, getattr(F, f"max_unpool{_rank}d"))
    _unpool_layer(_rank)
    _power_pool(_rank, getattr(F, f"lp_pool{_rank}d"), getattr(nn, f"LPPool{_rank}d"))


@lowers(F.unfold, nn.Unfold)
def unfold(build: Builder, input: Value, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
           stride: Any = 1) -> Value:  # fmt: skip
    """qir.Unfold."""
    given = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding, "stride": stride}
    return build("qir.Unfold", input, **{name: numbers(value, 2) for name, value in given.items()})


@lowers(F.fold, nn.Fold)
def fold(build: Builder, input: Value, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
         stride: Any = 1) -> Value:  # fmt: skip
    """qir.Fold."""
    given = {"output_size": output_size, "kernel_size": kernel_size, "dilation": dilation, "padding": padding,
             "stride": stride}  # fmt: skip
    return build("qir.Fold", input, **{name: numbers(value, 2) for name, value in given.items()})


_SAMPLING = {"bilinear": "linear", "nearest": "nearest", "bicubic": "cubic"}


@lowers(F.grid_sample)
def grid_sample(build: Builder, input: Value, grid: Value, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Value:  # fmt: skip
    """GridSample."""
    known(mode in _SAMPLING, f"sampling of mode {mode}")
    return build("GridSample", input, grid, mode=_SAMPLING[mode], padding_mode=padding_mode,
                 align_corners=int(bool(align_corners)))  # fmt: skip


def _sampler(*spellings: Any) -> None:
    def grid_sampler(build: Builder, input: Value, grid: Value, interpolation_mode: int, padding_mode: int,
                     align_corners: bool) -> Value:  # fmt: skip
        """GridSample, with modes as numbers."""
        mode, padding = ("bilinear", "nearest", "bicubic")[interpolation_mode], ("zeros", "border", "reflection")
        return grid_sample(build, input, grid, mode, padding[padding_mode], align_corners)  # type: ignore[no-any-return]

    lowers(*spellings)(grid_sampler)


_sampler(torch.grid_sampler, torch.grid_sampler_2d, torch.grid_sampler_3d)


@lowers(F.affine_grid, torch.affine_grid_generator)
def affine_grid(build: Builder, theta: Value, size: Any, align_corners: bool | None = None) -> Value:
    """AffineGrid of a stated size."""
    sizes = whole(tuple(size) if isinstance(size, list | tuple) else size)
    return build("AffineGrid", theta, build.indices(sizes), align_corners=int(bool(align_corners)))


composite("qir.CrossMapLRN", [nn.CrossMapLRN2d], lambda input, size, alpha=1e-4, beta=0.75, k=1: (
    (input,), {"size": size, "alpha": alpha, "beta": beta, "k": k}))  # fmt: skip
