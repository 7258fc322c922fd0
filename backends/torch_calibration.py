"""Calibrates the quantizers of a torch module on what a callback runs through it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np
import torch
from torch import Tensor, fx, nn

from qir.backends.torch_distributed import all_reduce
from qir.backends.torch_grids import ProductGrid
from qir.backends.torch_module import emit_flat
from qir.backends.torch_observers import TorchHistogram, TorchMinMax
from qir.backends.torch_quantizers import Quantizer, quantizers_of
from qir.calibration.calibration import Calibration, Seen, no_data
from qir.calibration.observers import MinMax, NonFiniteError
from qir.calibration.observing import Observed, Views
from qir.encodings.encoding import Encoding
from qir.errors import QirError
from qir.graph import Graph
from qir.quantizers import quantizers


def calibrate_module(
    module: nn.Module,
    run: Callable[[], object],
    method: str = "min-max",
    *,
    percentile: float = 99.99,
    minimum_scale: float = 0.0,
    keep: Collection[str] = (),
) -> dict[str, Encoding]:
    """Encodings for the quantizers below `module`, by path, fitted to weights and to what `run` puts through `module`.

    `run` is called once, in evaluation mode and without gradients, and nothing is rounded meanwhile. Activations are
    seen as they pass; none is kept. Quantizers that share a grid get one encoding, which fits all that they saw. No
    entry have quantizers that are disabled, those at the paths `keep` with all that share their grids, and biases and
    16-bit floats, whose grids are given. When a torch.distributed process group is up, its ranks calibrate together:
    each runs its own data, and all get the encodings for all of it.

    Raises QirError when a tensor holds NaN or an infinity, naming the quantizer, its line and the batch, and when
    tensors never saw data, naming all of them.
    """
    calibration = Calibration(method, percentile, minimum_scale)
    groups = [_Group.of(members, calibration) for members in _sharing(module, keep)]
    weights, lines = _constants(module), _lines(module)
    batches = _Batches()
    views: dict[Quantizer, Callable[[Tensor], object]] = {}
    for group in groups:
        for path, quantizer in group.members.items():
            place = f"{path} ({lines[quantizer]})" if quantizer in lines else path
            if quantizer in weights:
                group.weights[place] = weights[quantizer]
            else:
                views[quantizer] = group.view(place, batches)
    with _observing(module, views, batches):
        run()
    moving = [group for group in groups if len(group.weights) < len(group.members)]
    all_reduce([group.observer for group in moving])
    no_data(path for group in moving if group.observer.low is None for path in group.members)
    fitted = calibration.fit_all(group.observed() for group in groups)
    return {path: encoding for group, encoding in zip(groups, fitted, strict=True) for path in group.members}


@dataclass
class _Batches:
    """Counts what was run."""

    started: int = 0

    def begin(self, *ignored: object) -> None:
        self.started += 1


@dataclass
class _Group:
    """Quantizers of one grid by path, the weights among what they read by place, and what is known of the rest."""

    members: Mapping[str, Quantizer]
    calibration: Calibration
    observer: MinMax
    weights: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, members: Mapping[str, Quantizer], calibration: Calibration) -> _Group:
        kind = TorchHistogram if calibration.search.needs_counts else TorchMinMax
        return cls(members, calibration, kind(next(iter(members.values())).encoding))

    def view(self, place: str, batches: _Batches) -> Callable[[Tensor], object]:
        """What takes note of a tensor of this group."""

        def see(x: Tensor) -> None:
            try:
                self.observer.see(x)
            except NonFiniteError as error:
                raise QirError(f"{place} was given {error} in batch {batches.started}", stage="calibrate",
                               help="look at the data, or at the operator before it") from None  # fmt: skip

        return see

    def observed(self) -> Seen:
        """All that the group reads."""
        if len(self.weights) == len(self.members):
            arrays = [weight.detach().float().cpu().numpy() for weight in self.weights.values()]
            given = self.calibration.weights(self.observer.encoding, arrays)
            return given._replace(parts=self._parts(given.parts))
        with self._naming_weights():
            for weight in self.weights.values():
                self.observer.see(weight)
        return self.calibration.observed(self.observer)

    def _parts(self, parts: Iterable[MinMax]) -> Iterator[MinMax]:
        with self._naming_weights():
            yield from parts

    @contextmanager
    def _naming_weights(self) -> Iterator[None]:
        try:
            yield
        except NonFiniteError as error:
            raise QirError(f"the weight of {' or '.join(self.weights)} holds {error}", stage="calibrate") from None


def _sharing(module: nn.Module, keep: Collection[str]) -> list[dict[str, Quantizer]]:
    """The quantizers to calibrate, by path, those that share a grid together."""
    grids: dict[int, dict[str, Quantizer]] = {}
    for path, quantizer in quantizers_of(module):
        grids.setdefault(id(quantizer.grid), {})[path] = quantizer
    found = []
    for members in grids.values():
        first = next(iter(members.values()))
        given = isinstance(first.grid, ProductGrid) or (first.encoding.calibrated and first.encoding.scale is None)
        enabled = {path: quantizer for path, quantizer in members.items() if quantizer.enabled}
        if enabled and not given and not any(path in keep for path in members):
            found.append(enabled)
    return found


def _calls(module: nn.Module) -> Iterator[tuple[Quantizer, fx.GraphModule, fx.Node]]:
    """Every call of a quantizer, with what it reads."""
    for inner in module.modules():
        for node in inner.graph.nodes if isinstance(inner, fx.GraphModule) else ():
            if node.op == "call_module" and isinstance(layer := inner.get_submodule(str(node.target)), Quantizer):
                assert isinstance(inner, fx.GraphModule)
                yield layer, inner, node.all_input_nodes[0]


def _constants(module: nn.Module) -> dict[Quantizer, Tensor]:
    """The quantizers that read a weight or another constant, with it."""
    found = {}
    for quantizer, owner, source in _calls(module):
        if source.op == "get_attr":
            found[quantizer] = attrgetter(str(source.target))(owner)
        elif source.op == "call_module" and not source.args and not source.kwargs:
            found[quantizer] = owner.get_submodule(str(source.target))()
    return found


def _lines(module: nn.Module) -> dict[Quantizer, str]:
    """The user's lines that compute what quantizers read, where they are known."""
    return {quantizer: source.meta["source"] for quantizer, _, source in _calls(module) if "source" in source.meta}


