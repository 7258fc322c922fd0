"""Fills the encodings of quantizers from data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qir.attributes import Port
from qir.encodings import Encoding, ProductEncoding
from qir.errors import QirError
from qir.evaluate import Executor
from qir.execution import fastest
from qir.facts import CALIBRATED, COMPOSITES_EXPANDED, QUANTIZERS_INSERTED
from qir.graph import Graph, Node, Value
from qir.pipeline import Pass
from qir.progress import track
from qir.quantizers import quantizers, replace_encodings
from qir.rewrite import Note, Outcome
from qir.traits import Clamps
from qir.types import NUMPY, TensorType

Batch = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Calibrate(Pass, name="calibrate"):
    """Give every quantizer a scale and zero point that cover what its tensor holds: weights themselves, others on data.

    Quantizers that share an encoding cover all of their tensors together. The result does not depend on how the data
    is split into batches, nor on their order. After a clamp the grid ends within its limits, so that the clamp is free.

    `data` yields batches, each an array, a sequence in the order of the inputs, or a mapping by input name; `file` is
    the same as an .npz with an array for each input, or an .npy. `executor` runs the float graph.

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

    method: Literal["min-max"] = "min-max"
    file: str | None = None
    data: Iterable[Batch] | None = field(default=None, compare=False, metadata={"text": False})
    executor: Executor = field(default=fastest, compare=False, metadata={"text": False})

    def run(self, graph: Graph) -> Outcome:
        """Observe and fill. Raises QirError for data that does not fit, is empty or holds NaN."""
        found = [node for node in quantizers(graph) if not isinstance(node.attrs["encoding"], ProductEncoding)]
        ranges: dict[Node, _Range] = {node: _Range(node) for node in found}
        moving = [node for node in found if node.operands[0].weight is None]
        for node in found:
            if node.operands[0].weight is not None:
                ranges[node].see(node.operands[0].array)
        if moving:
            self._observe(graph, moving, ranges)
        groups: dict[Encoding, list[_Range]] = {}
        for node in found:
            groups.setdefault(node.attrs["encoding"], []).append(ranges[node])
        replace_encodings(graph, {encoding: _fitted(encoding, group) for encoding, group in groups.items()})
        return Outcome([Note.of(node, f"covers {ranges[node]}") for node in found])

    def _observe(self, graph: Graph, moving: Sequence[Node], ranges: Mapping[Node, _Range]) -> None:
        floating, twins = graph.copy_with_map()
        watched = _without_quantizers(floating, [twins[node] for node in moving])
        run = self.executor(floating)
        seen = 0
        for batch in track(list(self._batches()), "calibrating"):
            seen += 1
            arrays = run(_inputs(graph, batch, seen))
            for node, position in zip(moving, watched, strict=True):
                ranges[node].see(arrays[position], f"in batch {seen}")
        if not seen:
            raise QirError("there is no calibration data", stage=self.name, help="give calibrate one batch at least")

    def _batches(self) -> Iterator[Batch]:
        if self.data is not None:
            yield from self.data
        elif self.file is not None:
            yield _load(Path(self.file))
        else:
            raise QirError(
                "calibrate has no data", stage=self.name, help="pass data=batches, or calibrate{file=data.npz}"
            )


