"""Stacks of recurrent Keras layers, whose steps are written one by one, quantize, run and ship."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import onnxruntime
import pytest
import torch
from keras import layers

import qir

STEP = 0.03
"""More than the coarsest grid of these models rounds by."""
MODELS: dict[str, Callable[[], keras.Model]] = {
    "stack": lambda: keras.Sequential([
        keras.Input((5, 6)), layers.GRU(4, return_sequences=True), layers.GRU(4, reset_after=False), layers.Dense(3),
    ]),
    "masked": lambda: keras.Sequential([
        keras.Input((5, 6)), layers.Masking(), layers.Bidirectional(layers.LSTM(4)), layers.Dense(3),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_the_steps_run_and_ship(name: str) -> None:
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    x = np.random.default_rng(0).normal(size=(3, 5, 6)).astype("float32")
    x[1, 3:] = 0
    expected = keras.ops.convert_to_numpy(model(x))
    quantized = qir.quantize(model, data=[x, x + 0.1])
    run = onnxruntime.InferenceSession(quantized.onnx().SerializeToString())
    shipped = run.run(None, {run.get_inputs()[0].name: x})[0]
    given = torch.from_numpy(x)
    assert np.abs(quantized.simulator("integer")(given).detach().numpy() - shipped).max() <= 1e-6
    assert np.abs(quantized.simulator("float")(given).detach().numpy() - shipped).max() < STEP
    assert np.abs(shipped - expected).max() < STEP
