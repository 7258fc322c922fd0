"""A Keras model and its torch twin become one graph, with the same quantizers, encodings and ONNX operators."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from keras import layers as L
from torch import Tensor, nn

import qir
from qir.graph import Graph
from qir.types import TensorType


class Excite(nn.Module):
    """A squeeze-excite block."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True)))))


class Cnn(nn.Module):
    """Convolutions with a batch norm, a squeeze-excite block, a residual sum, pooling, a flattened linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8, eps=1e-3, momentum=0.01)
        self.body, self.excite = nn.Conv2d(8, 8, 3, padding=1), Excite(8)
        self.depth, self.head = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Linear(16 * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.norm(self.stem(x))), 2)
        x = torch.relu(self.excite(self.body(x)) + x)
        x = torch.cat([F.avg_pool2d(torch.relu(self.depth(x)), 2), F.max_pool2d(x, 2)], 1)
        return self.head(x.flatten(1))


def keras_cnn() -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = L.BatchNormalization(name="norm")(L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(inputs))
    x = L.MaxPooling2D()(L.ReLU()(x))
    y = L.Conv2D(8, 3, padding="same", name="body")(x)
    squeezed = L.GlobalAveragePooling2D(keepdims=True)(y)
    gate = L.Conv2D(8, 1, name="excite_up")(L.Conv2D(4, 1, activation="relu", name="excite_down")(squeezed))
    x = L.Activation("relu")(L.Add()([L.Multiply()([y, L.Activation("sigmoid")(gate)]), x]))
    z = L.DepthwiseConv2D(3, padding="same", activation="relu", name="depth")(x)
    x = L.Concatenate()([L.AveragePooling2D(2)(z), L.MaxPooling2D(2)(x)])
    return keras.Model(inputs, L.Dense(10, name="head")(L.Flatten()(x)))


class Mlp(nn.Module):
    """Linear layers and activations."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.a(x))
        return self.c(F.gelu(self.b(x)) + x)


def keras_mlp() -> keras.Model:
    inputs = keras.Input((16,))
    x = L.Dense(32, activation="relu", name="a")(inputs)
    return keras.Model(inputs, L.Dense(4, name="c")(L.Add()([L.Dense(32, activation="gelu", name="b")(x), x])))


class Transformer(nn.Module):
    """A block of attention with two heads and a feed-forward layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(8, eps=1e-3), nn.LayerNorm(8, eps=1e-3)
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        q, k, v = (f(y).reshape(-1, 6, 2, 4).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(q, k, v, scale=0.5).transpose(1, 2)
        x = x + self.out(y.reshape(-1, 6, 8))
        return x + self.down(torch.relu(self.up(self.second(x))))


def keras_transformer() -> keras.Model:
    inputs = keras.Input((6, 8))
    y = L.LayerNormalization(name="first")(inputs)
    q, k, v = (L.Reshape((6, 2, 4))(L.Dense(8, name=name)(y)) for name in ("query", "key", "value"))
    y = keras.ops.dot_product_attention(q, k, v, scale=0.5)
    x = L.Add()([inputs, L.Dense(8, name="out")(L.Reshape((6, 8))(y))])
    z = L.Dense(16, activation="relu", name="up")(L.LayerNormalization(name="second")(x))
    return keras.Model(inputs, L.Add()([x, L.Dense(8, name="down")(z)]))


def copied(module: nn.Module, model: keras.Model) -> None:
    """Give the torch module random weights, and the Keras model the same in its own order."""
    for name, layer in module.named_modules():
        own = [value for value in vars(layer)["_parameters"].values() if value is not None]
        if not own:
            continue
        for value in own:
            nn.init.normal_(value, std=0.3)
        twin = model.get_layer(name.replace(".", "_"))
        weight = own[0].detach()
        if isinstance(layer, nn.Conv2d):
            weight = weight.permute(2, 3, 0, 1) if layer.groups > 1 else weight.permute(2, 3, 1, 0)
        elif isinstance(layer, nn.Linear):
            sizes = (-1, 16, 4, 4) if weight.shape[1] == 256 else weight.shape
            weight = weight.reshape(sizes).movedim((0, 1), (-1, -2)).reshape(weight.shape[::-1])
        rest = [value.detach() for value in own[1:]]
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(), layer.running_var.uniform_(0.5, 1.5)  # type: ignore
            rest += [layer.running_mean, layer.running_var]  # type: ignore
        twin.set_weights([value.numpy() for value in (weight, *rest)])


def anonymous(graph: Graph) -> str:
    """The text of the graph without names, lines and sizes, its inputs with channels first."""
    graph = graph.copy()
    for value in graph.inputs:
        for node in {use.node for use in value.uses}:
            if node.op == "Transpose":
                value.type = node.result.type
                graph.replace(node.result, value)
                graph.erase(node)
    for value in graph.weights():
        if not value.uses:
            graph.remove_weight(value)
    nodes, weights = graph.nodes(), graph.weights()
    for node in nodes:
        node.module, node.locs, node.order = None, (), None
    for value in [*graph.inputs, *(result for node in nodes for result in node.results)]:
        value.hint = "v"
        value.type = TensorType(value.type.dtype)
    for number, value in enumerate(weights):
        assert value.weight is not None
        value.hint = "w"
        paths = (f"w{number}",) if value.weight.paths else ()
        value.weight = replace(value.weight, paths=paths, trainable=False, persistent=True)
    graph.name, graph.signature = "twin", None
    return str(graph)


def rounded(text: str) -> str:
    """The text with scales to six digits: torch's convolutions round otherwise where channels lie behind."""
    return re.sub(r"\d+\.\d+(e-\d+)?", lambda match: f"{float(match[0]):.6g}", text)


