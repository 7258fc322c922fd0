"""Keras models for the tests: what users write, each with the inputs that it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

import qir


class ConvBlock(layers.Layer):
    """Holds its layers in attributes."""

    def __init__(self, filters: int, **config: Any) -> None:
        super().__init__(**config)
        self.conv = layers.Conv2D(filters, 3, padding="same", use_bias=False)
        self.norm = layers.BatchNormalization()

    def call(self, x: Any, training: bool = False) -> Any:
        return ops.relu(self.norm(self.conv(x), training=training))


class Residual(ConvBlock):
    """Inherits its layers from a class in between, and adds what it is given."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + super().call(x, training=training) * 0.5


class Blocks(layers.Layer):
    """Holds layers in lists and dicts."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.blocks = [ConvBlock(4), [Residual(4)]]
        self.named = {"last": {"pool": layers.GlobalAveragePooling2D()}}

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.blocks[1][0](self.blocks[0](x, training=training), training=training)
        return self.named["last"]["pool"](x)


class Intermediate(keras.Model):
    """A class between keras.Model and the model."""


class DeepCnn(Intermediate):
    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.blocks = Blocks()
        self.head = keras.Sequential([layers.Dropout(0.5, seed=3), layers.Dense(3)])

    def call(self, x: Any, training: bool = False) -> Any:
        return self.head(self.blocks(x, training=training), training=training)

    @classmethod
    def called(cls) -> DeepCnn:
        model = cls()
        model(np.zeros((1, 8, 8, 4), "float32"))
        return model


class Affine(layers.Layer):
    """Owns weights alone, and computes with them in every order."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="scale")
        self.parts = [self.add_weight(shape=(), initializer="ones", name="shift")]
        self.fixed = self.add_weight(shape=(), initializer="ones", trainable=False, name="fixed")

    def call(self, x: Any) -> Any:
        return ops.exp(self.scale) * x + 2.0 * self.parts[0] - self.fixed / (1.0 + ops.abs(x))


class Arithmetic(keras.Model):
    """One custom layer twice, numpy on the left, comparison, slicing, matmul."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.affine = Affine()
        self.dense = layers.Dense(6, activation="relu6")

    def call(self, x: Any) -> Any:
        y = self.affine(self.dense(self.affine(x)))
        y = y * np.float32(2) + ops.arange(6, dtype="float32")
        y = ops.where(y > 0.5, y, -y)
        return y[:, :4] @ ops.transpose(y[:, 2:]), ops.concatenate([y, x], axis=-1)[..., ::2]


class Tied(keras.Model):
    """Reads the weight of a layer from outside of it."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.embed = layers.Embedding(11, 4)
        self.positions = layers.Embedding(6, 4)

    def call(self, ids: Any) -> Any:
        x = self.embed(ids) + self.positions(ops.arange(ops.shape(ids)[-1]))
        return ops.matmul(x, ops.transpose(self.embed.embeddings))


class Sizes(keras.Model):
    """Reshapes by sizes that are known when it runs."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.dense = layers.Dense(4)

    def call(self, x: Any) -> Any:
        batch, steps = ops.shape(x)[0], x.shape[1]
        y = ops.reshape(x, (batch * steps, 6))
        y = ops.reshape(self.dense(y), (batch, steps, 2, 2))
        return ops.sum(y, axis=1) / ops.cast(steps, "float32"), y[:, : steps // 2]


class Modes(keras.Model):
    """Does something else in training than in inference."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.first, self.last = layers.Dense(5), layers.Dense(2)
        self.drop, self.always = layers.Dropout(0.5, seed=1), layers.Dropout(0.5, seed=2)
        self.norm = layers.BatchNormalization()

    def call(self, x: Any, training: bool = False) -> Any:
        x = self.first(x)
        if training:
            x = self.drop(x * 2.0, training=True)
        frozen = self.norm(x, training=False)
        return self.last(self.norm(x)) + ops.sum(frozen) + ops.mean(self.always(x, training=True)) * 0.0


