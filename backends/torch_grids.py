"""Grids: the tensors of an encoding. Quantizers that share an encoding share its grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from qir.backends.torch_fake_quantize import fake_cast, fake_quantize, learned_fake_quantize
from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding, ProductEncoding
from qir.errors import QirError
from qir.text.encodings import write_encoding
from qir.types import NUMPY, storage

TORCH = {"f16": torch.float16, "bf16": torch.bfloat16, "f8e4m3": torch.float8_e4m3fn, "f8e5m2": torch.float8_e5m2}
TINY = float(np.finfo(np.float32).tiny)


class Grid(nn.Module):
    """An affine grid. `scale` and `zero_point` are float32 vectors or blocks, without elements until calibrated.

    When learned, `scale` is a parameter whose magnitude is the scale, and the lower end of an asymmetric grid is the
    parameter `lower`, from which the zero point follows.
    """

    scale: Tensor
    zero_point: Tensor
    lower: Tensor | None

    def __init__(self, encoding: Encoding) -> None:
        super().__init__()
        self.register_buffer("scale", torch.empty(0))
        self.register_buffer("zero_point", torch.empty(0))
        self.lower = None
        self.set(encoding)

    @property
    def calibrated(self) -> bool:
        """Whether the scale is known."""
        return self.scale.numel() > 0

    @property
    def learned(self) -> bool:
        """Whether training moves the grid."""
        return isinstance(self.scale, nn.Parameter)

    def set(self, encoding: Encoding) -> None:
        """Become the grid of `encoding`; a learned grid stays learned."""
        learned = self.learned
        self.freeze()
        self.kind = replace(encoding, scale=None, zero_point=None)
        self._prepare()
        self._put("scale", encoding.scale)
        self._put("zero_point", encoding.zero_point)
        if learned:
            self.learn()

    def _prepare(self) -> None:
        """Look up what every call needs, so that a compiler does not have to follow how it is found."""
        self.low, self.high = self.kind.low, self.kind.high
        if self.kind.unsigned:  # its range decided the dtype, so the state tells it
            self.register_buffer("lowest", torch.tensor([self.low], device=self.scale.device))
        self.around_zero = self.kind.symmetric and (self.kind.unsigned or self.kind.dtype.startswith("i"))

    def _put(self, name: str, array: np.ndarray | None) -> None:
        old = getattr(self, name)
        new = torch.empty(0) if array is None else torch.from_numpy(np.atleast_1d(array.astype(np.float32)))
        if old.shape == new.shape:
            old.copy_(new)
        else:
            setattr(self, name, new.to(old.device))

    @property
    def encoding(self) -> Encoding:
        """What the tensors say now; without a scale when they are not calibrated."""
        if not self.calibrated:
            return self.kind
        scale, zero = self.tensors()
        zero = torch.zeros_like(scale) if zero is None else zero
        return replace(self.kind, scale=self._array(scale), zero_point=self._array(zero, storage(self.kind.dtype)))

    def _array(self, tensor: Tensor, dtype: str = "f32") -> np.ndarray:
        whole = (
            tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
        )  # a tensor of which each rank has a part
        array = whole.detach().cpu().numpy().astype(NUMPY[dtype])
        return array if self.kind.axis is not None or self.kind.block_axis is not None else array.reshape(())

    def tensors(self) -> tuple[Tensor, Tensor | None]:
        """The scale, which is positive, and the zero point; None for a grid that is around zero."""
        scale = self.scale.abs().clamp_min(TINY) if self.learned else self.scale
        if self.around_zero:
            return scale, None
        if self.lower is None:
            return scale, self.zero_point
        zero = self.low - self.lower / scale
        return scale, (zero + (zero.round() - zero).detach()).clamp(self.low, self.high)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, rounded to the grid in float32, in its own dtype."""
        round_to = learned_fake_quantize if self.learned else fake_quantize
        shape, parts = x.shape, self._in_blocks(x)
        scale, zero = (None if each is None else self._spread(each, parts.ndim) for each in self.tensors())
        assert scale is not None
        return round_to(parts.float(), scale, zero, self.low, self.high).to(x.dtype).reshape(shape)

    def _in_blocks(self, x: Tensor) -> Tensor:
        """`x`, with the axis of the blocks split in two."""
        axis, size = self.kind.block_axis, self.kind.block_size
        return x if axis is None or size is None else x.reshape(*x.shape[:axis], -1, size, *x.shape[axis + 1 :])

    def _spread(self, tensor: Tensor, rank: int) -> Tensor:
        """Scales or zero points, shaped to broadcast against a tensor of `rank` axes, blocks split."""
        if self.kind.block_axis is not None:
            return tensor.unsqueeze(self.kind.block_axis + 1)
        return tensor.reshape([-1 if axis == self.kind.axis else 1 for axis in range(rank)])

    def learn(self) -> None:
        """Make the scale, and the lower end of an asymmetric grid, parameters. Raises QirError before calibration."""
        if not self.calibrated:
            raise QirError("a range that is not known can not be trained", help="run compute_encodings first")
        if self.learned or isinstance(self.kind, LowPowerEncoding):
            return
        scale = self.scale
        del self.scale
        self.scale = nn.Parameter(scale.clone())
        if not self.kind.symmetric:
            self.lower = nn.Parameter((self.low - self.zero_point) * scale)

    def freeze(self) -> None:
        """Let the parameters be constants again, with the values that they have."""
        if not self.learned:
            return
        scale, zero = self.tensors()
        del self.scale
        self.register_buffer("scale", scale.detach().clone())
        if self.lower is not None and zero is not None:
            self.zero_point = zero.detach().clone()
            self.lower = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move where `fn` moves tensors, but keep the dtypes: a grid is the same in a model of any precision."""

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(move, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name in ("scale", "zero_point"):
            given, own = state_dict.get(prefix + name), getattr(self, name)
            if given is not None and given.shape != own.shape and not isinstance(own, nn.Parameter):
                setattr(self, name, torch.empty_like(given, device=own.device))
        if (lowest := state_dict.get(f"{prefix}lowest")) is not None and self.kind.unsigned:
            self.kind = replace(self.kind, dtype=f"{'i' if lowest < 0 else 'u'}{self.kind.bits}")
            self._prepare()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """The encoding without its numbers."""
        return write_encoding(self.kind, None)


class FloatGrid(Grid):
    """The grid of a float format; training does not move it."""

    def _prepare(self) -> None:
        assert isinstance(self.kind, FloatEncoding)
        self.top, self.dtype = self.kind.top, TORCH[self.kind.dtype]

    @property
    def calibrated(self) -> bool:
        """Whether the scale is known, or not needed."""
        return self.scale.numel() > 0 or self.dtype.itemsize == 2

    @property
    def encoding(self) -> Encoding:
        """What the tensors say now."""
        return replace(self.kind, scale=self._array(self.scale)) if self.scale.numel() else self.kind

    def forward(self, x: Tensor) -> Tensor:
        """`x`, rounded to the format, in its own dtype."""
        parts = self._in_blocks(x)
        scale = self._spread(self.scale, parts.ndim) if self.scale.numel() else None
        return fake_cast(parts.float(), scale, self.dtype, self.top).to(x.dtype).reshape(x.shape)

    def learn(self) -> None:
        """Stay as it is."""


class ProductGrid(nn.Module):
    """The grid of a bias, computed from the grids whose products it joins at every call."""

    def __init__(self, encoding: ProductEncoding, input: Grid, weight: Grid) -> None:
        super().__init__()
        self.low, self.high = encoding.low, encoding.high
        self.factors = (input, weight)  # a tuple, so that they are no submodules: they belong to other quantizers

    @property
    def calibrated(self) -> bool:
        """Whether both factors are."""
        return all(factor.calibrated for factor in self.factors)

    @property
    def encoding(self) -> Encoding:
        """The product of what the factors are now."""
        return ProductEncoding(input=self.factors[0].encoding, weight=self.factors[1].encoding)

    def forward(self, x: Tensor) -> Tensor:
        """`x`, rounded to the grid in float32, in its own dtype."""
        input, weight = (factor.tensors()[0].detach() for factor in self.factors)
        return fake_quantize(x.float(), input * weight, None, self.low, self.high).to(x.dtype)

    def set(self, encoding: Encoding) -> None:
        """Nothing: the factors say what the grid is."""


def make_grid(encoding: Encoding, factor: Callable[[Encoding], Any]) -> Grid | ProductGrid:
    """The grid of `encoding`; `factor` finds those of the factors of a product."""
    if isinstance(encoding, ProductEncoding):
        return ProductGrid(encoding, factor(encoding.input), factor(encoding.weight))
    return FloatGrid(encoding) if isinstance(encoding, FloatEncoding) else Grid(encoding)
