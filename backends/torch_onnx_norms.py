"""ONNX's normalizations, dropout and products, for every set of axes and results."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qir.backends.torch_onnx_emissions import computes


def _spread(vector: Tensor, x: Tensor) -> Tensor:
    """A number for each channel, to broadcast against `x`."""
    return vector.reshape(-1, *[1] * (x.ndim - 2))


@computes("BatchNormalization")
def batch_norm(x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, *, epsilon: float,
               momentum: float, training_mode: int, results: int) -> Any:  # fmt: skip
    """`x` normalized by the statistics that are given, or in training by its own, which then move the given ones."""
    if not training_mode:
        used, spread = mean, variance
    else:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        used, spread = x.mean(axes), x.var(axes, unbiased=False)
    normalized = (x - _spread(used, x)) / torch.sqrt(_spread(spread, x) + epsilon)
    result = (normalized * _spread(scale, x) + _spread(bias, x)).to(x.dtype)
    if results == 1:
        return result
    moved = (mean * momentum + used * (1 - momentum), variance * momentum + spread * (1 - momentum))
    return result, *moved


@computes("InstanceNormalization")
def instance_norm(x: Tensor, scale: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """`x` normalized over the spatial axes."""
    return F.instance_norm(x, weight=scale, bias=bias, eps=epsilon)


@computes("LayerNormalization")
def layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None = None, *, axis: int, epsilon: float, stash_type: int,
               results: int) -> Any:  # fmt: skip
    """`x` normalized over the axes from `axis` on, and the mean and the inverse deviation if asked for."""
    axes = list(range(axis % x.ndim, x.ndim))
    wide = x.float() if stash_type == 1 else x
    mean = wide.mean(axes, keepdim=True)
    centred = wide - mean
    inverse = torch.rsqrt((centred * centred).mean(axes, keepdim=True) + epsilon)
    result = (centred * inverse).to(x.dtype) * scale
    result = result if bias is None else result + bias
    return result if results == 1 else (result, mean, inverse)[:results]


@computes("RMSNormalization")
def rms_norm(x: Tensor, scale: Tensor, *, axis: int, epsilon: float, stash_type: int) -> Tensor:
    """`x` divided by the root of its mean square over the axes from `axis` on."""
    axes = list(range(axis % x.ndim, x.ndim))
    wide = x.float() if stash_type == 1 else x
    return (wide * torch.rsqrt((wide * wide).mean(axes, keepdim=True) + epsilon)).to(x.dtype) * scale


@computes("Dropout")
def dropout(x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None, *, results: int) -> Any:
    """`x`, and if `training`, with some elements 0 and the others larger; and which were kept, if asked for."""
    drops = training is not None and bool(training) and (ratio is None or float(ratio) > 0)
    share = 0.5 if ratio is None else float(ratio)
    kept = torch.rand(x.shape) >= share if drops else torch.ones_like(x, dtype=torch.bool)
    result = torch.where(kept, x / (1 - share), torch.zeros_like(x)) if drops and share < 1 else x * kept
    return result if results == 1 else (result, kept)


@computes("LRN")
def local_response_norm(x: Tensor, size: int, alpha: float, beta: float, bias: float) -> Tensor:
    """`x` divided by what stands near it across channels."""
    before = (size - 1) // 2
    squares = F.pad((x * x).movedim(1, -1), (before, size - 1 - before)).unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / torch.pow(bias + alpha / size * squares, beta)


@computes("MatMulInteger")
def matmul_integer(a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None) -> Tensor:
    """The product of integers less their zero points, in 32 bits."""
    left, right = a.to(torch.int32), b.to(torch.int32)
    if a_zero is not None:
        left = left - (a_zero.to(torch.int32).unsqueeze(-1) if a_zero.ndim == 1 and a.ndim > 1 else a_zero)
    if b_zero is not None:
        right = right - b_zero.to(torch.int32)
    return torch.matmul(left, right)


@computes("GridSample")
def grid_sample(x: Tensor, grid: Tensor, mode: str, padding_mode: str, align_corners: int) -> Tensor:
    """`x` at the places that the grid holds."""
    how = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    return F.grid_sample(x, grid.to(x.dtype), how, padding_mode, bool(align_corners))


@computes("AffineGrid")
def affine_grid(theta: Tensor, size: Tensor, align_corners: int) -> Tensor:
    """The grid that the affine maps make."""
    made: Tensor = F.affine_grid(theta, size.tolist(), bool(align_corners))
    return made


@computes("DFT")
def discrete_fourier(x: Tensor, length: Tensor | None = None, axis: Tensor | None = None, *, inverse: int,
                     onesided: int) -> Tensor:  # fmt: skip
    """The Fourier transform along the axis, real and imaginary parts in the last axis."""
    along = (-2 if axis is None else int(axis)) % x.ndim
    wide = x.double().contiguous()
    signal = torch.view_as_complex(wide) if x.shape[-1] == 2 else wide.squeeze(-1)
    count = None if length is None else int(length)
    if inverse and onesided:
        real: Tensor = torch.fft.irfft(signal, count, along)
        return real.unsqueeze(-1).to(x.dtype)
    spectrum = (torch.fft.ifft if inverse else torch.fft.fft)(signal, count, along)
    if onesided:
        spectrum = spectrum.narrow(along, 0, spectrum.shape[along] // 2 + 1)
    return torch.view_as_real(spectrum).to(x.dtype)


@computes("STFT")
def short_fourier(x: Tensor, step: Tensor, window: Tensor | None = None, length: Tensor | None = None, *,
                  onesided: int) -> Tensor:  # fmt: skip
    """The Fourier transforms of pieces of a signal, weighted by the window."""
    size = int(length) if length is not None else len(window if window is not None else x)
    wide = x.double().contiguous()
    signal = torch.view_as_complex(wide) if x.shape[-1] == 2 else wide.reshape(x.shape[0], -1)
    pieces = signal.unfold(1, size, int(step))
    spectrum = torch.fft.fft(pieces if window is None else pieces * window.double(), dim=-1)
    kept = spectrum[..., : size // 2 + 1] if onesided else spectrum
    return torch.view_as_real(kept).to(x.dtype)


@computes("HannWindow", "HammingWindow", "BlackmanWindow")
def window(size: Tensor, periodic: int, op: str) -> Tensor:
    """A window of cosines."""
    count = int(size)
    phase = torch.arange(count) * (2 * math.pi / max(count if periodic else count - 1, 1))
    if op == "BlackmanWindow":
        return 0.42 - 0.5 * torch.cos(phase) + 0.08 * torch.cos(2 * phase)
    share = 0.5 if op == "HannWindow" else 25 / 46
    return share - (1 - share) * torch.cos(phase)
