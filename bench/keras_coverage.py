"""Prepares, quantizes and exports every Keras model of a zoo, and compares outputs at every step.

    python -m bench.keras_coverage [--zoo FOLDER] [--json FILE] [MODEL ...]

The folder has `keras_zoo.py`, whose `ZOO` is like that of `bench.zoo`; all other models of `keras.applications`, at the
smallest sizes that they take, are `app_<name>`. Every model runs in a process of its own, on the backend that
KERAS_BACKEND names (default: torch). `prepared` is the largest difference from the model, in inference; `layers` counts
those of the prepared model, `functions` those of them that are functions of `keras.ops`; `opaque` the calls that stay
Keras's own in the graph, `float` the largest difference of the graph, run by torch, in parts of the largest value.
`simulator` is that of the integer simulator from onnxruntime, and `integer` the number of equal values: all, where no
float operator stands before the outputs. Exits with 1 when a step of a model fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.table import Table

from bench.report import report

SIZES = {"NASNetMobile": 64, "NASNetLarge": 64, "InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 75}
"""The sides of images, where 32 are too few."""


@dataclass
class Coverage:
    """What was found for one model; `prepared` and `float` are negative where the step was not reached."""

    name: str
    prepared: float = -1.0
    layers: int = 0
    functions: int = 0
    opaque: int = 0
    float: float = -1.0
    apart: float = -1.0
    equal: int = 0
    values: int = 0
    seconds: float = 0.0
    error: str = ""

    def row(self) -> list[str]:
        """The cells of the table."""
        found = self.prepared, self.float, self.apart
        differences = ["" if value < 0 else "equal" if value == 0 else f"{value:.0e}" for value in found]
        counts = [str(self.layers), str(self.functions), str(self.opaque)]
        integer = f"{self.equal} of {self.values}" if self.values else ""
        return [self.name, differences[0], *counts, *differences[1:], integer, f"{self.seconds:.0f} s", self.error]


def models(folder: Path) -> dict[str, tuple[Callable[[], Any], Callable[[int], Any]]]:
    """How each model is built, and its inputs for a number."""
    sys.path.insert(0, str(folder))
    zoo = import_module("keras_zoo")
    found = {name: (entry.build, entry.inputs) for name, entry in zoo.ZOO.items()}
    for name in dir(zoo.keras.applications):
        if name[0].isupper() and f"app_{name.lower()}" not in found:
            found[f"app_{name.lower()}"] = _application(zoo, name)
    return found


def _application(zoo: Any, name: str) -> tuple[Callable[[], Any], Callable[[int], Any]]:
    side = SIZES.get(name, 32)
    shape = (side, side, 3)

    def build() -> Any:
        zoo.keras.utils.set_random_seed(0)
        model = getattr(zoo.keras.applications, name)(weights=None, input_shape=shape, classes=10)
        zoo.randomize(model, 0)
        return model

    return build, lambda seed: zoo.np.random.RandomState(seed).randn(1, *shape).astype("float32")


def measured(name: str, folder: Path) -> Coverage:
    """Everything about one model; what goes wrong is its `error`."""
    build, inputs = models(folder)[name]
    found, begun = Coverage(name), time.perf_counter()
    try:
        model = build()
        _prepare(found, model, inputs)
        _quantize(found, model, inputs)
    except Exception as error:  # whatever a model or a step raises is what the table shows
        found.error = f"{type(error).__name__}: {error}".splitlines()[0][:100]
    found.seconds = time.perf_counter() - begun
    return found


def _prepare(found: Coverage, model: Any, inputs: Callable[[int], Any]) -> None:
    import numpy as np

    import qir

    prepared = qir.prepare_model(model)
    found.layers = len(prepared.layers)
    found.functions = sum(hasattr(layer, "function") for layer in prepared.layers)
    pairs = zip(_flat(model(inputs(5), training=False)), _flat(prepared(inputs(5), training=False)), strict=True)
    found.prepared = max(float(np.max(np.abs(one - other))) for one, other in pairs)


def _quantize(found: Coverage, model: Any, inputs: Callable[[int], Any]) -> None:
    import keras
    import torch

    import qir
    from qir.api.preparation import PREPARE
    from qir.backends.torch_module import emit_torch
    from tests.quantizing import equal_values, shipped, simulated

    torch.set_num_threads(1)
    graph = qir.import_model(model)
    found.opaque = sum(node.definition.opaque for node in graph.nodes())
    arrays = [list(keras.tree.flatten(inputs(seed))) for seed in range(4)]
    tensors = [torch.from_numpy(part) for part in arrays[3]]
    twin = qir.Pipeline.parse(PREPARE).run(graph.copy())
    expected = _flat(model(inputs(3), training=False))
    actual = [part.detach().numpy() for part in keras.tree.flatten(emit_torch(twin)(*tensors))]
    found.float = _largest(expected, actual)
    quantized = qir.quantize(graph, data=[part if len(part) > 1 else part[0] for part in arrays[:3]])
    ran = simulated(quantized.simulator("integer"), tensors), shipped(quantized.onnx(), tensors)
    found.equal, found.values = equal_values(*ran)
    found.apart = _largest(*ran)


def _largest(expected: Sequence[Any], actual: Sequence[Any]) -> float:
    """The largest difference, in parts of the largest value."""
    return max(float(abs(a - b).max() / max(abs(a).max(), 1e-9)) for a, b in zip(expected, actual, strict=True))


def _flat(outputs: Any) -> list[Any]:
    import keras

    return [keras.ops.convert_to_numpy(part) for part in keras.tree.flatten(outputs)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 when every model comes through."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names in the zoo (default: all)")
    parser.add_argument("--zoo", type=Path, default=Path("../shared/zoo"), help="its folder (default: ../shared/zoo)")
    parser.add_argument("--json", type=Path, help="where to write what the table shows")
    parser.add_argument("--one", action="store_true", help="measure one model in this process and print its figures")
    given = parser.parse_args(arguments)
    if given.one:
        print(json.dumps(asdict(measured(given.models[0], given.zoo))))
        return 0
    columns = ("model", "prepared", "layers", "functions", "opaque", "float", "simulator", "integer", "time", "error")
    table = Table(*columns)
    rows = [_apart(name, given.zoo) for name in given.models or models(given.zoo)]
    for row in rows:
        table.add_row(*row.row())
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return report([table], (row.name for row in rows if row.error))


def _apart(name: str, zoo: Path) -> Coverage:
    """The figures of one model, measured in a process of its own."""
    command = [sys.executable, "-m", "bench.keras_coverage", "--one", "--zoo", str(zoo), name]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    found = Coverage(**json.loads(lines[-1])) if lines else Coverage(name, error=done.stderr[-100:])
    print(" | ".join(found.row()), file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
