"""Takes every model of a zoo all the way: prepared, as float ONNX, quantized, simulated, trained for a step, exported.

    python -m bench.zoo_onnx [--zoo FOLDER] [--json FILE] [MODEL ...]

The folder is one of `bench.zoo`. SQNR is in dB over all float outputs: that of a calibrated W8A8 `QuantizationSimModel`
under AIMET's default config beside the model ("QuantSim"), of the simulator of `qir.quantize` for ort-x86-vnni beside
the model ("simulator"), and of the quantized file in onnxruntime beside that simulator ("onnxruntime").
"Trained" takes one step of SGD in the `QuantizationSimModel`, after which its weights are finite, and exports it.
A float ONNX file is good within 60 dB of the model, or where the model's own rounding shows more (random weights can
make it grow from layer to layer): when the file is about as near to the model in float64 as the model is.
Exits with 1 when a model that can be prepared fails later.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils import _pytree as pytree

import qir
from bench.zoo import chosen
from qir import Pipeline
from qir.api.preparation import preparation
from qir.api.same_outputs import Examples
from qir.backends.onnx_emit import emit_onnx
from qir.frontends.torch_program import quiet
from qir.progress import track
from qir.simulation.quantsim import QuantizationSimModel

Arrays = list[np.ndarray]


@dataclass
class Journey:
    """How far one model came. `failures` has the first line of the error of each stage that failed."""

    name: str
    importer: str = ""
    opaque: int = 0
    untyped: int = 0
    quantsim: float = math.nan
    simulator: float = math.nan
    onnxruntime: float = math.nan
    failures: dict[str, str] = field(default_factory=dict)

    def row(self) -> list[str]:
        """The cells of the table."""
        stages = ["no" if stage in self.failures else "yes" if self.importer else "" for stage in STAGES]
        decibels = (self.quantsim, self.simulator, self.onnxruntime)
        figures = ["" if math.isnan(figure) else f"{figure:.1f}" for figure in decibels]
        reason = next(iter(self.failures.values()), "")
        return [self.name, self.importer, str(self.opaque), str(self.untyped), *stages, *figures, reason]


STAGES = ("float ONNX", "quantized", "trained")


def tensors(returned: Any) -> list[torch.Tensor]:
    """The tensors among what a model returns."""
    return [leaf for leaf in pytree.tree_leaves(returned) if isinstance(leaf, torch.Tensor)]


def outputs(module: nn.Module, inputs: tuple[Any, Any]) -> Arrays:
    """What a module returns for copies of the inputs, in evaluation mode."""
    args, keywords = deepcopy(inputs)
    torch.manual_seed(0)
    with torch.no_grad():
        return [leaf.numpy() for leaf in tensors(module.eval()(*args, **keywords))]


def near_exact(model: nn.Module, inputs: tuple[Any, Any], own: Arrays, other: Arrays) -> bool:
    """Whether `other` is at most 6 dB further from the model in float64 than what the model itself returns."""
    widened = pytree.tree_map(lambda x: x.double() if torch.is_tensor(x) and x.is_floating_point() else x, inputs)
    exact = outputs(deepcopy(model).double(), widened)
    return sqnr(exact, other) > sqnr(exact, own) - 6


def run(model: onnx.ModelProto, inputs: Sequence[torch.Tensor]) -> Arrays:
    """What onnxruntime returns."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    given = {wanted.name: each.numpy() for wanted, each in zip(session.get_inputs(), inputs, strict=True)}
    return list(session.run(None, given))


def sqnr(expected: Arrays, actual: Arrays) -> float:
    """10 * log10 of the power of the expected floats over that of the differences, infinite when there are none.

    NaN when an output has another size, as the number of detections may.
    """
    if [array.shape for array in expected] != [array.shape for array in actual]:
        return math.nan
    pairs = [(a.astype(float), b.astype(float)) for a, b in zip(expected, actual, strict=True) if a.dtype.kind == "f"]
    finite = [(a[np.isfinite(a)], b[np.isfinite(a)]) for a, b in pairs]
    signal, noise = sum(np.sum(a**2) for a, _ in finite), sum(np.sum((a - b) ** 2) for a, b in finite)
    return float(10 * np.log10(signal / noise)) if noise and signal else math.inf


