"""`qir.analyze`: how much every quantizer and every layer of a quantized model costs, on some data."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.analysis.journal import Journal
from qir.analysis.results import Analysis
from qir.analysis.workers import results_of
from qir.api.analyze_results import put_together
from qir.api.preparation import PREPARE
from qir.api.quantize import Quantized, import_model
from qir.batches import arrays_of
from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pipeline
from qir.progress import track
from qir.quantizers import quantizers
from qir.simulation.quantsim import QuantizationSimModel

if TYPE_CHECKING:
    from torch import fx

    from qir.backends.torch_sensitivity import Sensitivity

Metric = Callable[[Sequence[np.ndarray], Any], float]
"""Rates a model: its outputs on all samples, an array for each, and the labels; the more the better."""


@dataclass(frozen=True)
class Subject:
    """A quantized model: a graph, the module that was emitted from it, how it came about, and how it takes data."""

    graph: Graph
    module: fx.GraphModule
    pipeline: str
    inputs: Callable[[Any, int], list[Any]]


def analyze(
    model: Quantized | QuantizationSimModel | Graph | Any,
    data: Iterable[Any],
    *,
    labels: Any = None,
    metric: Metric | None = None,
    evaluate: Callable[[Any], float] | None = None,
    samples: int = 64,
    jobs: int = 1,
    folder: str | Path | None = None,
) -> Analysis:
    """What each quantizer and each layer of `model` costs, on the first batches of `data` with so many `samples`.

    `model` is what `qir.quantize` returns, a `QuantizationSimModel`, a calibrated graph, or a quantized ONNX model or
    file. Batches are those that it takes. The model's outputs with one quantizer on and all others off, and the other
    way round, are compared with those of the float model. They are rated as well by `metric`, given labels of all
    samples (by default the accuracy of the first output, where there are `labels`), or by `evaluate`, given the torch
    module.

    `jobs` processes share the work, and so do the ranks of a torch.distributed process group, all of which give the
    same arguments. Each computes on one thread, so the result depends on neither. With a `folder` the results are kept
    in a journal there as they come, and a call that was interrupted goes on where it stopped.

    Raises QirError for a model without calibrated quantizers, for data that does not fit or is not finite, and for a
    journal of another model, other data or other options.
    """
    from qir.backends.torch_replay import one_thread
    from qir.backends.torch_sensitivity import Sensitivity

    if metric is not None and evaluate is not None:
        raise QirError("both a metric and an evaluation rate the model", help="give one of them")
    with one_thread():
        subject = subject_of(model)
        batches, count = _batches(subject, data, samples)
        steps = Sensitivity(subject.graph, subject.module, batches, _rating(metric, labels, count), evaluate)
        name = _metric_name(metric, evaluate, labels)
        about = _about(subject, batches, f"{samples} {name} {_digest([labels])}")
        results = _results(steps, about, jobs, None if folder is None else Path(folder))
        return put_together(subject.pipeline, steps, results, count, name)


def subject_of(model: Any) -> Subject:
    """The quantized model that is analyzed. Raises QirError for what is not quantized, or not calibrated."""
    from qir.backends.torch_difference import placed
    from qir.backends.torch_module import emit_torch
    from qir.backends.torch_snapshot import snapshot
    from qir.simulation.construction import arguments_of

    if isinstance(model, QuantizationSimModel):
        module = model.model
        graph = _checked(snapshot(model.graph, module))
        return Subject(graph, module, str(model.pipeline),
                       lambda batch, number: list(placed(module.graph, *arguments_of(batch))))  # fmt: skip
    if isinstance(model, Quantized):
        graph, pipeline = model.graph, str(model.pipeline)
    else:
        graph, pipeline = _read(model), ""
    return Subject(_checked(graph), emit_torch(graph), pipeline, lambda batch, number: _tensors(graph, batch, number))


def _read(model: Any) -> Graph:
    """The graph of a quantized model with its quantizers as such."""
    graph = model.copy() if isinstance(model, Graph) else import_model(model)
    folding = "fold-qdq," if any(node.op == "DequantizeLinear" for node in graph.nodes()) else ""
    return Pipeline.parse(f"{folding}{PREPARE}", graph).run(graph)


def _checked(graph: Graph) -> Graph:
    found = quantizers(graph)
    if not found:
        raise QirError("the model has no quantizers to analyze", stage="analyze", help="quantize it: qir.quantize")
    for node in found:
        if not node.attrs["encoding"].calibrated:
            raise QirError("this quantizer is not calibrated", node, stage="analyze", help="run compute_encodings")
    return graph


# -- data ------------------------------------------------------------------------------------------------------------


def _tensors(graph: Graph, batch: Any, number: int) -> list[Any]:
    import torch

    return [torch.from_numpy(np.array(array)) for array in arrays_of(graph, batch, number)]


def _batches(subject: Subject, data: Iterable[Any], samples: int) -> tuple[list[list[Any]], int]:
    """The first batches, as tensors of their own, and how many samples they hold."""
    import torch

    if samples < 1:
        raise QirError(f"{samples} samples show nothing", help="give samples=1 or more")
    found: list[list[Any]] = []
    count = 0
    for number, batch in enumerate(data, 1):
        found.append([x.detach().clone() if isinstance(x, torch.Tensor) else x for x in subject.inputs(batch, number)])
        first = next((x for x in found[-1] if isinstance(x, torch.Tensor)), None)
        count += int(first.shape[0]) if first is not None and first.ndim else 1
        if count >= samples:
            break
    if not found:
        raise QirError("there is no data", stage="analyze", help="give one batch at least")
    return found, count


def _digest(parts: Iterable[Any]) -> str:
    """A hash of tensors, arrays and texts."""
    import torch

    seen = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            seen.update(f"{part.dtype} {tuple(part.shape)}".encode())
            seen.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(part, np.ndarray):
            seen.update(f"{part.dtype} {part.shape}".encode() + part.tobytes())
        else:
            seen.update(str(part).encode())
    return seen.hexdigest()


# -- ratings ---------------------------------------------------------------------------------------------------------


def accuracy(outputs: Sequence[np.ndarray], labels: Any) -> float:
    """The share of samples whose largest value of the first output, along its last axis, is at the label."""
    return float(np.mean(outputs[0].argmax(-1) == np.asarray(labels)))


def _rating(metric: Metric | None, labels: Any, count: int) -> Callable[[Sequence[Sequence[Any]]], float] | None:
    """What rates the outputs of all batches."""
    if metric is None and labels is None:
        return None
    if labels is not None and len(labels) < count:
        raise QirError(f"there are {len(labels)} labels for {count} samples", stage="analyze", help="give one for each")
    rate, known = metric or accuracy, None if labels is None else labels[:count]

    def rated(batches: Sequence[Sequence[Any]]) -> float:
        outputs = [
            np.concatenate([np.atleast_1d(part.detach().cpu().numpy()) for part in parts])
            for parts in zip(*batches, strict=True)
        ]
        try:
            return float(rate(outputs, known))
        except Exception as error:  # whatever the user's function raises
            raise QirError(f"the metric fails: {type(error).__name__}: {error}", stage="analyze") from error

    return rated


def _metric_name(metric: Metric | None, evaluate: Callable[[Any], float] | None, labels: Any) -> str | None:
    given = metric or evaluate or (accuracy if labels is not None else None)
    return None if given is None else str(getattr(given, "__qualname__", type(given).__qualname__))


# -- the run ---------------------------------------------------------------------------------------------------------


def _about(subject: Subject, batches: list[list[Any]], options: str) -> dict[str, str]:
    """What the result depends on. Raises QirError when the ranks of a process group do not agree about it."""
    import torch

    from qir.backends.torch_distributed import exchanged

    about = {
        "model": _digest([subject.graph, *subject.module.state_dict().values()]),
        "data": _digest(part for batch in batches for part in batch),
        "options": options,
        "versions": f"torch {torch.__version__}, numpy {np.__version__}, {platform.machine()}",
    }
    if len(set(exchanged(json.dumps(about)))) > 1:
        raise QirError("the ranks analyze different models, data or options", stage="analyze",
                       help="let every rank give the same")  # fmt: skip
    return about


def _results(steps: Sensitivity, about: dict[str, str], jobs: int, folder: Path | None) -> dict[str, Any]:
    """The result of every step: this rank's share of those that no journal knows, and what the other ranks found."""
    from qir.backends.torch_distributed import exchanged, place

    rank, ranks = place()
    journal = None if folder is None else Journal(folder, about, f".{rank}" if rank else "")
    known = _united(exchanged(json.dumps({} if journal is None else journal.results)))
    left = [step for step in steps.steps() if step not in known][rank::ranks]
    if jobs > 1 and len(left) > 1:
        steps.prepare()
    for step, result in track(results_of(left, steps.run, jobs), "analyzing", len(left)):
        known[step] = result
        if journal is not None:
            journal.add(step, result)
    known = _united(exchanged(json.dumps(known)))
    if journal is not None:
        journal.remove()
    return known


def _united(texts: Iterable[str]) -> dict[str, Any]:
    return {step: result for text in texts for step, result in json.loads(text).items()}
