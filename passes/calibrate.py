"""Fills the encodings of quantizers from data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qir.batches import Batch, arrays_of, given_batches
from qir.calibration.calibration import Calibration, no_data
from qir.calibration.observers import MinMax
from qir.calibration.observing import Watch, look, observed_by
from qir.calibration.range_search import MethodName
from qir.encodings.encoding import Encoding, ProductEncoding
from qir.errors import QirError
from qir.evaluate import Executor
from qir.execution import observed, share
from qir.facts import CALIBRATED, COMPOSITES_EXPANDED, QUANTIZERS_INSERTED
from qir.graph import Graph, Node
from qir.pipeline import Pass
from qir.progress import track
from qir.quantizers import is_fixed, is_parameter, quantizers, replace_encodings, within_clamps
from qir.rewrite import Note, Outcome


@dataclass(frozen=True)
class Calibrate(Pass, name="calibrate"):
    """Give every quantizer a scale and zero point for what its tensor holds: weights themselves, others on data.

    `method` says which range a grid covers: all of it (`min-max`), the one with the least squared error (`mse`), where
    clipping counts three times (`sqnr`), what is between two quantiles (`percentile`), or the one whose distribution
    changes least (`entropy`). For weights, the last two are `min-max`. No scale is below `minimum_scale`.

    Data streams by: activations are seen as they are computed, and none is kept. Quantizers that share an encoding get
    one for all of their tensors together. Samples are run one by one, so the result depends neither on their order nor
    on the split into batches, bit for bit (on one machine, with one number of threads). After a clamp the grid ends
    within its limits, so that the clamp is free. A quantizer whose range is fixed keeps it.

    `data` yields batches, each an array, a sequence in the order of the inputs, or a mapping by input name; `file` is
    the same as an .npz with an array for each input, or an .npy, or a folder of those, a batch in each. `executor` runs
    the float graph; without it, torch does where it can.

        graph @g() {
          %w = constant f32[2](-1.27, 0.5)
          %w_1 = qir.Quantize %w {encoding=$w_1} : f32[2]
          return %w_1
          $w_1 = i8 symmetric narrow
        }
        -->
        graph @g() {
          %w_1 = qir.Quantize f32[2](-1.27, 0.5) {encoding=$w_1} : f32[2]
          return %w_1
          $w_1 = i8 symmetric narrow scale=0.01 zero_point=0
        }
    """

    needs = (QUANTIZERS_INSERTED,)
    gives = (CALIBRATED,)
    breaks = (COMPOSITES_EXPANDED,)
    numerics = "changes"

    method: MethodName = "min-max"
    percentile: float = 99.99
    minimum_scale: float = 0.0
    file: str | None = None
    data: Iterable[Batch] | None = field(default=None, compare=False, metadata={"text": False})
    executor: Executor | None = field(default=None, compare=False, metadata={"text": False})

    def __post_init__(self) -> None:
        self._calibration()

    def run(self, graph: Graph) -> Outcome:
        """Observe and fill. Raises QirError for data that does not fit, is empty or holds NaN."""
        calibration = self._calibration()
        groups: dict[Encoding, list[Node]] = {}
        given: list[Note] = []
        for node in quantizers(graph):
            if reason := _why_given(node):
                given.append(Note.of(node, reason))
            else:
                groups.setdefault(node.attrs["encoding"], []).append(node)
        moving = {
            encoding: calibration.observer(encoding)
            for encoding, nodes in groups.items()
            if not all(map(is_parameter, nodes))
        }
        if moving:
            self._observe(graph, groups, moving)
        fitted = calibration.fit_all(
            calibration.observed(moving[encoding]) if encoding in moving
            else calibration.weights(encoding, [_checked(node) for node in nodes])
            for encoding, nodes in groups.items()
        )  # fmt: skip
        new = {old: within_clamps(encoding, groups[old]) for old, encoding in zip(groups, fitted, strict=True)}
        replace_encodings(graph, new)
        done = [Note.of(node, _scale(new[old])) for old, nodes in groups.items() for node in nodes]
        return Outcome(done, given)

    def _calibration(self) -> Calibration:
        return Calibration(self.method, self.percentile, self.minimum_scale)

    def _observe(
        self, graph: Graph, groups: Mapping[Encoding, Sequence[Node]], observers: dict[Encoding, MinMax]
    ) -> None:
        """Let the observers see what the quantizers of their groups read."""
        watch = Watch(observers)
        views: dict[Node, Callable[[np.ndarray], object]] = {}
        for encoding, observer in observers.items():
            for node in groups[encoding]:
                if is_parameter(node):
                    observer.see(_checked(node))
                else:
                    views[node] = watch.view(node)
        show = observed(graph, views) if self.executor is None else observed_by(self.executor, graph, views)
        for number, batch in enumerate(track(given_batches(self.name, self.data, self.file), "calibrating"), 1):
            watch.run(show, graph, arrays_of(graph, batch, number))
        share(list(observers.values()))
        if all(observer.low is None for observer in observers.values()):
            raise QirError("there is no calibration data", stage=self.name, help="give calibrate one batch at least")
        no_data(str(node) for encoding, seen in observers.items() if seen.low is None for node in groups[encoding])


def _why_given(node: Node) -> str | None:
    """Why the scale of a quantizer is not ours to choose; None when it is."""
    encoding = node.attrs["encoding"]
    if isinstance(encoding, ProductEncoding):
        return "its scale is the product of those of its input and its weight"
    if encoding.calibrated and encoding.scale is None:
        return f"{encoding.dtype} needs no scale"
    return "its range is fixed" if is_fixed(node) else None


def _checked(node: Node) -> np.ndarray:
    """The weight that a quantizer reads. Raises QirError for NaN and infinities."""
    array: np.ndarray = node.operands[0].array
    look(MinMax(node.attrs["encoding"]), node, array)
    return array


def _scale(encoding: Encoding) -> str:
    assert encoding.scale is not None
    low, high = float(np.min(encoding.scale)), float(np.max(encoding.scale))
    return f"has the scale {low:.6g}" if low == high else f"has scales from {low:.6g} to {high:.6g}"