def journey(entry: Any) -> Journey:
    """Everything about one model."""
    found = Journey(entry.name)
    model, inputs = entry.build().eval(), entry.inputs(7)
    leaves = tensors(inputs)
    try:
        with quiet():
            made = preparation(model, Examples(*inputs))
    except Exception as error:
        found.failures["prepared"] = _reason(error)
        return found
    graph, found.importer = made.graph, made.importer
    found.opaque = sum(node.definition.opaque for node in graph.nodes())
    values = [value for node in graph.nodes() for value in node.results]
    found.untyped = sum(value.type.dtype is None or value.type.rank is None for value in values)
    expected = outputs(model, inputs)

    def as_float() -> None:
        result = run(emit_onnx(Pipeline.parse("legalize-onnx,expand-opaque,legalize-onnx").run(graph.copy())), leaves)
        closeness = sqnr(expected, result)
        assert closeness > 60 or near_exact(model, inputs, expected, result), f"float ONNX differs: {closeness:.1f} dB"

    def quantized() -> None:
        whole = qir.quantize(graph, data=[[leaf.numpy() for leaf in leaves]])
        simulated = outputs(whole.simulator(), inputs)
        found.simulator = sqnr(expected, simulated)
        found.onnxruntime = sqnr(simulated, run(whole.onnx(), leaves))

    def trained() -> None:
        args, keywords = inputs
        simulator = QuantizationSimModel(graph, keywords or args)
        simulator.compute_encodings(lambda model, _: model(*deepcopy(args), **deepcopy(keywords)))
        found.quantsim = sqnr(expected, outputs(simulator.model, inputs))
        train(simulator, inputs)

    for stage, work in zip(STAGES, (as_float, quantized, trained), strict=True):
        _attempt(found, stage, work)
    return found


def train(simulator: QuantizationSimModel, inputs: tuple[Any, Any]) -> None:
    """Take a step of SGD, export."""
    args, keywords = inputs
    weights = [weight for weight in simulator.model.parameters() if weight.requires_grad]
    losses = [leaf.square().mean() for leaf in tensors(simulator.model(*deepcopy(args), **deepcopy(keywords)))
              if leaf.requires_grad]  # fmt: skip
    assert losses or not weights, "no output has a gradient"
    if losses and weights:
        sum(losses).backward()  # type: ignore[union-attr]
        torch.optim.SGD(weights, 1e-6).step()
    assert all(bool(weight.isfinite().all()) for weight in weights), "a weight is not finite after a step"
    with TemporaryDirectory() as folder:
        simulator.export(folder, "model")


def _attempt(found: Journey, stage: str, work: Callable[[], None]) -> None:
    try:
        with quiet():
            work()
    except Exception as error:  # of qir, of onnxruntime, of the model on its way
        found.failures[stage] = f"{stage}: {_reason(error)}"


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


def table(found: Sequence[Journey]) -> Table:
    """One row for every model."""
    made = Table("model", "importer", "opaque", "untyped", *STAGES, "QuantSim", "simulator", "onnxruntime", "why not",
                 title="models on their way to ONNX")  # fmt: skip
    for each in found:
        made.add_row(*each.row())
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when a prepared model fails later."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = chosen(parser, arguments)
    onnxruntime.set_default_logger_severity(4)
    found = []
    for entry in track(models.entries, "models"):
        found.append(journey(entry))
        print(" | ".join(found[-1].row()), flush=True)
        models.write(json.dumps([asdict(each) for each in found], indent=1))
    Console(width=200).print(table(found))
    prepared = [each for each in found if each.importer]
    failed = sum(bool(each.failures) for each in prepared)
    counts = ", ".join(f"{stage}: {sum(stage not in each.failures for each in prepared)}" for stage in STAGES)
    print(f"{len(prepared)} of {len(found)} models are prepared; of these {counts}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
