"""A transformer text classifier with layers of its own, prepared, quantized and checked in onnxruntime.

    python -m examples.keras_text_classification

The layers are those of the Keras example "Text classification with Transformer", in `keras.ops`. The texts are made up:
12 tokens of 100, and the class is which of two tokens comes first.
"""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import layers, ops

import qir

LENGTH, TOKENS, WIDTH = 12, 100, 16


class TokenAndPositionEmbedding(layers.Layer):  # type: ignore[misc]
    """The sum of an embedding of the tokens and one of their places."""

    def __init__(self, length: int, tokens: int, width: int, **config: Any) -> None:
        super().__init__(**config)
        self.token_emb = layers.Embedding(tokens, width)
        self.pos_emb = layers.Embedding(length, width)

    def call(self, x: Any) -> Any:
        """The embeddings of a batch of tokens."""
        positions = ops.arange(start=0, stop=ops.shape(x)[-1], step=1)
        return self.token_emb(x) + self.pos_emb(positions)


class TransformerBlock(layers.Layer):  # type: ignore[misc]
    """Attention and a small network, each with dropout, a sum and a normalization behind it."""

    def __init__(self, width: int, heads: int, hidden: int, rate: float = 0.1, **config: Any) -> None:
        super().__init__(**config)
        self.att = layers.MultiHeadAttention(num_heads=heads, key_dim=width)
        self.ffn = keras.Sequential([layers.Dense(hidden, activation="relu"), layers.Dense(width)])
        self.layernorm1 = layers.LayerNormalization(epsilon=1e-6)
        self.layernorm2 = layers.LayerNormalization(epsilon=1e-6)
        self.dropout1, self.dropout2 = layers.Dropout(rate), layers.Dropout(rate)

    def call(self, inputs: Any, training: bool = False) -> Any:
        """The block's result for a batch of sequences."""
        attended = self.dropout1(self.att(inputs, inputs), training=training)
        normed = self.layernorm1(inputs + attended)
        return self.layernorm2(normed + self.dropout2(self.ffn(normed), training=training))


def classifier() -> keras.Model:
    """The model: two of its layers are classes of ours."""
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = TokenAndPositionEmbedding(LENGTH, TOKENS, WIDTH)(inputs)
    x = TransformerBlock(WIDTH, 2, 32)(x)
    x = layers.Dropout(0.1)(layers.GlobalAveragePooling1D()(x))
    x = layers.Dropout(0.1)(layers.Dense(20, activation="relu")(x))
    return keras.Model(inputs, layers.Dense(2, activation="softmax")(x))


def texts(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and classes."""
    random = np.random.default_rng(seed)
    tokens = random.integers(2, TOKENS, (count, LENGTH)).astype(np.int32)
    classes = random.integers(0, 2, count)
    places = np.sort(np.argsort(random.random((count, LENGTH)), axis=1)[:, :2], axis=1)
    rows = np.arange(count)
    tokens[rows, places[:, 0]], tokens[rows, places[:, 1]] = classes, 1 - classes
    return tokens, classes


def main(count: int = 2000, epochs: int = 8) -> dict[str, float]:
    """Train, prepare, quantize; returns the accuracies, by where they were measured."""
    keras.utils.set_random_seed(0)
    model = classifier()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(*texts(count, 0), batch_size=64, epochs=epochs, verbose=0)

    prepared = qir.prepare_model(model)  # every computation is a layer now: att, ffn's Denses, the sums, …
    quantized = qir.quantize(model, data=[texts(64, seed)[0] for seed in range(2, 6)])

    tokens, classes = texts(500, 1)
    outputs = {
        "Keras": model.predict(tokens, verbose=0),
        "prepared": prepared.predict(tokens, verbose=0),
        "onnxruntime": _run(quantized.onnx(), tokens),
    }
    found = {where: float((output.argmax(1) == classes).mean()) for where, output in outputs.items()}
    print(f"{len(model.layers)} layers, prepared {len(prepared.layers)}")
    for where, accuracy in found.items():
        print(f"{where:12} {accuracy:.1%}")
    return found


def _run(model: Any, tokens: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, {session.get_inputs()[0].name: tokens})[0]
    return output


if __name__ == "__main__":
    main()
