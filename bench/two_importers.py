"""Prepares every model of a zoo by each of the two torch importers and compares the results.

    python -m bench.two_importers [--zoo FOLDER] [--json FILE] [MODEL ...]

The folder is one of `bench.zoo`. Compared are the paths and classes of modules, the keys of the state, the operators
of the graph, and outputs on fresh inputs. Models that one of the importers does not take are left out, and those that
take more than a minute of the processor. Exits with 1 when two results differ.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from bench.coverage import output
from bench.report import report
from bench.zoo import chosen
from qir.api.preparation import Preparation, preparation
from qir.api.same_outputs import Examples
from qir.errors import QirError
from qir.frontends.torch_program import quiet
from qir.progress import track
from tests.comparing import same

LIMIT = 60


@dataclass
class Compared:
    """What differs between two prepared modules of one model: each with the sign of the importer that has it."""

    name: str
    modules: list[str]
    state: list[str]
    operators: list[str]
    outputs: bool

    @property
    def equal(self) -> bool:
        """Whether nothing differs."""
        return self.outputs and not (self.modules or self.state or self.operators)


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Inside, work that takes more seconds of the processor raises TimeoutError."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"it takes longer than {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def difference(by_fx: Sequence[str], by_export: Sequence[str]) -> list[str]:
    """What one of both has more often: `-` of torch.fx, `+` of torch.export."""
    fx, export = Counter(by_fx), Counter(by_export)
    return [f"- {name}" for name in (fx - export).elements()] + [f"+ {name}" for name in (export - fx).elements()]


def modules(made: Preparation) -> list[str]:
    """Path and class of every module."""
    return [f"{path}: {type(module).__name__}" for path, module in made.module.named_modules()]


def operators(made: Preparation) -> list[str]:
    """The operators that compute."""
    return [node.op for node in made.graph.nodes() if node.module is not None]


def compared(entry: Any) -> Compared | str:
    """What differs, or why nothing can be compared."""
    try:
        with within(LIMIT):
            model, (args, keywords) = entry.build(), entry.inputs(7)
            if keywords:
                return "torch.fx takes no keyword arguments"
            by_fx, by_export = (preparation(model, Examples(args), importer=each) for each in ("fx", "export"))
            fresh = entry.inputs(8)
            outputs = same(output(by_fx.module, fresh), output(by_export.module, fresh))
    except (QirError, TimeoutError) as error:
        return str(error).splitlines()[0]
    return Compared(
        entry.name,
        difference(modules(by_fx), modules(by_export)),
        difference(list(by_fx.module.state_dict()), list(by_export.module.state_dict())),
        difference(operators(by_fx), operators(by_export)),
        outputs,
    )


def table(found: Sequence[Compared]) -> Table:
    """One row for every model whose results differ."""
    made = Table("model", "modules", "state", "operators", "outputs", title="results that differ")
    for each in found:
        if not each.equal:
            parts = ("\n".join(part[:8]) for part in (each.modules, each.state, each.operators))
            made.add_row(each.name, *parts, "equal" if each.outputs else "no")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 when both importers give one result for every model that both take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    models = chosen(parser, arguments)
    found: list[Compared] = []
    for entry in track(models.entries, "models"):
        with quiet():
            result = compared(entry)
        if isinstance(result, Compared):
            found.append(result)
    models.write(json.dumps([asdict(each) for each in found], indent=1))
    differ = [each.name for each in found if not each.equal]
    counted = f"{len(found) - len(differ)} of {len(found)} models that both importers take have one result"
    return report([table(found), counted], differ)


if __name__ == "__main__":
    sys.exit(main())
