"""The parity certificate: how a quantized ONNX file computes in its runtime, beside what was simulated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.api.lint import Verdict, lint
from qir.api.preparation import PREPARE
from qir.errors import QirError
from qir.extract import part
from qir.graph import Graph, Node, Value
from qir.pipeline import Pipeline
from qir.placement.targets import target as profile_of
from qir.progress import track
from qir.text.printing import value_names

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Difference:
    """Two results of one tensor: how many of its values differ, and by how many steps of its grid.

    `steps` counts values by the signed difference in steps. For a tensor without a grid it is empty, and
    `signal_to_noise` is the power of the first over that of the difference, in decibels; None when they are equal.
    """

    tensor: str
    values: int
    differing: int
    steps: dict[int, int] = field(default_factory=dict)
    signal_to_noise: float | None = None
    in_float: bool = False
    """Whether a float operator computes the tensor, which no two programs round alike."""

    @property
    def largest(self) -> int:
        """The largest difference in steps."""
        return max(map(abs, self.steps), default=0)


@dataclass(frozen=True)
class Finding:
    """A tensor that two runs have differently, and why."""

    tensor: str
    cause: str
    help: str = ""


@dataclass(frozen=True)
class Certificate:
    """What was compared, on how many inputs, and what came out.

    * `simulated`: outputs of the integer simulator and of onnxruntime;
    * `stepwise`: every quantized tensor, computed by the simulator from the runtime's own values of the tensors before
      it, and by the runtime;
    * `unoptimized`: every quantized tensor and output in onnxruntime with all optimizations and with none;
    * `reference`: outputs of onnxruntime without optimizations and of ONNX's reference evaluator.
    """

    target: str
    samples: int
    simulated: list[Difference]
    stepwise: list[Difference]
    unoptimized: list[Difference]
    reference: list[Difference]
    verdicts: list[Verdict]
    findings: list[Finding]
    accuracy: dict[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether integer operators compute in the simulator what they compute in the runtime, and none wrongly."""
        return not any(d.differing and not d.in_float for d in self.stepwise) and not any(
            v.wrong for v in self.verdicts
        )


def certify(
    model: onnx.ModelProto, target: str, inputs: Mapping[str, np.ndarray], labels: np.ndarray | None = None
) -> Certificate:
    """The certificate of a quantized model for `target` on `inputs`, an array for each input by name.

    `labels` are classes for the first output, whose accuracy is then stated for every run. Raises QirError for inputs
    that do not fit and for a model that is not quantized or that the runtime refuses.
    """
    from qir.frontends.onnx_model import import_onnx

    graph = import_onnx(model)
    legal = Pipeline.parse(f"legalize-onnx{{opset={profile_of(target).opset}}}", graph).run(graph.copy())
    verdicts = lint(graph, target)
    return _Comparison(model, legal, target, inputs, labels, verdicts).certificate()


