"""The golden files of fuse-integer say what onnxruntime does, near misses included."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from qir import Graph, Pipeline, Value, parse
from qir.api.quantize import PREPARE
from qir.backends.onnx_qdq import emit_onnx, executed_operators
from qir.backends.torch_module import emit_torch
from qir.types import NUMPY
from tests.comparing import tensors
from tests.qdq import run

FILES = sorted((Path(__file__).parent / "golden").glob("fuse_*.qir"))
MOVES = ("QuantizeLinear", "DequantizeLinear", "Transpose")
INTEGERS = ("u8", "i8")


def before(path: Path) -> Graph:
    return parse(path.read_text().split("// ----\n")[1])


def drawn(value: Value, random: np.random.Generator) -> np.ndarray:
    integers = random.integers(0, 256, value.type.shape, np.uint8)
    return integers.view(NUMPY[value.type.dtype]) if value.type.dtype in INTEGERS else integers.astype(np.float32) / 99


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_onnxruntime_fuses_what_the_pass_fuses(path: Path) -> None:
    graph = before(path)
    fused = Pipeline.parse("fuse-integer", given=graph).run(graph.copy())
    ours = Counter(
        node.op.rpartition(".")[2]
        for node in fused.nodes()
        if node.result.type.dtype in INTEGERS or node.op.startswith("com.microsoft.")
    )
    theirs = Counter(
        executed.op.removeprefix("Nhwc") for executed in executed_operators(emit_onnx(graph)) if executed.integer
    )
    for name in MOVES:
        del ours[name], theirs[name]
    assert ours == theirs


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_what_is_fused_computes_what_onnxruntime_computes(path: Path) -> None:
    graph, random = before(path), np.random.default_rng(0)
    simulator = emit_torch(Pipeline.parse(f"fuse-integer,{PREPARE}", given=graph).run(graph.copy()))
    for _ in range(20):
        feeds = [drawn(value, random) for value in graph.inputs]
        outputs = tensors(simulator(*map(torch.from_numpy, feeds)))
        for mine, theirs in zip(outputs, run(emit_onnx(graph), feeds), strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs)