CASES: dict[str, tuple[Callable[[], keras.Model], type[nn.Module], tuple[int, ...]]] = {
    "cnn": (keras_cnn, Cnn, (1, 3, 16, 16)),
    "mlp": (keras_mlp, Mlp, (1, 16)),
    "transformer": (keras_transformer, Transformer, (1, 6, 8)),
}


def twins(name: str) -> tuple[keras.Model, nn.Module, np.ndarray]:
    make, kind, shape = CASES[name]
    torch.manual_seed(0)
    module, model = kind().eval(), make()
    copied(module, model)
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    return model, module, x


def as_keras(x: np.ndarray) -> np.ndarray:
    """An image batch with its channels last."""
    return np.ascontiguousarray(np.moveaxis(x, -3, -1)) if x.ndim == 4 else x


@pytest.mark.parametrize("name", CASES)
def test_twins_are_one_graph(name: str) -> None:
    model, module, x = twins(name)
    with torch.no_grad():
        expected = module(torch.from_numpy(x[0])).numpy()
    found = keras.ops.convert_to_numpy(model(as_keras(x[0]), training=False))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    graphs = qir.import_model(model), qir.import_model(module, [torch.from_numpy(x[0])])
    ours, theirs = (qir.Pipeline.parse("legalize-onnx").run(graph) for graph in graphs)
    assert anonymous(ours) == anonymous(theirs)


def run_onnx(quantized: Any, x: np.ndarray) -> np.ndarray:
    model = quantized.onnx()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {session.get_inputs()[0].name: x})[0]
    return result


@pytest.mark.parametrize("name", CASES)
def test_twins_are_quantized_alike(name: str) -> None:
    model, module, x = twins(name)
    ours = qir.quantize(model, data=[as_keras(batch) for batch in x])
    theirs = qir.quantize(module, data=[torch.from_numpy(batch) for batch in x])
    first, second = (anonymous(each.graph) for each in (ours, theirs))
    assert rounded(first) == rounded(second)
    operators = [Counter(node.op_type for node in each.onnx().graph.node) for each in (ours, theirs)]
    operators[0]["Transpose"] -= x.ndim == 5  # at the input of the images
    assert +operators[0] == +operators[1]
    found = run_onnx(ours, as_keras(x[0]))
    simulated = ours.simulator("integer")(torch.from_numpy(as_keras(x[0]))).detach().numpy()
    floats = {note.op for note in ours.float_operators()} - {"Reshape", "Transpose", "Flatten"}
    step = 0.0 if first == second else float(np.abs(found).max()) / 64
    np.testing.assert_allclose(found, run_onnx(theirs, x[0]), rtol=0, atol=step)
    np.testing.assert_allclose(simulated, found, rtol=0, atol=1e-6 * len(floats))
