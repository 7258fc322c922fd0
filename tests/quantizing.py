"""Quantized models, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import onnx
import torch
from torch import Tensor

import qir
from qir.backends.onnx_qdq import session
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