class _Range:
    """The lowest and highest value that a quantizer's tensor held, for each channel where it has channels."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.axis = node.attrs["encoding"].axis
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None

    def see(self, array: np.ndarray, where: str = "") -> None:
        if not np.all(np.isfinite(array)):
            kind = "NaN" if np.any(np.isnan(array)) else "infinite values"
            raise QirError(f"this tensor holds {kind} {where}".rstrip(), self.node, stage="calibrate",
                           help="look at the data, or at the operator before it")  # fmt: skip
        if array.size == 0:
            return
        axes = None if self.axis is None else tuple(axis for axis in range(array.ndim) if axis != self.axis)
        low, high = np.min(array, axis=axes), np.max(array, axis=axes)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return "nothing"
        return f"{float(np.min(self.low)):.6g} … {float(np.max(self.high)):.6g}"


def _fitted(encoding: Encoding, group: Sequence[_Range]) -> Encoding:
    """The encoding for everything that the group saw."""
    for seen in group:
        if seen.low is None:
            raise QirError("no data reached this tensor", seen.node, stage="calibrate")
    low = np.minimum.reduce([seen.low for seen in group if seen.low is not None])
    high = np.maximum.reduce([seen.high for seen in group if seen.high is not None])
    fitted = encoding.with_range(low, high)
    for seen in group:
        clamp = seen.node.operands[0].node
        trait = None if clamp is None else clamp.definition.trait(Clamps)
        if trait is not None and clamp is not None and (limits := trait.range(clamp)) is not None:
            fitted = fitted.within(*limits)
    return fitted


def _without_quantizers(graph: Graph, moving: Sequence[Node]) -> list[int]:
    """Let the graph return what the quantizers read, and compute in float; which output belongs to which quantizer."""
    observed: list[Value] = []
    sources = [_float_source(node) for node in moving]
    for node in quantizers(graph):
        graph.replace(node.result, node.operands[0])
    for source in sources:
        if source not in observed:
            observed.append(source)
    graph.outputs, graph.structure = list(observed), tuple(map(Port, range(len(observed))))
    for node in reversed(graph.nodes()):
        graph.erase_dead(node)
    return [observed.index(source) for source in sources]


def _float_source(node: Node) -> Value:
    """What the quantizer reads, past other quantizers."""
    value: Value = node.operands[0]
    while value.node is not None and value.node.op == node.op:
        value = value.node.operands[0]
    return value


def _inputs(graph: Graph, batch: Batch, number: int) -> list[np.ndarray]:
    """The arrays of a batch in the order of the graph's inputs. Raises QirError when they do not fit."""
    names = [value.hint for value in graph.inputs]
    where = f"calibration batch {number}"
    if isinstance(batch, Mapping):
        if set(batch) != set(names):
            raise QirError(f"{where} holds {', '.join(sorted(batch))}", help=f"the inputs are {', '.join(names)}")
        arrays = [np.asarray(batch[name]) for name in names]
    else:
        arrays = [_array(part) for part in ([batch] if hasattr(batch, "shape") else batch)]
    if len(arrays) != len(names):
        raise QirError(f"{where} holds {len(arrays)} arrays", help=f"the inputs are {', '.join(names)}")
    for value, array in zip(graph.inputs, arrays, strict=True):
        _check(value, array, where)
    return arrays


def _array(data: Any) -> np.ndarray:
    return np.asarray(data.detach().cpu().numpy() if hasattr(data, "detach") else data)


def _check(value: Value, array: np.ndarray, where: str) -> None:
    type = value.type
    if not isinstance(type, TensorType):
        return
    if type.dtype is not None and array.dtype != NUMPY[type.dtype]:
        help = f"convert it: array.astype({NUMPY[type.dtype].name!r})"
        raise QirError(f"{where}: %{value.hint} is {type.dtype} and the data {array.dtype}", help=help)
    sizes = type.shape
    if sizes is not None:
        fits = len(sizes) == array.ndim and all(
            not isinstance(a, int) or a == b for a, b in zip(sizes, array.shape, strict=True)
        )
        if not fits:
            raise QirError(f"{where}: %{value.hint} is {type} and the data has shape {list(array.shape)}",
                           help="give whole batches, with the axis of the batch first")  # fmt: skip
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        raise QirError(f"{where}: the data for %{value.hint} holds NaN or infinite values")


def _load(path: Path) -> Batch:
    try:
        loaded = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise QirError(f"can not read calibration data from {path}: {error}", stage="calibrate",
                       help="write it with numpy.savez(path, input_name=array)") from None  # fmt: skip
    return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
