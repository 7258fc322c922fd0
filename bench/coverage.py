"""Prepares every model of a zoo and compares outputs, bit for bit, on inputs that the importer has not seen.

    python -m bench.coverage [--zoo FOLDER] [--json FILE] [MODEL ...]

The folder is one of `bench.zoo`.
Times are those of second calls. The column "× alone" is, for a model that torch.fx takes, preparing it without examples
against `torch.fx.symbolic_trace`; for others, preparing it against `torch.export.export` with sizes that are all fixed.
The column "× alike" is preparing such a model against `torch.export.export` with the sizes symbolic that qir asks for.
Exits with 1 when the outputs of a model that is not tagged `data_dependent` differ.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import fx, nn

from bench.report import report
from bench.zoo import chosen
from qir.api.preparation import Preparation, preparation
from qir.api.same_outputs import Examples
from qir.errors import QirError
from qir.frontends.torch_program import all_axes, dynamic_shapes, quiet
from qir.progress import track
from tests.comparing import same

DATA_DEPENDENT = "data_dependent"


@dataclass
class Coverage:
    """What was found for one model.

    `traced`, `exported` (sizes fixed) and `exported_alike` (sizes symbolic) are the times of torch.fx and torch.export
    without qir, `without_examples` that of preparing the model without comparing outputs, all of a second call. 0 is
    "it fails".
    """

    name: str
    source: str
    tags: list[str]
    importer: str = ""
    equal: bool = False
    lifted: int = 0
    unrolled: int = 0
    opaque: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    without_examples: float = 0.0
    traced: float = 0.0
    exported: float = 0.0
    exported_alike: float = 0.0
    error: str = ""

    @property
    def fails(self) -> bool:
        """Whether the outputs should be equal and are not."""
        return not self.equal and DATA_DEPENDENT not in self.tags

    def row(self) -> list[str]:
        """The cells of the table."""
        left = ", ".join(f"{count} {op.removeprefix('torch.')}" for op, count in self.opaque.items())
        alone, own = (
            (self.traced, self.without_examples) if self.importer == "torch.fx" else (self.exported, self.seconds)
        )
        times = f"{own / alone:.1f}" if alone else ""
        alike = f"{self.seconds / self.exported_alike:.1f}" if self.exported_alike else ""
        counts = [str(self.lifted), str(self.unrolled)] if self.importer else ["", ""]
        outcome = "equal" if self.equal else "no" if self.fails else "data"
        return [self.name, self.importer, outcome, *counts, f"{self.seconds:.2f}", times, alike,
                left or self.error]  # fmt: skip


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long it took, and what it returned. What others left for the garbage collector is not counted."""
    gc.collect()
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def second(work: Callable[[], Any]) -> float:
    """How long its second call takes, 0 when it fails."""
    with suppress(Exception):  # torch.fx takes no arguments that have a default, for example
        work()
        return timed(work)[0]
    return 0.0


def output(module: nn.Module, inputs: tuple[Any, dict[str, Any]]) -> Any:
    """What the module returns for copies of the inputs, drawing random numbers with the seed 0."""
    args, keywords = deepcopy(inputs)
    torch.manual_seed(0)
    with torch.no_grad():
        return module(*args, **keywords)


def measured(entry: Any) -> Coverage:
    """Everything about one model."""
    found = Coverage(entry.name, entry.source, list(entry.tags))
    model, (args, keywords) = entry.build(), entry.inputs(7)
    try:
        made = preparation(model, Examples(args, keywords))
        _describe(found, made)
        found.traced = second(lambda: fx.symbolic_trace(model))
        found.exported = second(lambda: torch.export.export(model, args, keywords, strict=False))
        if made.importer == "torch.export":
            sizes = dynamic_shapes(model, args, keywords, all_axes)
            alike = partial(torch.export.export, model, args, keywords, dynamic_shapes=sizes, strict=False)
            found.exported_alike = second(alike)
        found.without_examples = second(lambda: preparation(model, Examples()))
        found.seconds, _ = timed(lambda: preparation(model, Examples(args, keywords)))
        fresh = entry.inputs(8)
        found.equal = same(output(model, fresh), output(made.module, fresh))
        found.error = "" if found.equal else "other outputs on fresh inputs"
    except QirError as error:
        found.error = error.message
    except Exception as error:  # of the prepared module, on inputs that differ from those of the import
        found.error = f"{type(error).__name__}: {error}"
    return found


def _describe(found: Coverage, made: Preparation) -> None:
    found.importer, found.lifted, found.unrolled = made.importer, len(made.lifted), len(made.unrolled)
    found.opaque = dict(Counter(node.op for node in made.graph.nodes() if node.definition.opaque).most_common())


def table(found: Sequence[Coverage]) -> Table:
    """One row for every model."""
    columns = (
        "model",
        "importer",
        "outputs",
        "lifted",
        "unrolled",
        "seconds",
        "× alone",
        "× alike",
        "left opaque, or why not",
    )
    made = Table(*columns, title="prepared models")
    for coverage in found:
        made.add_row(*coverage.row())
    return made


def summary(found: Sequence[Coverage]) -> str:
    """The counts, in a line for each source."""
    lines = []
    for source in dict.fromkeys(coverage.source for coverage in found):
        group = [coverage for coverage in found if coverage.source == source]
        equal = sum(coverage.equal for coverage in group)
        taken = Counter(coverage.importer for coverage in group if coverage.importer)
        lines.append(f"{source}: {equal} of {len(group)} equal, {', '.join(f'{n} by {i}' for i, n in taken.items())}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 when every model that can be is bit-equal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = chosen(parser, arguments)
    preparation(nn.Linear(2, 2), Examples([torch.ones(1, 2)]), importer="export")  # what is loaded once is not timed
    found = []
    for entry in track(models.entries, "models"):
        with quiet():
            found.append(measured(entry))
    models.write(json.dumps([asdict(coverage) for coverage in found], indent=1))
    return report([table(found), summary(found)], (coverage.name for coverage in found if coverage.fails))


if __name__ == "__main__":
    sys.exit(main())
