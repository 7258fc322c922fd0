"""Every function and layer in the tables of Keras lowerings, against Keras and against ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import keras
import numpy as np
import pytest
import torch

import qir
from qir.backends.onnx_qdq import executor
from qir.backends.torch_module import emit_torch
from qir.frontends.keras_model import import_keras
from qir.graph import Graph
from qir.verify import verify
from tests.lowered_keras_layers import LAYERS
from tests.lowered_keras_ops import ACTIVATIONS, CALLS, Call, Fixed


class Calling(keras.Model):
    """A model of one call."""

    def __init__(self, function: Any, given: Call) -> None:
        super().__init__()
        self.function, self.given = function, given

    def call(self, inputs: Any) -> Any:
        tensors = iter(inputs)
        args, kwargs = keras.tree.map_structure(
            lambda leaf: next(tensors) if isinstance(leaf, np.ndarray) else leaf, (self.given.args, self.given.kwargs)
        )
        return self.function(*args, **kwargs)


def arrays_of(given: Call) -> list[np.ndarray]:
    return [leaf for leaf in keras.tree.flatten((given.args, given.kwargs)) if isinstance(leaf, np.ndarray)]


TORCH_ALONE = ("bincount-0", "convert_to_tensor-1", "rearrange-1", "MultiHeadAttention-1", "max_pool-0", "max_pool-2",
               "average_pool-0", "average_pool-2")  # fmt: skip
"""Calls that Keras refuses on other backends."""


def marks(label: str) -> list[Any]:
    """What a case is marked with: all but the first of a function or layer are slow together."""
    refused = label in TORCH_ALONE and keras.backend.backend() != "torch"
    alone = pytest.mark.skipif(refused, reason="Keras runs it on torch alone")
    return [alone] if label.endswith("-0") else [alone, pytest.mark.slow]


def cases() -> Iterator[Any]:
    for home, calls in ((keras.ops, CALLS), (keras.activations, ACTIVATIONS)):
        for name, given in calls.items():
            for number, each in enumerate(given):
                label = f"{home.__name__.rpartition('.')[2]}.{name}-{number}"
                function = attrgetter(name)(home)
                plain = home is keras.activations and len(each.args) == 1 and not each.kwargs
                target = keras.layers.Activation(function) if plain else function
                yield pytest.param(target, each, id=label, marks=marks(f"{name}-{number}"))


def compared(graph: Graph, inputs: list[np.ndarray], expected: list[np.ndarray]) -> None:
    """Hold the graph, run by torch and by onnxruntime, to what Keras returned."""
    verify(graph)
    opaque = [f"{node.op}: {node.why_opaque}" for node in graph.nodes() if node.definition.opaque]
    assert opaque == []
    twin = graph.copy()
    twin.signature = None
    qir.Pipeline.parse("lift-functionals,unroll-modules").run(twin)
    module = emit_torch(twin)
    found = keras.tree.flatten(module(*(torch.from_numpy(value.copy()) for value in inputs)))
    for value, wanted in zip(found, expected, strict=True):
        same(value.detach().numpy(), wanted, 1e-5)
    qir.Pipeline.parse("legalize-onnx").run(graph)
    for array, wanted in zip(executor(graph)(inputs), expected, strict=True):
        same(array, wanted, 2e-5)


def same(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    """Integers may be wider: torch sums in 64 bits, and Keras says int32 of places that torch has in 64."""
    assert found.dtype == wanted.dtype or {found.dtype.kind, wanted.dtype.kind} == {"i"}
    np.testing.assert_allclose(found.astype(wanted.dtype), wanted, rtol=tolerance, atol=tolerance / 4, strict=True)


def returned(result: Any) -> list[np.ndarray]:
    return [np.asarray(keras.ops.convert_to_numpy(leaf)) for leaf in keras.tree.flatten(result)]


@pytest.mark.parametrize(("function", "given"), list(cases()))
def test_call_means_the_same(function: Any, given: Call) -> None:
    arrays = arrays_of(given)
    inputs = [keras.Input(batch_shape=array.shape, dtype=str(array.dtype)) for array in arrays]
    args, kwargs = keras.tree.map_structure(
        lambda leaf: keras.ops.convert_to_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf,
        (given.args, given.kwargs),
    )
    expected = returned(function(*args, **kwargs))
    compared(import_keras(Calling(function, given), inputs), arrays, expected)


def layer_cases() -> Iterator[Any]:
    for name, given in LAYERS.items():
        for number, each in enumerate(given):
            yield pytest.param(name, *each, id=f"{name}-{number}", marks=marks(f"{name}-{number}"))


def randomized(model: keras.Model) -> None:
    """Give every weight numbers that differ, and variances positive ones."""
    random = np.random.default_rng(1)
    for variable in model.weights:
        if "float" in variable.dtype:
            array = random.normal(0, 0.5, variable.shape)
            variable.assign(np.abs(array) + 0.5 if "variance" in variable.path else array)


@pytest.mark.parametrize(("name", "options", "arrays", "call"), list(layer_cases()))
def test_layer_means_the_same(
    name: str, options: dict[str, Any], arrays: list[np.ndarray], call: dict[str, Any]
) -> None:
    given = {key: value.array if isinstance(value, Fixed) else value for key, value in call.items()}
    spread = given.pop("spread", False)
    layer = getattr(keras.layers, name)(**options)
    inputs = [keras.Input(batch_shape=array.shape, dtype=str(array.dtype)) for array in arrays]
    result = layer(*inputs, **given) if spread or len(inputs) == 1 else layer(inputs, **given)
    model = keras.Model(inputs, result)
    randomized(model)
    with torch.no_grad():
        expected = returned(model(arrays, training=False))
    compared(import_keras(model), arrays, expected)