class Several(keras.Model):
    """Takes several arguments, one of them optional, and returns a dict."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.one, self.two = layers.Dense(3), layers.Dense(3)

    def call(self, first: Any, second: Any, scale: Any = None) -> Any:
        y = self.one(first) + self.two(second)
        return {"sum": y if scale is None else y * scale, "all": (y, [first])}


class Masked(keras.Model):
    """Masks of an embedding reach a recurrent layer through a layer of the user's, which reads one itself."""

    class Weighting(layers.Layer):
        def __init__(self, **config: Any) -> None:
            super().__init__(**config)
            self.supports_masking = True

        def call(self, x: Any, mask: Any = None) -> Any:
            return x if mask is None else x * ops.expand_dims(ops.cast(mask, x.dtype), -1)

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.embed = layers.Embedding(9, 4, mask_zero=True)
        self.weighting, self.lstm, self.dense = Masked.Weighting(), layers.LSTM(3), layers.Dense(2)

    def call(self, ids: Any) -> Any:
        return self.dense(self.lstm(self.weighting(self.embed(ids))))


class Conditional(keras.Model):
    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.dense = layers.Dense(3)

    def call(self, x: Any) -> Any:
        return ops.cond(ops.mean(x) > 0, lambda: self.dense(x), lambda: ops.zeros_like(self.dense(x)))


def nested() -> keras.Model:
    inside = keras.Input((4,), name="inside")
    inner = keras.Model(inside, [layers.Dense(4, name="dense")(inside), inside * 2.0], name="inner")
    outer = keras.Input((4,), name="outer")
    a, b = inner(outer)
    c, d = inner(a)
    head = keras.Sequential([layers.Dense(2, name="dense"), layers.ReLU(max_value=6)], name="head")
    return keras.Model(outer, head(layers.Add()([b, c, d])), name="nested")


def lambdas() -> keras.Model:
    factor = 3.0
    x = keras.Input((5,))
    y = layers.Lambda(lambda t: ops.tanh(t) * factor + ops.arange(5, dtype="float32"))(layers.Dense(5)(x))
    return keras.Model({"x": x}, {"y": y, "z": layers.SeparableConv1D(2, 3)(ops.expand_dims(y, -1))})


def mixed() -> keras.Model:
    x = keras.Input((5,))
    return keras.Model(x, Affine(dtype="mixed_float16")(layers.Dense(5, dtype="mixed_float16")(x)))


def flat(nest: Any) -> list[np.ndarray]:
    """The arrays in a nest of tensors."""
    return [np.asarray(ops.convert_to_numpy(tensor)) for tensor in keras.tree.flatten(nest)]


@dataclass(frozen=True)
class Case:
    make: Callable[[], keras.Model]
    inputs: Callable[[np.random.Generator], Any]
    spread: bool = False
    input_layer: Callable[[], Any] | None = None

    def model(self) -> keras.Model:
        """The model with weights of the seed 0, called once in training."""
        keras.utils.set_random_seed(0)
        model = self.make()
        self.run(model, self.sample(0), training=True)
        return model

    def prepared(self, model: keras.Model) -> keras.Model:
        """What `prepare_model` makes of the model."""
        return qir.prepare_model(model, input_layer=self.input_layer and self.input_layer())

    def sample(self, seed: int) -> Any:
        return self.inputs(np.random.default_rng(seed))

    def run(self, model: keras.Model, inputs: Any, training: bool = False) -> Any:
        return model(*inputs, training=training) if self.spread else model(inputs, training=training)


def normal(*shape: int) -> Callable[[np.random.Generator], Any]:
    return lambda random: random.standard_normal(shape).astype("float32")


def ids(limit: int, *shape: int) -> Callable[[np.random.Generator], Any]:
    return lambda random: random.integers(0, limit, shape).astype("int32")


CASES = {
    "nested_classes": Case(DeepCnn, normal(2, 8, 8, 4)),
    "arithmetic": Case(Arithmetic, normal(3, 6)),
    "tied": Case(Tied, ids(11, 2, 6)),
    "sizes": Case(Sizes, normal(2, 4, 6)),
    "modes": Case(Modes, normal(4, 3)),
    "several": Case(
        Several,
        lambda random: [normal(2, 3)(random), normal(2, 4)(random)],
        spread=True,
        input_layer=lambda: [keras.Input((3,)), keras.Input((4,))],
    ),
    "masked": Case(Masked, ids(9, 2, 5)),
    "conditional": Case(Conditional, normal(2, 3)),
    "nested": Case(nested, normal(2, 4)),
    "lambdas": Case(lambdas, lambda random: {"x": normal(2, 5)(random)}),
    "mixed": Case(mixed, normal(2, 5)),
}