@contextmanager
def _observing(
    module: nn.Module, views: Mapping[Quantizer, Callable[[Tensor], object]], batches: _Batches
) -> Iterator[None]:
    """Show tensors instead of rounding them, in evaluation mode and without gradients."""
    found = [quantizer for _, quantizer in quantizers_of(module)]
    observers = [quantizer.observer for quantizer in found]
    training = [(inner, inner.training) for inner in module.modules()]
    hook = module.register_forward_pre_hook(batches.begin)
    try:
        for quantizer in found:
            quantizer.observer = views.get(quantizer, _look_away)
        with torch.no_grad():
            module.eval()
            yield
    finally:
        hook.remove()
        for quantizer, observer in zip(found, observers, strict=True):
            quantizer.observer = observer
        for inner, flag in training:
            inner.training = flag


def _look_away(x: Tensor) -> None:
    """Take no note of `x`."""


def observed_in_torch(graph: Graph, views: Views) -> Observed:
    """`graph` in float, run by torch on the CPU, which shows arrays as it computes them and frees them then.

    Raises QirError when torch does not take the graph.
    """
    module = emit_flat(graph)
    for node, (quantizer, _, _) in zip(quantizers(graph), _calls(module), strict=True):
        quantizer.observer = _as_array(views[node]) if node in views else _look_away

    def show(inputs: Sequence[np.ndarray]) -> None:
        with torch.no_grad():
            module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs))

    return show


def _as_array(view: Callable[[np.ndarray], object]) -> Callable[[Tensor], object]:
    return lambda x: view(x.detach().numpy())
