"""Executing a run: from its model and data to a calibrated graph."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from qir.api.quantize import fed, graph_to_quantize, quantization, transformed
from qir.batches import Batch, peeked
from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pass, Pipeline
from qir.runs.artefacts import Executed
from qir.runs.inputs import batches_for, model_of
from qir.runs.recording import graph_hash
from qir.runs.run import Run
from qir.runs.sampling import Noted, Tally
from qir.runs.versions import versions
from qir.watch import Watcher

SAMPLES = 4
"""How many samples reports are about: those with the lowest hashes, whatever the order of the data."""


def execute(run: Run, watch: Sequence[Watcher] = ()) -> Executed:
    """Run the passes of `run` on its model and data; files are looked for in the working folder.

    Random numbers are those of its seed, and the state of their generators is left as it was. The work is done with the
    threads that this process has, and the result says how many: the last digits of float kernels, and so scales, may
    depend on their number. The command `qir run` executes in a process that has those of the run. Raises QirError when
    a hash that the run states is another one.
    """
    begun = begin(run)
    with seeded(run.seed):
        quantized = transformed(begun.graph, begun.pipeline, run.target, watch)
    passes, hashes = tuple(map(str, begun.pipeline.passes)), dict(begun.hashes)
    if begun.data is not None:
        begun.data.read_through()
        hashes["data"] = begun.data.tally.hash
        check_hashes(run, hashes)
    done = replace(run, passes=passes, threads=_threads(), versions=versions(), hashes=dict(sorted(hashes.items())))
    return Executed(done, quantized, None if begun.data is None else begun.data.tally.kept)


@dataclass(frozen=True)
class Begun:
    """A run before its first pass: the graph, the passes with their data, and the hashes of model and files."""

    graph: Graph
    pipeline: Pipeline
    data: Noted | None
    hashes: Mapping[str, str]


def begin(run: Run) -> Begun:
    """Read what a run names. Raises QirError for what can not be read, and for hashes other than those of the run."""
    with seeded(run.seed):
        model = model_of(run.model)
    batches = None if run.data is None else _Data(run, model)
    if batches is None and not isinstance(model, Graph):
        raise QirError(f"{run.model} is a torch module, which is imported with data", stage="run",
                       help='write data = "images.npz"')  # fmt: skip
    graph = graph_to_quantize(model, None, [] if batches is None else peeked(batches)[0])
    pipeline = _pipeline(run, graph)
    hashes = {"model": graph_hash(graph), **_files(run, pipeline)}
    check_hashes(run, hashes)
    if batches is None:
        return Begun(graph, pipeline, None, hashes)
    data = Noted(batches, Tally(graph.copy(), SAMPLES))
    return Begun(graph, fed(pipeline, data), data, hashes)


def _threads() -> int:
    """How many threads the float kernels of this process have."""
    if find_spec("torch"):
        import torch

        return torch.get_num_threads()
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


@dataclass(frozen=True)
class _Data:
    """The batches of a run for its model; a function draws the same random numbers each time."""

    run: Run
    model: Any

    def __iter__(self) -> Iterator[Batch]:
        with seeded(self.run.seed):
            yield from batches_for(self.model, str(self.run.data))


def _pipeline(run: Run, graph: Graph) -> Pipeline:
    """The passes of a run. Those that take a target have the run's, unless they name one, or a config."""
    if run.passes is None:
        return quantization(run.target)

    def aimed(step: Pass) -> Pass:
        defaults = {option.name: option.default for option in fields(step)}
        open = "target" in defaults and getattr(step, "target", None) == defaults["target"]
        return replace(step, **{"target": run.target}) if open and getattr(step, "config", None) is None else step

    read = Pipeline.parse(",".join(run.passes), given=graph)
    return Pipeline.of(*map(aimed, read.passes), given=graph)


def _files(run: Run, pipeline: Pipeline) -> dict[str, str]:
    """The hashes of the files and folders that the target and options of the passes name."""
    given = [run.target, *(getattr(step, option.name) for step in pipeline.passes for option in fields(step))]
    found = {text: Path(text) for text in given if isinstance(text, str | Path) and text and Path(text).exists()}
    return {str(text): _hash(path) for text, path in found.items()}


def _hash(path: Path) -> str:
    """The hash of a file, or of the names and contents of the files of a folder."""
    files = sorted(inner for inner in path.iterdir() if inner.is_file()) if path.is_dir() else [path]
    hasher = hashlib.sha256()
    for file in files:
        hasher.update(b"" if file == path else f"{file.name}\0".encode())
        hasher.update(hashlib.sha256(file.read_bytes()).digest())
    return hasher.hexdigest()


def check_hashes(run: Run, found: Mapping[str, str]) -> None:
    """Raise QirError when the run states another hash than the one found."""
    for name, wanted in run.hashes.items():
        if name in found and found[name] != wanted:
            what = run.model if name == "model" else run.data if name == "data" else name
            raise QirError(f"{what} is not what the run was made with", stage="run",
                           help=f"the run states the hash {wanted}, and it is {found[name]}")  # fmt: skip


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Generators of random numbers that begin with `seed`, and are put back as they were afterwards."""
    python, legacy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        if find_spec("torch"):
            import torch

            stack.enter_context(torch.random.fork_rng(devices=[]))
            torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
