"""Quantized Keras models train inside Keras, and weights trained anywhere go back into the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import qir
from qir.api.keras import write_back
from qir.backends.onnx_qdq import session
from tests.keras_models import flat


def network(center: bool = True) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU()(layers.BatchNormalization(center=center, name="norm")(x))
    x = layers.MaxPooling2D()(layers.Add()([x, layers.DepthwiseConv2D(3, padding="same", name="depth")(x)]))
    model = keras.Model(image, layers.Dense(4, name="head")(layers.Flatten()(x)), name="network")
    random = np.random.default_rng(1)
    for variable in model.weights:
        shift = random.uniform(0.05, 0.3, variable.shape).astype("float32")
        variable.assign(variable + shift)
    return model


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 8, 8, 3)).astype("float32")


def quantized(model: keras.Model) -> qir.Quantized:
    return qir.quantize(model, data=[images(8, seed) for seed in range(3)])


def shipped(quantization: qir.Quantized, inputs: np.ndarray) -> np.ndarray:
    running = session(quantization.onnx())
    output: np.ndarray = running.run(None, {running.get_inputs()[0].name: inputs})[0]
    return output


def step(quantization: qir.Quantized) -> float:
    """A few steps of the grid of the outputs."""
    return 0.02 * float(np.abs(shipped(quantization, images(16, 9))).max())


def trained(simulator: keras.Model, epochs: int = 6) -> list[float]:
    simulator.compile(keras.optimizers.SGD(0.002), "mse")
    fitted = simulator.fit(images(16, 5), np.ones((16, 4), "float32"), epochs=epochs, shuffle=False, verbose=0)
    return [float(loss) for loss in fitted.history["loss"]]


def test_a_keras_simulator_computes_what_is_shipped() -> None:
    quantization = quantized(network())
    simulator = quantization.keras_simulator()
    (output,) = flat(simulator(images(4, 9)))
    assert np.abs(output - shipped(quantization, images(4, 9))).max() < step(quantization)
    assert {layer.function for layer in simulator.layers[1:]} >= {"onnx.qir.Quantize", "onnx.Conv"}


def test_a_keras_simulator_trains_and_ships_what_it_learned(tmp_path: Path) -> None:
    quantization = quantized(network())
    simulator = quantization.keras_simulator()
    before = np.abs(shipped(quantization, images(16, 5)) - 1).mean()
    losses = trained(simulator)
    assert losses[-1] < 0.7 * losses[0]
    after = quantization.with_weights(simulator)
    assert np.abs(shipped(after, images(16, 5)) - 1).mean() < 0.9 * before
    (output,) = flat(simulator(images(16, 9)))
    assert np.abs(output - shipped(after, images(16, 9))).max() < step(after)
    kinds = [[node.op for node in each.qdq_graph().nodes()] for each in (quantization, after)]
    assert kinds[0] == kinds[1]
    simulator.save(tmp_path / "qat.keras")
    loaded = keras.models.load_model(tmp_path / "qat.keras")
    assert np.array_equal(flat(loaded(images(4, 9)))[0], flat(simulator(images(4, 9)))[0])
    assert np.array_equal(shipped(quantization.with_weights(loaded), images(4, 9)), shipped(after, images(4, 9)))


@pytest.mark.parametrize("center", [True, False])
def test_weights_trained_in_keras_go_back_into_the_model(center: bool) -> None:
    model = network(center)
    quantization = quantized(model)
    simulator = quantization.keras_simulator()
    trained(simulator)
    write_back(quantization.with_weights(simulator).graph, model)
    exact = qir.Pipeline.parse("strip-quantizers").run(quantization.with_weights(simulator).graph.copy())
    compared(model, exact)


def test_weights_trained_in_torch_go_back_into_the_model() -> None:
    import torch

    model = network()
    quantization = quantized(model)
    simulator = quantization.simulator()
    optimizer = torch.optim.SGD(simulator.parameters(), 0.01)
    untrained = flat(model(images(4, 9)))[0]
    for _ in range(5):
        optimizer.zero_grad()
        (simulator(torch.from_numpy(images(16, 5))) - 1).square().mean().backward()
        optimizer.step()
    after = quantization.with_weights(simulator)
    write_back(after.graph, model)
    assert not np.allclose(flat(model(images(4, 9)))[0], untrained, atol=1e-3)
    compared(model, qir.Pipeline.parse("strip-quantizers").run(after.graph.copy()))


def compared(model: keras.Model, graph: qir.Graph) -> None:
    """Hold the model to what the graph computes without quantizers."""
    import torch

    from qir.backends.torch_module import emit_torch

    prepared = qir.Pipeline.parse("lift-functionals,unroll-modules").run(graph)
    expected = emit_torch(prepared)(torch.from_numpy(images(4, 9))).detach().numpy()
    assert np.allclose(flat(model(images(4, 9)))[0], expected, rtol=1e-4, atol=1e-4)


def test_gradients_pass_inside_of_the_grid_alone() -> None:
    from qir.backends.keras_operators import quantize

    class Grid(layers.Layer):
        def build(self, shape: Any) -> None:
            self.x = self.add_weight(shape=(5,), initializer="zeros", name="x")

        def call(self, factor: Any) -> Any:
            return factor * quantize(self.x, scale=np.float32(0.5), zero=np.float32(0), low=-2, high=2)

    grid = Grid()
    model = keras.Sequential([keras.Input((5,)), grid])
    grid.x.assign(np.array([-9, -1, 0.3, 1, 9], "float32"))
    assert flat(model(np.ones((1, 5), "float32")))[0].tolist() == [[-1, -1, 0.5, 1, 1]]
    model.compile(keras.optimizers.SGD(1.0), keras.losses.MeanAbsoluteError(reduction="sum"))
    model.fit(np.ones((1, 5), "float32"), np.full((1, 5), 9, "float32"), verbose=0)
    (now,) = flat(grid.x.value)
    assert (now != np.array([-9, -1, 0.3, 1, 9], "float32")).tolist() == [False, True, True, True, False]


def test_an_operator_that_keras_does_not_compute_is_named() -> None:
    x = keras.Input((6,))
    model = keras.Model(x, layers.Dense(2)(ops.cumsum(layers.Dense(4)(x), axis=1)))
    data = [np.random.default_rng(0).standard_normal((2, 6)).astype("float32")]
    with pytest.raises(qir.QirError, match="CumSum is not written in keras.ops") as caught:
        qir.quantize(model, data=data).keras_simulator()
    assert "quantized.simulator()" in (caught.value.help or "")


def test_a_module_without_the_weights_is_refused() -> None:
    import torch

    with pytest.raises(qir.QirError, match="has no weight of this graph"):
        quantized(network()).with_weights(torch.nn.Linear(2, 2))
