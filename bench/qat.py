"""What a simulator costs beside its float model: building, calibrating, inference, a training step.

    python -m bench.qat [--device cpu] [--batch 8] [--threads 1] [--repeats 5] [--compiled] [MODEL ...]

Every time is taken in turns with that of the float model in the same run, and the median of the ratios is printed:
process CPU time on a CPU, which a busy machine disturbs least with one thread, and the clock on a GPU. Simulators are
built with a dummy input of one sample and calibrated on the batches that the float model runs; "by sample" is min-max
where `compute_encodings` is given the batches and runs their samples one by one. Tools that are not installed are left
out: each wants an environment of its own. Exits with 1 when qir misses a goal.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bench.qat_subjects import SUBJECTS, Build, Simulated, installed, models

GOALS = {"build s": 0.5, "calibrate": 1.2, "histograms": 1.5, "step": 1.35, "compiled step": 1.15}
"""The most that a measurement of qir with fixed encodings may be: seconds, and times the float model."""
BATCHES = 4


class Clock:
    """Measures work on one device."""

    def __init__(self, device: str, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def now(self) -> float:
        """The time, once the device has done all its work."""
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def seconds(self, work: Callable[[], Any]) -> float:
        """How long the work takes once."""
        start = self.now()
        work()
        return self.now() - start

    def ratio(self, work: Callable[[], Any], reference: Callable[[], Any]) -> float:
        """The median of the ratios of two works that take turns."""
        ratios = []
        for turn in range(self.repeats + 1):
            gc.collect()
            pair = self.seconds(reference), self.seconds(work)
            if turn:  # the first is for warming up
                ratios.append(pair[1] / pair[0])
        return median(ratios)


def step(module: nn.Module) -> Callable[[Tensor], None]:
    """One step of training a module, as a function of the batch."""
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-6)

    def run(batch: Tensor) -> None:
        optimizer.zero_grad()
        module(batch).square().mean().backward()
        optimizer.step()

    return run


def inference(module: nn.Module, batches: Sequence[Tensor]) -> Callable[[], None]:
    """Running a module on batches, without gradients."""

    def run() -> None:
        module.eval()
        with torch.no_grad():
            for batch in batches:
                module(batch)

    return run


def measured(
    build: Build, model: nn.Module, batches: Sequence[Tensor], clock: Clock, compiled: bool
) -> dict[str, float]:
    """All figures of one simulator beside `model`."""
    dummy, example = batches[0][:1], batches[0]
    built: list[Simulated] = []
    copies = [deepcopy(model).eval() for _ in range(4)]
    times = [clock.seconds(lambda copy=copy: built.append(build(copy, dummy, "min-max"))) for copy in copies[:3]]
    simulated, run_float = built[-1], inference(model, batches)
    found = {"quantizers": float(simulated.quantizers), "build s": median(times)}
    found["calibrate"] = clock.ratio(lambda: simulated.calibrate(batches), run_float)
    if simulated.by_sample is not None:
        by_sample = simulated.by_sample
        found["by sample"] = clock.ratio(lambda: by_sample(batches), run_float)
    found["infer"] = clock.ratio(inference(simulated.module, batches), run_float)
    try:
        other = build(copies[3], dummy, "histogram")
        found["histograms"] = clock.ratio(lambda: other.calibrate(batches), run_float)
    except NotImplementedError:
        pass
    mine, reference = step(simulated.module), step(deepcopy(model))
    found["step"] = clock.ratio(lambda: mine(example), lambda: reference(example))
    if compiled:
        mine, reference = (step(torch.compile(m)) for m in (deepcopy(simulated.module), deepcopy(model)))
        found["compiled step"] = clock.ratio(lambda: mine(example), lambda: reference(example))
    return found


COLUMNS = ("quantizers", "build s", "calibrate", "histograms", "by sample", "infer", "step", "compiled step")


def table_of(name: str, rows: dict[str, dict[str, float] | str]) -> Table:
    """One line for each simulator; figures past their goal are red."""
    table = Table("simulator", *COLUMNS, title=f"{name}: times the float model")
    for subject, row in rows.items():
        if isinstance(row, str):
            table.add_row(subject, row)
            continue
        cells = []
        for column in COLUMNS:
            figure = row.get(column)
            text = "" if figure is None else f"{figure:.0f}" if column == "quantizers" else f"{figure:.2f}"
            missed = figure is not None and subject == "qir" and figure > GOALS.get(column, figure)
            cells.append(f"[red]{text}[/]" if missed else text)
        table.add_row(subject, *cells)
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether qir keeps its goals."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", default=sorted(models()))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compiled", action="store_true", help="also compile the training step, which takes minutes")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("there is no GPU here: nothing is measured")
        return 0
    if unknown := set(options.models) - set(models()):
        parser.error(f"unknown models {', '.join(sorted(unknown))}; there are {', '.join(sorted(models()))}")
    torch.set_num_threads(options.threads)
    kept = True
    for name in options.models:
        torch.manual_seed(0)
        make, data = models()[name]
        model = make().to(options.device)
        batches = [data(options.batch).to(options.device) for _ in range(BATCHES)]
        rows: dict[str, dict[str, float] | str] = {}
        for subject, build in installed().items():
            try:
                rows[subject] = measured(
                    build, model, batches, Clock(options.device, options.repeats), options.compiled
                )
            except Exception as error:
                if subject in SUBJECTS:
                    raise
                rows[subject] = f"{type(error).__name__}: {error}"[:80]
        Console(width=120).print(table_of(name, rows))
        figures = rows["qir"]
        assert isinstance(figures, dict)
        kept &= all(figures.get(goal, 0) <= most for goal, most in GOALS.items())
    print("goals: " + ", ".join(f"{name} ≤ {most}" for name, most in GOALS.items()))
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
