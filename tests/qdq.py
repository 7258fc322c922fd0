"""Builds graphs of one quantized operator, and runs them in onnxruntime and in the integer simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from qir import Graph, Pipeline, Value
from qir.api.quantize import PREPARE
from qir.backends.onnx_qdq import emit_onnx, executed_operators, session
from qir.backends.torch_module import emit_torch
from qir.types import TensorType
from qir.verify import verify

CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Transpose")


@dataclass
class OneOperator:
    """A graph whose inputs and output are 8-bit integers, with grids at random.

    `ties` makes every scale a power of two, so that many results lie in the middle between two integers.
    """

    random: np.random.Generator
    ties: bool = False
    graph: Graph = field(default_factory=lambda: Graph("one"))
    feeds: list[np.ndarray] = field(default_factory=list)
    scales: dict[Value, np.ndarray] = field(default_factory=dict)

    def scale(self, *shape: int, around: float = 0.05) -> np.ndarray:
        """Scales over two decades."""
        drawn = around * 10 ** self.random.uniform(-1, 1, shape)
        return np.asarray(2.0 ** np.round(np.log2(drawn)) if self.ties else drawn, np.float32)

    def input(self, *shape: int) -> Value:
        """A new input of random u8, dequantized."""
        self.feeds.append(self.random.integers(0, 256, shape, np.uint8))
        value = self.graph.input(f"x{len(self.feeds)}", TensorType("u8", shape))
        return self.read(value, self.scale(), self.random.integers(0, 256, (), np.uint8))

    def weight(self, *shape: int, axis: int | None = 0, dtype: Any = np.int8) -> Value:
        """A constant of random integers, dequantized per index of `axis`."""
        signed = dtype == np.int8
        data = self.random.integers(-127 if signed else 0, 128 if signed else 256, shape, dtype)
        scale = self.scale(*(() if axis is None else (shape[axis],)), around=0.01)
        zero = np.zeros(scale.shape, dtype) if signed else np.asarray(self.random.integers(0, 256), dtype)
        return self.read(self.graph.constant(data, "w"), scale, zero, axis)

    def bias(self, x: Value, weight: Value, size: int) -> Value:
        """A bias on the grid of the accumulator."""
        scale = np.asarray(self.scales[x] * self.scales[weight], np.float32)
        data = self.random.integers(-(2**14), 2**14, size, np.int32)
        return self.read(self.graph.constant(data, "b"), scale, np.zeros(scale.shape, np.int32), 0)

    def read(self, value: Value, scale: np.ndarray, zero: np.ndarray, axis: int | None = None) -> Value:
        """The value, dequantized."""
        operands = [value, self.graph.constant(scale, "scale"), self.graph.constant(np.asarray(zero), "zero")]
        attrs = {"axis": axis} if axis is not None and scale.ndim else {}
        result = self.graph.add("DequantizeLinear", operands, attrs).result
        self.scales[result] = scale
        return result

    def write(self, value: Value, scale: float | None = None, zero: int | None = None) -> None:
        """Make the value, quantized, an output."""
        grid = self.scale() if scale is None else np.asarray(scale, np.float32)
        if self.ties:
            grid = np.asarray(2.0 ** np.round(np.log2(grid)), np.float32)
        point = np.asarray(self.random.integers(0, 256) if zero is None else zero, np.uint8)
        operands = [value, self.graph.constant(grid, "scale"), self.graph.constant(point, "zero")]
        self.graph.outputs.append(self.graph.add("QuantizeLinear", operands).result)

    def write_in_range(self, value: Value, zero: int | None = None) -> None:
        """Make the value an output on a grid that its values fill, and leave a little at both ends."""
        self.graph.outputs.append(value)
        reach = float(np.abs(self.in_float()[-1]).max()) or 1.0
        self.graph.outputs.pop()
        self.write(value, reach / 120, zero)

    def in_float(self) -> list[np.ndarray]:
        """The outputs without any fusion."""
        return run(emit_onnx(self.graph), self.feeds, optimize=False)


def run(model: Any, feeds: Sequence[np.ndarray], *, optimize: bool = True) -> list[np.ndarray]:
    """The outputs of onnxruntime."""
    running = session(model, optimize=optimize)
    names = [entry.name for entry in running.get_inputs()]
    return list(running.run(None, dict(zip(names, feeds, strict=True))))


def compared(one: OneOperator) -> tuple[set[str], int, np.ndarray]:
    """The operators that onnxruntime ran, how many values the simulator has differently, and the values."""
    verify(one.graph)
    model = emit_onnx(one.graph)
    fused = Pipeline.parse(f"fuse-integer,{PREPARE}", given=one.graph).run(one.graph.copy())
    simulator = emit_torch(fused)
    with torch.no_grad():
        simulated = simulator(*map(torch.from_numpy, one.feeds)).numpy()
    (expected,) = run(model, one.feeds)
    operators = {executed.op for executed in executed_operators(model)} - set(CONVERSIONS)
    ours = {node.op.rpartition(".")[2] for node in fused.nodes()} - set(CONVERSIONS)
    assert ours == operators
    return operators, int((simulated != expected).sum()), expected
