"""Counts equal output values: emitted modules against their models, integer simulators against onnxruntime.

    python -m bench.parity [--seed N] [MODEL ...]

Exits with 1 when one value differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

import qir
from bench.report import report
from qir.backends.onnx_qdq import CONVERSIONS, executed_operators
from tests.comparing import same, same_state, tensors, train_step
from tests.model_table import Example
from tests.models import SMALL, TORCHVISION
from tests.quantizing import equal_values, quantized, shipped, simulated

Count = tuple[int, int]


@dataclass(frozen=True)
class Parity:
    """What was found for one model: how many are as they should be, of how many."""

    evaluation: Count
    training: Count
    state_is_equal: bool
    integer: Count
    operators: Count
    import_ratio: float

    @property
    def holds(self) -> bool:
        """Whether every value is equal. Operators in float are no mismatch."""
        counts = (self.evaluation, self.training, self.integer)
        return self.state_is_equal and all(equal == total > 0 for equal, total in counts)


def values(mine: Any, other: Any) -> Count:
    """How many values of two outputs are equal; none if they are arranged differently."""
    if not same(structure(mine), structure(other)):
        return 0, sum(tensor.numel() for tensor in tensors(other))
    return equal_values(*([tensor.detach().numpy() for tensor in tensors(part)] for part in (mine, other)))


def structure(output: Any) -> Any:
    """The output with its tensors emptied."""
    return tree_map(lambda leaf: leaf.new_empty(0) if isinstance(leaf, Tensor) else leaf, output)


def seconds(work: Callable[[], Any]) -> float:
    """The shortest of three runs."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measured(example: Example, seed: int) -> Parity:
    """Everything about one model, on inputs that no test has seen."""
    model = example.model()
    module = qir.prepare_model(model)
    inputs = example.inputs(batch=4, seed=seed)
    evaluation = values(module(*deepcopy(inputs)), model(*deepcopy(inputs)))
    ratio = seconds(lambda: qir.prepare_model(model)) / seconds(lambda: fx.symbolic_trace(model))
    trained: Sequence[nn.Module] = module, model
    training = values(*(train_step(each, inputs) for each in trained))
    quantization = quantized(example)
    shipping = quantization.onnx()
    integer = equal_values(simulated(quantization.simulator("integer"), inputs), shipped(shipping, inputs))
    running = [executed for executed in executed_operators(shipping) if executed.op not in CONVERSIONS]
    operators = sum(executed.integer for executed in running), len(running)
    return Parity(evaluation, training, same_state(module, model), integer, operators, ratio)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 when every value is equal."""
    examples = {name: example for name, example in {**SMALL, **TORCHVISION}.items() if example.is_cnn}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(examples))
    parser.add_argument("--seed", type=int, default=torch.seed() % 2**31, help="of the inputs (default: a new one)")
    given = parser.parse_args(arguments)
    if unknown := set(given.models) - set(examples):
        parser.error(f"no model is called {', '.join(sorted(unknown))}")
    columns = ("model", "emitted, eval", "emitted, train", "integer = onnxruntime", "integer operators", "import ÷ fx")
    table = Table(*columns, title=f"equal output values, seed {given.seed}")
    failed = []
    for name in given.models or examples:
        found = measured(examples[name], given.seed)
        counts = (found.evaluation, found.training, found.integer, found.operators)
        table.add_row(name, *(f"{equal} of {total}" for equal, total in counts), f"{found.import_ratio:.1f}")
        failed += [] if found.holds else [name]
    return report([table], failed)


if __name__ == "__main__":
    sys.exit(main())
