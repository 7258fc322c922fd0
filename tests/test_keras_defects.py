"""Each weakness of AIMET's Keras preparer that we know of, as a model that it can not take or changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import qir
from qir.encodings.apply import encodings_of
from qir.encodings.file import encodings_document
from tests.keras_models import CASES, DeepCnn, flat

ROOT = Path(__file__).parent.parent


def kinds(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers]


def check(model: keras.Model, inputs: Any) -> keras.Model:
    """The prepared model, which returns the same bits."""
    prepared = qir.prepare_model(model)
    for one, other in zip(flat(model(inputs)), flat(prepared(inputs)), strict=True):
        assert np.array_equal(one, other)
    return prepared


@pytest.mark.slow
def test_59_any_backend_of_keras_3_without_tensorflow() -> None:
    code = "import qir, sys\nfrom tests.keras_models import CASES\ncase = CASES['tied']\ncase.prepared(case.model())\n"
    code += "assert 'tensorflow' not in sys.modules"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)


def test_60_arithmetic_and_slicing_become_layers() -> None:
    model = CASES["arithmetic"].model()
    prepared = check(model, CASES["arithmetic"].sample(1))
    assert {layer.function for layer in prepared.layers if hasattr(layer, "function")} >= {
        "ops.multiply", "ops.add", "ops.true_divide", "ops.get_item", "ops.matmul", "ops.where", "ops.concatenate",
    }  # fmt: skip


def test_61_reused_layers_are_unrolled_with_shared_weights() -> None:
    dense, x = layers.Dense(4, name="dense"), keras.Input((4,))
    prepared = check(keras.Model(x, dense(dense(dense(x)))), np.ones((2, 4), "float32"))
    assert [layer.name for layer in prepared.layers[1:]] == ["dense", "module_dense_1", "module_dense_2"]
    assert len(prepared.weights) == 2


def test_62_layers_in_lists_and_dicts_are_seen() -> None:
    prepared = check(DeepCnn.called(), CASES["nested_classes"].sample(1))
    assert kinds(prepared).count("Conv2D") == 2
    assert kinds(prepared).count("GlobalAveragePooling2D") == 1


def test_63_classes_between_a_model_and_keras_count() -> None:
    class Grandchild(DeepCnn):
        pass

    model = Grandchild()
    model(CASES["nested_classes"].sample(1))
    assert "grandchild" not in {layer.name for layer in check(model, CASES["nested_classes"].sample(1)).layers}


def test_64_weights_follow_their_layers_whatever_their_names() -> None:
    class Twins(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.second, self.first = layers.Dense(3, name="same"), layers.Dense(3, name="same")

        def call(self, x: Any) -> Any:
            return self.first(self.second(x) * 2.0)

    model = Twins()
    model(np.ones((2, 3), "float32"))
    check(model, np.ones((2, 3), "float32"))


def test_65_relu6_stays_relu6_and_separable_convolutions_stay_whole() -> None:
    x = keras.Input((8, 8, 2))
    y = layers.SeparableConv2D(3, 3)(layers.ReLU(max_value=6.0)(x * 9.0))
    prepared = check(keras.Model(x, y), np.ones((1, 8, 8, 2), "float32"))
    (relu,) = (layer for layer in prepared.layers if isinstance(layer, layers.ReLU))
    assert relu.max_value == 6.0
    assert "SeparableConv2D" in kinds(prepared)


def test_66_several_outputs_and_token_ids_are_checked_with_samples_of_their_kind() -> None:
    ids = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(7, 3)(ids)
    model = keras.Model(ids, {"first": embedded[:, 0], "all": [embedded, ops.argmax(embedded, axis=-1)]})
    prepared = check(model, np.array([[0, 6, 1, 2, 3]], "int32"))
    assert set(prepared(np.zeros((1, 5), "int32"))) == {"first", "all"}


def test_67_dropout_and_batch_norm_train_after_preparing() -> None:
    case = CASES["nested_classes"]
    model = case.model()
    prepared = case.prepared(model)
    inputs = case.sample(1)
    assert not np.array_equal(flat(prepared(inputs, training=True))[0], flat(prepared(inputs))[0])
    moving = [variable for variable in prepared.weights if variable.name == "moving_mean"]
    before = [np.array(ops.convert_to_numpy(variable)) for variable in moving]
    prepared(inputs, training=True)
    assert not any(np.array_equal(a, ops.convert_to_numpy(b)) for a, b in zip(before, moving, strict=True))


def test_69_one_dimensional_convolutions_are_layers_like_others() -> None:
    x = keras.Input((16, 3))
    y = layers.Conv1DTranspose(2, 3)(layers.Conv1D(4, 3, padding="causal", dilation_rate=2)(x))
    assert kinds(check(keras.Model(x, y), np.ones((1, 16, 3), "float32")))[1:] == ["Conv1D", "Conv1DTranspose"]


def test_70_models_of_lambdas_with_several_outputs() -> None:
    x = keras.Input((4,))
    y = layers.Lambda(lambda t: ops.split(t, 2, axis=-1))(x)
    prepared = check(keras.Model(x, [*y, y[0] + y[1]]), np.arange(8, dtype="float32").reshape(2, 4))
    assert "Lambda" not in kinds(prepared)
    assert len(prepared.outputs) == 3


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0"])
def test_68_encodings_have_every_version(version: str) -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu")])
    data = [np.random.default_rng(0).standard_normal((8, 4)).astype("float32")]
    graph = qir.quantize(model, data=data).graph
    assert encodings_document(encodings_of(graph), version)["version"] == version


def test_no_two_weights_have_one_path() -> None:
    @keras.saving.register_keras_serializable("tests")
    class Twice(layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(shape=(3, 3, 2, 2), name="kernel")
            self.kernel_1 = self.add_weight(shape=(2,), name="kernel_1")

        def call(self, x: Any) -> Any:
            return ops.conv(x, self.kernel, padding="same") * ops.sum(self.kernel) + self.kernel_1

    x = keras.Input((8, 8, 2), batch_size=1)
    graph = qir.import_model(keras.Model(x, Twice(name="twice")(x)))
    paths = [path for value in graph.weights() if value.weight for path in value.weight.paths]
    assert sorted(paths) == ["twice.kernel", "twice.kernel_1", "twice.kernel_2"]
