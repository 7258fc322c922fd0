"""What prepare_model says of Keras models that it can not take: what is wrong, at which line, and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import qir

WEIGHT = keras.Variable(np.ones(3, "float32"), name="outside")


class Branches(layers.Layer):
    def call(self, x: Any) -> Any:
        if ops.mean(x) > 0:  # branches
            return x
        return -x


class Loops(layers.Layer):
    def call(self, x: Any) -> Any:
        for _ in range(ops.shape(x)[1]):  # loops
            x = x + 1.0
        return x


class Creates(layers.Layer):
    def call(self, x: Any) -> Any:
        weight = self.add_weight(shape=(3,), name="late")  # creates
        return x * weight


class CreatesVariable(layers.Layer):
    def call(self, x: Any) -> Any:
        return x * keras.Variable(np.ones(3, "float32"), name="loose")  # creates a variable


class Numpy(layers.Layer):
    def call(self, x: Any) -> Any:
        return np.exp(x)  # numpy


class Method(layers.Layer):
    def call(self, x: Any) -> Any:
        return x.permute(1, 0)  # method


class Draws(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.seeds = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal((3,), seed=self.seeds)  # draws


class Assigns(layers.Layer):
    def build(self, shape: Any) -> None:
        self.count = self.add_weight(shape=(), name="count", trainable=False)

    def call(self, x: Any) -> Any:
        self.count.assign_add(1.0)  # assigns
        return x * self.count


class Reads(layers.Layer):
    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(3,), name="scale")
        self.hidden = type("Box", (), {"weight": self.scale})

    def call(self, x: Any) -> Any:
        return x * ops.exp(self.hidden.weight)  # reads


class Fails(layers.Layer):
    def call(self, x: Any) -> Any:
        return ops.matmul(x, ops.ones((5, 5)))  # fails


def one_layer(layer: layers.Layer) -> keras.Model:
    """A model that Keras builds without a look into the layer."""

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def call(self, x: Any) -> Any:
            return self.layer(x)

    model = Model()
    layer.built = model.built = True
    return model


def refusal(model: keras.Model, shape: tuple[int | None, ...] = (3,)) -> qir.QirError:
    with pytest.raises(qir.QirError) as caught:
        qir.prepare_model(model, input_layer=keras.Input(shape))
    return caught.value


BAD: dict[str, tuple[Callable[[], layers.Layer], str, str, str]] = {
    "branches": (Branches, "Python branches on ops.mean(x) > 0", "keras.ops.where", "# branches"),
    "creates a variable": (CreatesVariable, "is no weight of the model", "add_weight in build", "# creates a variable"),
    "numpy": (Numpy, "call uses np.exp, which knows no symbolic tensors", "use keras.ops.exp", "# numpy"),
    "method": (Method, "call uses x.permute", "use keras.ops.transpose", "# method"),
    "draws": (Draws, "draws random numbers", "keras.layers.Dropout", "# draws"),
    "reads": (Reads, "would make it a constant", "in an attribute of the layer", "# reads"),
    "fails": (Fails, "does not run on symbolic tensors", "keep the layer whole", "# fails"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_call_that_can_not_be_followed_is_shown_with_the_fix(name: str) -> None:
    make, message, advice, line = BAD[name]
    layer = make()
    layer.build((None, 3))
    error = refusal(one_layer(layer))
    assert message in error.message
    assert advice in (error.help or "")
    assert line in (error.snippet or "")
    assert "tests/test_keras_errors.py:" in (error.snippet or "")


def test_a_loop_over_a_size_that_is_not_known() -> None:
    error = refusal(one_layer(Loops()), (None,))
    assert "Python loops over range(ops.shape(x)[1])" in error.message
    assert "# loops" in (error.snippet or "")
    assert "a shape without None" in (error.help or "")
    assert qir.prepare_model(one_layer(Loops()), input_layer=keras.Input((3,))).count_params() == 0


def test_a_call_that_creates_weights() -> None:
    layer = Creates()
    layer.build((None, 3))
    error = refusal(one_layer(layer))
    assert "call creates weights or layers" in error.message
    assert "create them in __init__ or build" in (error.help or "")
    assert "# creates" in (error.snippet or "")


def test_a_call_that_changes_a_weight() -> None:
    layer = Assigns()
    layer.build((None, 3))
    error = refusal(one_layer(layer))
    assert "assign_add" in error.message
    assert "modules_to_exclude" in (error.help or "")
    assert "# assigns" in (error.snippet or "")


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="calls the backend's own functions")
def test_functions_of_the_backend_are_named_with_those_of_keras() -> None:
    import torch
    import torch.nn.functional as F

    class Native(layers.Layer):
        def call(self, x: Any) -> Any:
            return torch.cat([x, x])  # torch

    class Functional(layers.Layer):
        def call(self, x: Any) -> Any:
            return F.relu(x)  # functional

    error = refusal(one_layer(Native()))
    assert "call uses torch.cat, which knows no symbolic tensors" in error.message
    assert "use keras.ops.concatenate" in (error.help or "")
    error = refusal(one_layer(Functional()))
    assert "call uses F.relu" in error.message
    assert "use keras.ops.relu" in (error.help or "")


def test_functions_of_jax_are_named_with_those_of_keras() -> None:
    import jax.numpy as jnp

    class Native(layers.Layer):
        def call(self, x: Any) -> Any:
            return jnp.tanh(x)  # jax

    error = refusal(one_layer(Native()))
    assert "call uses jnp.tanh, which knows no symbolic tensors" in error.message
    assert "use keras.ops.tanh" in (error.help or "")


def test_a_lambda_that_closes_over_a_variable() -> None:
    for function in (lambda x: x * WEIGHT, lambda x: x + ops.exp(WEIGHT)):
        error = refusal(one_layer(layers.Lambda(function, name="scaled")))
        assert "the Lambda layer scaled closes over the variable outside" in error.message
        assert "subclass of keras.Layer" in (error.help or "")


def test_a_model_that_was_never_called_says_what_to_give() -> None:
    class Model(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    for model in (Model(), keras.Sequential([layers.Dense(3)])):
        with pytest.raises(qir.QirError, match="nothing says what the inputs of") as caught:
            qir.prepare_model(model)
        assert "input_layer=keras.Input(shape, dtype=…)" in (caught.value.help or "")


def test_an_input_layer_that_does_not_fit() -> None:
    built = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    error = refusal(built)
    assert "input_layer has the shapes (None, 3), and Sequential takes (None, 4)" in error.message
    with pytest.raises(qir.QirError, match="input_layer holds a int"):
        qir.prepare_model(one_layer(layers.Dense(3)), input_layer=3)
    dense = layers.Dense(3)
    dense.build((None, 4))
    error = refusal(one_layer(dense))
    assert "expected axis -1 of input shape to have value 4" in error.message
    assert "input_layer" in (error.help or "")


def test_a_model_of_several_arguments_says_what_to_give() -> None:
    class Pair(keras.Model):
        def call(self, a: Any, b: Any) -> Any:
            return a + b

    model = Pair()
    model(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(qir.QirError, match="nothing says what the inputs of Pair are"):
        qir.prepare_model(model)


def test_a_layer_that_can_not_be_made_again() -> None:
    class Custom(layers.Layer):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.size = size

        def call(self, x: Any) -> Any:
            return x * self.size

    model = keras.Sequential([keras.Input((3,)), Custom(2)])
    assert qir.prepare_model(model).count_params() == 0  # opened, it needs no configuration
    with pytest.raises(qir.QirError, match="custom can not be made again from its configuration") as caught:
        qir.prepare_model(model, module_classes_to_exclude=[Custom])
    assert "give Custom a get_config" in (caught.value.help or "")


def test_samples_that_the_model_does_not_take() -> None:
    class Picky(layers.Layer):
        def call(self, x: Any) -> Any:
            if not isinstance(x, keras.KerasTensor) and float(ops.max(x)) > 1e-9:
                raise ValueError("too large")
            return x * 2.0

    model = one_layer(Picky())
    given = keras.Input((3,))
    with pytest.raises(qir.QirError, match="the model fails on sample inputs: ValueError: too large") as caught:
        qir.prepare_model(model, given)
    assert "example_inputs" in (caught.value.help or "")
    assert qir.prepare_model(model, given, example_inputs=np.zeros((2, 3), "float32")).count_params() == 0


def test_tracing_leaves_keras_as_it_was_when_it_fails() -> None:
    before = [keras.Layer.__call__, keras.Operation.symbolic_call, keras.KerasTensor.shape, keras.Layer.variables]
    filtering = keras.config.is_traceback_filtering_enabled()
    refusal(one_layer(Branches()))
    after = [keras.Layer.__call__, keras.Operation.symbolic_call, keras.KerasTensor.shape, keras.Layer.variables]
    assert before == after
    assert keras.config.is_traceback_filtering_enabled() is filtering
    assert not hasattr(keras.KerasTensor, "__array_ufunc__")