class _Comparison:
    """The runs of one model on one set of inputs."""

    def __init__(self, model: onnx.ModelProto, graph: Graph, target: str, inputs: Mapping[str, np.ndarray],
                 labels: np.ndarray | None, verdicts: list[Verdict]) -> None:  # fmt: skip
        from qir.backends.onnx_capture import captured, quantized_tensors

        self.model, self.graph, self.target, self.inputs, self.labels = model, graph, target, inputs, labels
        self.verdicts = verdicts
        self.fed = _fed(graph, inputs)
        self.values = {name: value for value, name in value_names(graph).items()}
        self.tensors = [name for name in quantized_tensors(model) if name in self.values]
        self.outputs = [value.name for value in model.graph.output]
        self.optimized = captured(model, inputs, self.tensors)
        self.plain = captured(model, inputs, self.tensors, optimize=False)

    def certificate(self) -> Certificate:
        """Compare everything."""
        simulated = dict(zip(self.outputs, self._run(self.graph, self.fed), strict=True))
        reference = dict(zip(self.outputs, self._reference(), strict=True))
        stepwise = list(self._stepwise())
        names = [*self.tensors, *(name for name in self.outputs if name not in self.tensors)]
        unoptimized = [self._difference(name, self.optimized[name], self.plain[name]) for name in names]
        return Certificate(
            self.target,
            len(next(iter(self.fed))) if self.fed else 0,
            [self._difference(name, self.optimized[name], simulated[name]) for name in self.outputs],
            stepwise,
            unoptimized,
            [self._difference(name, self.plain[name], reference[name]) for name in self.outputs],
            self.verdicts,
            [*self._findings(stepwise, unoptimized)],
            self._accuracies(simulated, reference),
        )

    def _run(self, graph: Graph, feeds: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The outputs of the integer simulator of a legal graph."""
        import torch

        from qir.backends.torch_module import emit_torch

        passes = f"fuse-integer{{target={self.target}}},spell-batch-norm,{PREPARE}"
        fused = Pipeline.parse(passes, graph).run(graph.copy())
        with torch.no_grad():
            found = emit_torch(fused)(*(torch.from_numpy(np.ascontiguousarray(array)) for array in feeds))
        return [tensor.numpy() for tensor in ([found] if isinstance(found, torch.Tensor) else found)]

    def _reference(self) -> list[np.ndarray]:
        from qir.onnx_reference import evaluator

        try:
            return [np.asarray(array) for array in evaluator(self.model).run(None, dict(self.inputs))]
        except Exception as error:  # whatever the reference implementation of an operator raises
            raise QirError(f"onnx.reference can not run the model: {error}", stage="certify") from error

    def _stepwise(self) -> Iterator[Difference]:
        """Every quantized tensor from the runtime's own values of the tensors before it."""
        frontier = {self.values[name]: self.optimized[name] for name in self.tensors}
        floats = {verdict.note.node for verdict in self.verdicts if not verdict.integer}
        known = {**dict(zip(self.graph.inputs, self.fed, strict=True)), **frontier}
        for name in track([*self.tensors, *self.outputs], "comparing"):
            value = self.values[name] if name in self.values else self.graph.outputs[self.outputs.index(name)]
            if value.node is None:
                continue
            alone, read = part(self.graph, [value], frontier)
            (computed,) = self._run(alone, [known[source] for source in read])
            in_float = any(str(node) in floats for node in _computed_by(value))
            yield replace(self._difference(name, self.optimized[name], computed), in_float=in_float)

    def _difference(self, name: str, ours: np.ndarray, theirs: np.ndarray) -> Difference:
        """How two results of the tensor `name` differ."""
        if ours.shape != theirs.shape:
            raise QirError(f"{name} has the shape {list(ours.shape)} in one run and {list(theirs.shape)} in another")
        apart = theirs.astype(np.float64) - ours.astype(np.float64)
        scale = self._scale(name)
        if scale is None and ours.dtype.kind == "f":
            noise, signal = float(np.sum(apart**2)), float(np.sum(ours.astype(np.float64) ** 2))
            ratio = None if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))
            return Difference(name, ours.size, int(np.count_nonzero(apart)), {}, ratio)
        steps, counts = np.unique(np.rint(apart if scale is None else apart / scale), return_counts=True)
        histogram = {int(step): int(count) for step, count in zip(steps, counts, strict=True) if step}
        return Difference(name, ours.size, int(np.count_nonzero(apart)), histogram)

    def _scale(self, name: str) -> float | None:
        """The step of an output that is dequantized; None for integers and for floats without a grid."""
        value = self.values.get(name)
        node = value.node if value is not None else None
        if node is None or node.op != "DequantizeLinear":
            return None
        scale = node.operands[1].array
        return float(scale) if scale.ndim == 0 else None

    def _findings(self, stepwise: list[Difference], unoptimized: list[Difference]) -> Iterator[Finding]:
        """What is wrong, and the first tensor that each comparison has differently, with the cause."""
        for verdict in self.verdicts:
            if verdict.wrong:
                yield Finding(verdict.note.module or verdict.note.op, verdict.note.reason, verdict.note.help)
        first = next((difference for difference in stepwise if difference.differing), None)
        if first is not None and first.in_float:
            yield Finding(first.tensor, "a float operator computes it, which onnxruntime and the simulator round apart")
        elif first is not None:
            yield Finding(first.tensor, "the simulator does not model what the runtime fuses here")
        for difference in unoptimized:
            if difference.differing:
                yield Finding(difference.tensor, _without_optimizations(difference), "run snap-scales before it ships")
                break

    def _accuracies(self, simulated: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
        if self.labels is None:
            return {}
        first = self.outputs[0]
        runs = {"onnxruntime": self.optimized, "onnxruntime without optimizations": self.plain,
                "integer simulator": simulated, "ONNX reference": reference}  # fmt: skip
        return {name: float(np.mean(run[first].argmax(-1) == self.labels)) for name, run in runs.items()}


def _without_optimizations(difference: Difference) -> str:
    if difference.largest <= 1:
        return "values on a tie round to the other side where float operators compute what integers did"
    return f"float operators compute it {difference.largest} steps away from what the integer operators compute"


def _computed_by(value: Value) -> list[Node]:
    """The nodes between a quantized tensor and the quantized tensors before it."""
    found: list[Node] = []
    stack = [value.node]
    while stack:
        node = stack.pop()
        if node is not None and node not in found:
            found.append(node)
            stack += [source for source in node.definitions if source.op != "QuantizeLinear"]
    return found


def _fed(graph: Graph, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The arrays in the order of the graph's inputs. Raises QirError when they do not fit."""
    names = [value.hint for value in graph.inputs]
    if set(names) != set(inputs):
        raise QirError(f"the model's inputs are {', '.join(names)}, and {', '.join(inputs)} are given",
                       help="give an array for each input by name")  # fmt: skip
    return [inputs[name] for name in names]
