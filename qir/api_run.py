"""Executing a run: from its model and data to the files that it writes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from qir.api import Quantized, fed, graph_to_quantize, quantization
from qir.api_summary import Both
from qir.batches import Batch, peeked
from qir.cli_files import graph_writers
from qir.cli_quantize import batches_for, model_of
from qir.encodings_apply import encodings_of
from qir.encodings_file import document_text, encodings_document
from qir.errors import QirError
from qir.files import write_all
from qir.graph import Graph
from qir.pipeline import Pass, Pipeline
from qir.recording import graph_hash
from qir.runs import JSON_KEY, METADATA, Run, in_page
from qir.sampling import Noted, Tally
from qir.targets import target as profile_of
from qir.versions import versions
from qir.watch import Watcher

SAMPLES = 4
"""How many samples reports are about: those with the lowest hashes, whatever the order of the data."""

Writer = Callable[[Path], object]


@dataclass(frozen=True)
class Executed:
    """A run that was executed: with all passes, versions and hashes, its graph, and the samples for reports."""

    run: Run
    quantized: Quantized
    samples: Sequence[np.ndarray] | None

    def write(self, folder: Path, outputs: Mapping[str, str] | None = None) -> list[Path]:
        """Write the outputs of the run into `folder`, or those of them that `outputs` names, whole or not at all.

        They are the same for every execution with the same inputs, seed and number of threads, but for `latency`.
        """
        names = dict(self.run.outputs if outputs is None else outputs)
        onnx = names.pop("onnx", None)
        writers: dict[Path, Writer] = {}
        for kind, name in names.items():
            writers.update(self._writers(kind, folder / name))
        write_all(writers)
        if onnx is not None:
            self.quantized.save(folder / onnx, self._metadata)
        return [folder / name for name in (self.run.outputs if outputs is None else outputs).values()]

    def _writers(self, kind: str, path: Path) -> dict[Path, Writer]:
        if kind == "graph":
            return graph_writers(_without_folders(self.quantized.graph), path)
        text = getattr(self, f"_{kind}")(path.name)
        return {path: lambda beside: beside.write_text(text)}

    @property
    def _metadata(self) -> dict[str, str]:
        return {METADATA: str(self.run)}

    @cached_property
    def _both(self) -> Both:
        return Both.of(self.quantized, self.quantized.onnx(self._metadata), self._batch)

    @cached_property
    def _certified(self) -> Any:
        from qir.certificate import certify

        shipped = self._both.shipped
        names = [value.name for value in shipped.graph.input]
        return certify(shipped, self.run.target, dict(zip(names, self._batch, strict=True)))

    @property
    def _batch(self) -> Sequence[np.ndarray]:
        if self.samples is None:
            raise QirError("reports need data", stage="run", help='write data = "images.npz"')
        return self.samples

    def _encodings(self, name: str) -> str:
        return document_text(encodings_document(encodings_of(self.quantized.graph), "1.0.0"))

    def _report(self, name: str) -> str:
        return json.dumps({**asdict(self._both.summary()), JSON_KEY: str(self.run)}, indent=1) + "\n"

    def _latency(self, name: str) -> str:
        return json.dumps({"speedup": self._both.speedup(), JSON_KEY: str(self.run)}, indent=1) + "\n"

    def _certificate(self, name: str) -> str:
        from qir.certificate_page import as_json

        return as_json(self._certified, self.run) + "\n"

    def _page(self, name: str) -> str:
        from qir.certificate_page import as_html

        return in_page(as_html(self._certified, self.run.outputs.get("onnx", name)), self.run)


def execute(run: Run, watch: Sequence[Watcher] = ()) -> Executed:
    """Run the passes of `run` on its model and data; files are looked for in the working folder.

    Random numbers are those of its seed, and the state of their generators is left as it was. The work is done with the
    threads that this process has: the last digits of float kernels, and so scales, may depend on their number. The
    command `qir run` executes in a process with one. Raises QirError when a hash that the run states is another one.
    """
    with _seeded(run.seed):
        model = model_of(run.model)
    data = None if run.data is None else _Data(run, model)
    graph = _begin(run, model, data)
    pipeline = _pipeline(run, graph)
    hashes = {"model": graph_hash(graph), **_files(run, pipeline)}
    _check_hashes(run, hashes)
    tally = Tally(graph.copy(), SAMPLES)
    if data is None:
        pipeline.run(graph, watch)
    else:
        noted = Noted(data, tally)
        pipeline = fed(pipeline, noted)
        pipeline.run(graph, watch)
        noted.read_through()
        hashes["data"] = tally.hash
        _check_hashes(run, hashes)
    passes = tuple(map(str, pipeline.passes))
    done = replace(run, passes=passes, versions=versions(), hashes=dict(sorted(hashes.items())))
    return Executed(done, Quantized(graph, profile_of(run.target), pipeline), None if data is None else tally.kept)


@dataclass(frozen=True)
class _Data:
    """The batches of a run for its model; a function draws the same random numbers each time."""

    run: Run
    model: Any

    def __iter__(self) -> Iterator[Batch]:
        with _seeded(self.run.seed):
            yield from batches_for(self.model, str(self.run.data))


def _begin(run: Run, model: Any, data: Iterable[Batch] | None) -> Graph:
    """The graph that the first pass is given."""
    if data is None and not isinstance(model, Graph):
        raise QirError(f"{run.model} is a torch module, which is imported with data", stage="run",
                       help='write data = "images.npz"')  # fmt: skip
    return graph_to_quantize(model, None, [] if data is None else peeked(data)[0])


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


def _check_hashes(run: Run, found: Mapping[str, str]) -> None:
    for name, wanted in run.hashes.items():
        if name in found and found[name] != wanted:
            what = run.model if name == "model" else run.data if name == "data" else name
            raise QirError(f"{what} is not what the run was made with", stage="run",
                           help=f"the run states the hash {wanted}, and it is {found[name]}")  # fmt: skip


def _without_folders(graph: Graph) -> Graph:
    """The graph with the user's files named without the folders of this machine."""
    plain = graph.copy()
    for node in plain.nodes():
        node.locs = tuple(
            replace(loc, file=Path(loc.file).name) if Path(loc.file).is_absolute() else loc for loc in node.locs
        )
    return plain


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
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
