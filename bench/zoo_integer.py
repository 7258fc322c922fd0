"""Compares what is simulated with what runs, for every model of a zoo: output values, and operators on integers.

    python -m bench.zoo_integer [--zoo FOLDER] [--json FILE] [MODEL ...]

The folder is one of `bench.zoo`; models are quantized for ort-x86-vnni on one batch. "Differ" counts the output values
in which onnxruntime, on another batch, differs from the simulator in integer mode. They may where operators in float
stand in between ("in float"), and nowhere else. "Linter" says whether `qir lint` counts as many operators of each kind
on integers and in float as onnxruntime's optimized graph has. Exits with 1 when values differ in a model without
operators in float, or a count does.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

import qir
from bench.zoo import chosen
from bench.zoo_onnx import outputs, run, tensors
from qir.api.preparation import preparation
from qir.api.same_outputs import Examples
from qir.backends.onnx_qdq import CONVERSIONS, executed_operators
from qir.frontends.torch_program import quiet
from qir.progress import track
from tests.quantizing import disagreements


@dataclass
class Agreement:
    """What was found for one model; `failure` has the first line of the error that ended it."""

    name: str
    differing: int = 0
    values: int = 0
    integer: int = 0
    floating: int = 0
    disagreements: list[str] = field(default_factory=list)
    failure: str = ""

    @property
    def broken(self) -> bool:
        """Whether something differs that must not."""
        return bool(self.disagreements) or (self.differing > 0 and self.floating == 0)

    def row(self) -> list[str]:
        """The cells of the table."""
        if self.failure:
            return [self.name, "", "", "", "", self.failure]
        linter = "; ".join(self.disagreements) or "agrees"
        return [self.name, f"{self.differing} of {self.values}", str(self.integer), str(self.floating),
                "BROKEN" if self.broken else "", linter]  # fmt: skip


def agreement(entry: Any) -> Agreement:
    """Everything about one model."""
    found = Agreement(entry.name)
    given, other = entry.inputs(7), entry.inputs(8)
    try:
        with quiet():
            graph = preparation(entry.build().eval(), Examples(*given)).graph
            quantized = qir.quantize(graph, data=[[leaf.numpy() for leaf in tensors(given)]])
            model = quantized.onnx()
            simulated, actual = outputs(quantized.simulator("integer"), other), run(model, tensors(other))
    except Exception as error:  # of qir, of onnxruntime, of the model on its way: bench.zoo_onnx is about those
        found.failure = (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
        return found
    pairs = [(mine, theirs) for mine, theirs in zip(simulated, actual, strict=True) if mine.shape == theirs.shape]
    found.values = sum(mine.size for mine, _ in pairs)
    found.differing = sum(int((~np.isclose(*pair, rtol=0, atol=0, equal_nan=True)).sum()) for pair in pairs)
    running = [executed for executed in executed_operators(model) if executed.op not in CONVERSIONS]
    found.integer = sum(executed.integer for executed in running)
    found.floating = len(running) - found.integer
    found.disagreements = disagreements(model)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 when something differs that must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = chosen(parser, arguments)
    onnxruntime.set_default_logger_severity(4)
    found = []
    table = Table("model", "differ", "on integers", "in float", "", "linter", title="simulated and run")
    for entry in track(models.entries, "models"):
        found.append(agreement(entry))
        print(" | ".join(found[-1].row()), flush=True)
        table.add_row(*found[-1].row())
        models.write(json.dumps([asdict(each) for each in found], indent=1))
    Console(width=160).print(table)
    whole = [each for each in found if not each.failure]
    exact = sum(each.differing == 0 for each in whole)
    print(f"{len(whole)} of {len(found)} models are quantized; {exact} are equal in all values")
    return 1 if any(each.broken for each in whole) else 0


if __name__ == "__main__":
    sys.exit(main())
