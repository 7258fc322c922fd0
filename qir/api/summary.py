"""An integer model beside the float model that it was made from: sizes, signal to noise, speed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.api.lint import lint
from qir.api.quantize import Quantized
from qir.differences import decibels, signal_to_noise

if TYPE_CHECKING:
    import onnx

ROUNDS = 15
"""How often each of two models is timed."""


@dataclass(frozen=True)
class Summary:
    """An integer model beside its float model, on one batch, in onnxruntime on one thread.

    Sizes are bytes; `signal_to_noise` is in decibels for each output, None when nothing differs.
    """

    size: int
    float_size: int
    integer_operators: int
    float_operators: int
    signal_to_noise: dict[str, float | None]
    pipeline: str


@dataclass(frozen=True)
class Both:
    """A quantized graph, its file's model and the float model, and the arrays that both are run on."""

    quantized: Quantized
    shipped: onnx.ModelProto
    plain: onnx.ModelProto
    inputs: Sequence[np.ndarray]

    @classmethod
    def of(cls, quantized: Quantized, shipped: onnx.ModelProto, inputs: Sequence[np.ndarray]) -> Both:
        """Both models of a quantization of which `shipped` was written."""
        return cls(quantized, shipped, float_onnx(quantized), inputs)

    def summary(self) -> Summary:
        """What the integer model costs and computes."""
        verdicts = lint(self.quantized.graph, self.quantized.target.source)
        names = [value.name for value in self.shipped.graph.output]
        ours, theirs = (running.run(None, fed) for running, fed in self._sessions())
        ratios = {name: signal_to_noise(a, b) for name, a, b in zip(names, ours, theirs, strict=True)}
        return Summary(
            size=self.shipped.ByteSize(),
            float_size=self.plain.ByteSize(),
            integer_operators=sum(verdict.integer for verdict in verdicts),
            float_operators=sum(not verdict.integer for verdict in verdicts),
            signal_to_noise={name: None if ratio is None else round(ratio, 2) for name, ratio in ratios.items()},
            pipeline=str(self.quantized.pipeline),
        )

    def speedup(self) -> float:
        """The median of paired times of the float model over the integer model."""
        running, ratios = self._sessions(), []
        for _ in range(ROUNDS):
            seconds = []
            for each, fed in running:
                started = time.perf_counter()
                each.run(None, fed)
                seconds.append(time.perf_counter() - started)
            ratios.append(seconds[0] / seconds[1])
        return round(float(np.median(ratios)), 2)

    def _sessions(self) -> list[tuple[Any, dict[str, np.ndarray]]]:
        """The float model and the integer model, each with what it is fed."""
        from qir.backends.onnx_qdq import session

        running = [session(self.plain), session(self.shipped)]
        return [
            (each, dict(zip((entry.name for entry in each.get_inputs()), self.inputs, strict=True))) for each in running
        ]


def float_onnx(quantized: Quantized) -> onnx.ModelProto:
    """The model that was quantized, without its quantizers."""
    from qir.backends.onnx_qdq import emit_onnx
    from qir.encodings.tensor_names import float_model

    opset = quantized.target.opset
    return emit_onnx(float_model(quantized.graph, opset).graph, opset=opset, ir_version=quantized.target.ir_version)


def as_text(summary: Summary, output: Path) -> Iterator[str]:
    """The summary as a table."""
    total = summary.integer_operators + summary.float_operators
    yield f"{output}: {summary.size:,} bytes, the float model {summary.float_size:,}"
    yield f"  {'operators on integers':28}{summary.integer_operators} of {total}"
    for name, ratio in islice(summary.signal_to_noise.items(), 10):
        yield f"  {'signal to noise of ' + name:28}{decibels(ratio)}"


def speed_as_text(speedup: float) -> str:
    """The last line of the table."""
    return f"  {'speed against float':28}{speedup:.2f} times, onnxruntime on one thread"
