"""A subclassed model around a functional one, prepared with an input layer, as it was never called.

python -m examples.keras_subclassed
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from keras import layers

import qir


def features() -> keras.Model:
    """A functional model with two outputs."""
    image = keras.Input((28, 28, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(image)
    return keras.Model(image, [x, layers.MaxPooling2D(name="pool")(x)], name="features")


class Classifier(keras.Model):  # type: ignore[misc]
    """Arithmetic, a model in a list, and a layer that is called twice."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.parts = [features(), layers.GlobalAveragePooling2D(name="mean")]
        self.head = layers.Dense(10, name="head")

    def call(self, image: Any) -> Any:
        """The scores of a batch of images."""
        model, mean = self.parts
        full, half = model(image * 2.0 - 1.0)
        return self.head(mean(full) + mean(half))


def main() -> keras.Model:
    """Prepare the model and print what became of it."""
    model = Classifier()
    try:
        qir.prepare_model(model)
    except qir.QirError as error:
        print(error, end="\n\n")  # it says what to give
    prepared = qir.prepare_model(model, input_layer=keras.Input((28, 28, 1), name="image"))
    for layer in prepared.layers:
        print(f"{layer.name:24} {type(layer).__name__:24} {layer.output.shape}")
    return prepared


if __name__ == "__main__":
    main()
