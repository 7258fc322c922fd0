"""What a run that was executed writes: files that say how they were made."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from qir.api.graph_files import graph_writers
from qir.api.quantize import Quantized
from qir.api.summary import Both, Summary
from qir.encodings.apply import encodings_of
from qir.encodings.file import document_text, encodings_document
from qir.errors import QirError
from qir.files import write_all
from qir.graph import Graph
from qir.runs.run import JSON_KEY, METADATA, Run, in_page

Writer = Callable[[Path], object]


@dataclass(frozen=True)
class Executed:
    """A run that was executed: with all passes, versions and hashes, its graph, and the samples for reports."""

    run: Run
    quantized: Quantized
    samples: Sequence[np.ndarray] | None

    def write(self, folder: Path, outputs: Mapping[str, str] | None = None) -> None:
        """Write the outputs of the run into `folder`, or those of them that `outputs` names, whole or not at all.

        They are the same for every execution with the same inputs, seed and number of threads, but for `latency`.
        """
        names = self.run.outputs if outputs is None else outputs
        writers: dict[Path, Writer] = {}
        for kind, name in names.items():
            if kind != "onnx":
                writers.update(self._writers(kind, folder / name))
        write_all(writers)
        if "onnx" in names:
            self.quantized.save(folder / names["onnx"], self._metadata)

    def _writers(self, kind: str, path: Path) -> dict[Path, Writer]:
        if kind == "graph":
            return graph_writers(_without_folders(self.quantized.graph), path)
        text = self._text(kind)
        return {path: lambda beside: beside.write_text(text)}

    def _text(self, kind: str) -> str:
        """What an output says, but for the graph and the ONNX file."""
        from qir.pages.certificate import as_html, as_json

        match kind:
            case "encodings":
                return document_text(encodings_document(encodings_of(self.quantized.graph), "1.0.0"))
            case "report":
                return self._json(asdict(self.summary))
            case "latency":
                return self._json({"speedup": self.speedup})
            case "certificate":
                return as_json(self._certified, self.run) + "\n"
            case _:
                return in_page(as_html(self._certified, self.run.outputs.get("onnx", self.run.model)), self.run)

    def _json(self, document: Mapping[str, Any]) -> str:
        return json.dumps({**document, JSON_KEY: str(self.run)}, indent=1) + "\n"

    @property
    def _metadata(self) -> dict[str, str]:
        return {METADATA: str(self.run)}

    @cached_property
    def summary(self) -> Summary:
        """The integer model beside the float model, on the samples."""
        return self._both.summary()

    @cached_property
    def speedup(self) -> float:
        """How many times as fast the integer model is on the samples; another number each time."""
        return self._both.speedup()

    @cached_property
    def _both(self) -> Both:
        return Both.of(self.quantized, self.quantized.onnx(self._metadata), self._batch)

    @cached_property
    def _certified(self) -> Any:
        from qir.api.certificate import certify

        shipped = self._both.shipped
        names = [value.name for value in shipped.graph.input]
        return certify(shipped, self.run.target, dict(zip(names, self._batch, strict=True)))

    @property
    def _batch(self) -> Sequence[np.ndarray]:
        if self.samples is None:
            raise QirError("reports need data", stage="run", help='write data = "images.npz"')
        return self.samples


def _without_folders(graph: Graph) -> Graph:
    """The graph with the user's files named without the folders of this machine."""
    plain = graph.copy()
    for node in plain.nodes():
        node.locs = tuple(
            replace(loc, file=Path(loc.file).name) if Path(loc.file).is_absolute() else loc for loc in node.locs
        )
    return plain
