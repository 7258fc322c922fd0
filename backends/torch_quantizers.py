"""Quantizers of emitted torch modules: they round a tensor to a grid, and pass a gradient through."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from torch import Tensor, nn

from qir.backends.torch_grids import Grid, ProductGrid, make_grid
from qir.encodings.encoding import Encoding, FloatEncoding, ProductEncoding
from qir.errors import QirError


class Quantizer(nn.Module):
    """Rounds to the grid of an encoding, in float32, as QuantizeLinear and DequantizeLinear do.

    The gradient passes straight through inside the grid's range and is zero outside. With an `observer`, which may be
    any function of a tensor, the tensor is shown to it and returned as it is; so it is when the quantizer is not
    `enabled`. `path` is where the quantizer stands, for errors.
    """

    grid: Grid | ProductGrid

    def __init__(self, encoding: Encoding, path: str = "") -> None:
        super().__init__()
        self.path = path
        self.enabled = True
        self.observer: Callable[[Tensor], object] | None = None
        share_grids([(encoding, self)])

    @property
    def encoding(self) -> Encoding:
        """The encoding that the tensors hold now; without a scale before calibration. A new object at every call."""
        return self.grid.encoding

    def set_encoding(self, encoding: Encoding) -> None:
        """Let this quantizer, and all that share its grid, round to `encoding`.

        The grid of a bias follows from its factors: setting it does nothing. Raises QirError when a float format takes
        the place of an integer grid or the other way round.
        """
        kinds = (FloatEncoding, ProductEncoding)
        if [isinstance(encoding, kind) for kind in kinds] != [isinstance(self.encoding, kind) for kind in kinds]:
            raise QirError(f"{self.path} holds a grid of another kind", help="place quantizers of that kind instead")
        self.grid.set(encoding)

    def forward(self, x: Tensor) -> Tensor:
        """`x` on the grid."""
        if self.observer is not None:
            self.observer(x)
            return x
        if not self.enabled:
            return x
        if not self.grid.calibrated:
            raise QirError(f"the quantizer {self.path} is not calibrated", help="run compute_encodings first")
        rounded: Tensor = self.grid(x)
        return rounded


def share_grids(quantizers: Iterable[tuple[Encoding, Quantizer]]) -> None:
    """Give quantizers of one encoding one grid, and the grids of biases the grids of their factors."""
    grids: dict[Encoding, Grid | ProductGrid] = {}

    def grid_of(encoding: Encoding) -> Grid | ProductGrid:
        if encoding not in grids:
            grids[encoding] = make_grid(encoding, grid_of)
        return grids[encoding]

    for encoding, quantizer in quantizers:
        quantizer.grid = grid_of(encoding)


def quantizers_of(module: nn.Module) -> list[tuple[str, Quantizer]]:
    """Every quantizer below `module` with its path."""
    return [(path, inner) for path, inner in module.named_modules() if isinstance(inner, Quantizer)]


def learn_ranges(module: nn.Module, keep: Collection[str] = ()) -> list[nn.Parameter]:
    """Make scales and lower ends of the integer grids below `module` parameters; which they are.

    The quantizers at the paths `keep`, float formats and low-power grids stay as they are. Call it before the optimizer
    is made. Scales are best given a learning rate of their own, about a hundredth of the weights' with SGD, 1e-5 to
    1e-4 with Adam, and no weight decay.
    """
    kept = {id(quantizer.grid) for path, quantizer in quantizers_of(module) if path in keep}
    grids = {id(q.grid): q.grid for _, q in quantizers_of(module) if isinstance(q.grid, Grid) and q.enabled}
    for key, grid in grids.items():
        if key not in kept:
            grid.learn()
    return [parameter for grid in grids.values() for parameter in grid.parameters(recurse=False)]


def freeze_ranges(module: nn.Module) -> None:
    """Let learned ranges below `module` be constants again, with the values that they have."""
    for _, quantizer in quantizers_of(module):
        if isinstance(quantizer.grid, Grid):
            quantizer.grid.freeze()
