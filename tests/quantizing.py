"""Quantized models, and what onnxruntime makes of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
import torch
from torch import Tensor

import qir
from qir.api.lint import lint
from qir.backends.onnx_qdq import executed_operators, session
from tests.comparing import tensors
from tests.model_table import Example


@cache
def quantized(example: Example) -> qir.Quantized:
    """The example, calibrated on random inputs."""
    inputs = [example.inputs(batch=4, seed=seed) for seed in range(20, 24)]
    return qir.quantize(example.model(), data=inputs)


def shipped(model: onnx.ModelProto, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """The outputs of onnxruntime, with all optimizations."""
    running = session(model)
    feeds = {entry.name: value.numpy() for entry, value in zip(running.get_inputs(), inputs, strict=True)}
    return list(running.run(None, feeds))


def simulated(module: torch.nn.Module, inputs: Sequence[Tensor]) -> list[np.ndarray]:
    """The outputs of a simulator."""
    with torch.no_grad():
        return [tensor.numpy() for tensor in tensors(module(*inputs))]


def equal_values(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> tuple[int, int]:
    """How many values of two lists of outputs are equal, and how many there are."""
    assert [array.shape for array in first] == [array.shape for array in second]
    return sum(int((a == b).sum()) for a, b in zip(first, second, strict=True)), sum(array.size for array in first)


CONTRACTIONS = {"QLinearConv": "Conv", "QGemm": "Gemm", "QLinearMatMul": "MatMul", "MatMulIntegerToFloat": "MatMul",
                "FusedMatMul": "MatMul", "DynamicQuantizeMatMul": "MatMul", "QLinearAdd": "Add", "QLinearMul": "Mul",
                "QLinearConcat": "Concat", "FusedConv": "Conv", "QLinearAveragePool": "AveragePool",
                "QLinearGlobalAveragePool": "GlobalAveragePool", "NhwcMaxPool": "MaxPool",
                "FusedGemm": "Gemm"}  # fmt: skip
"""What onnxruntime calls the operators that the linter has verdicts on, once it has fused them."""

Counts = Counter[tuple[str, bool]]
"""How many operators of each kind compute with integers, and how many in float."""


def linted(model: onnx.ModelProto, target: str = "ort-x86-vnni") -> Counts:
    """The verdicts of the linter."""
    wanted = set(CONTRACTIONS.values())
    found = lint(qir.import_model(model), target)
    return Counter((verdict.note.op, verdict.integer) for verdict in found if verdict.note.op in wanted)


def executed(model: onnx.ModelProto) -> Counts:
    """What onnxruntime runs after its optimizations."""
    named = [(CONTRACTIONS.get(each.op, each.op), each.integer) for each in executed_operators(model)]
    return Counter(each for each in named if each[0] in set(CONTRACTIONS.values()))


def disagreements(model: onnx.ModelProto, target: str = "ort-x86-vnni") -> list[str]:
    """Where the linter and onnxruntime count other numbers.

    In float only contractions and pooling have to agree: onnxruntime makes sums and products parts of larger kernels,
    as of a norm, and writes some functions with others.
    """
    ours, theirs = linted(model, target), executed(model)
    return [
        f"{op}, {'integers' if integer else 'float'}: {ours[op, integer]} by the linter, {theirs[op, integer]} run"
        for op, integer in sorted(ours | theirs)
        if ours[op, integer] != theirs[op, integer] and (integer or op not in ("Add", "Mul", "Concat"))
    ]
