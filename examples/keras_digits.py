"""A Keras CNN on handwritten digits: trained, prepared, quantized to 8 bits, shipped as QDQ ONNX and compared.

Writes the ONNX file to build/keras_digits/ and prints the accuracy in Keras, in the integer simulator and in
onnxruntime. Exits with 1 when the simulator and onnxruntime differ anywhere, or when quantization costs more than two
percent of accuracy.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import torch
from keras import layers
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import qir
from qir.backends.onnx_qdq import executed_operators, session

EPOCHS = 15
BATCH = 64

Data = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class Block(keras.layers.Layer):  # type: ignore[misc]
    """A depthwise and a pointwise convolution with batch norms, added to the input."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.depthwise, self.depthwise_norm = (
            layers.DepthwiseConv2D(3, padding="same"),
            layers.BatchNormalization(momentum=0.9),
        )
        self.pointwise, self.pointwise_norm = layers.Conv2D(filters, 1), layers.BatchNormalization(momentum=0.9)

    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """x + pointwise(relu(depthwise(x))), clamped from below."""
        y = keras.ops.relu(self.depthwise_norm(self.depthwise(x), training=training))
        return keras.ops.relu(x + self.pointwise_norm(self.pointwise(y), training=training))


class DigitsNet(keras.Model):  # type: ignore[misc]
    """A small CNN for images [n, 8, 8, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stem_norm = (
            layers.Conv2D(16, 3, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
        )
        self.block, self.wide = Block(16), layers.Conv2D(32, 3, padding="same", activation="relu")
        self.pool, self.mean = layers.MaxPooling2D(), layers.GlobalAveragePooling2D()
        self.dropout, self.head = layers.Dropout(0.2), layers.Dense(10)

    def call(self, x: keras.KerasTensor, training: bool = False) -> keras.KerasTensor:
        """Scores of the ten digits."""
        x = keras.ops.relu(self.stem_norm(self.stem(x), training=training))
        x = self.pool(self.wide(self.block(x, training=training)))
        return self.head(self.dropout(self.mean(x), training=training))


def digits() -> Data:
    """Training images and labels, and those of a held-out fifth."""
    data = load_digits()
    images = data.images.astype(np.float32)[..., None] / 16
    train, test, labels, test_labels = train_test_split(
        images, data.target, test_size=0.2, random_state=0, stratify=data.target
    )
    return train, labels, test, test_labels


def trained(data: Data, epochs: int = EPOCHS) -> keras.Model:
    """The model after some epochs."""
    keras.utils.set_random_seed(0)
    model = DigitsNet()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss)
    model.fit(data[0], data[1], batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of images whose highest score is that of their label."""
    return float((scores.argmax(-1) == labels).mean())


def main(folder: Path, epochs: int = EPOCHS) -> int:
    """Train, prepare, quantize, ship, compare. Returns the exit code."""
    data = digits()
    images, labels = data[2], data[3]
    model = trained(data, epochs)
    prepared = qir.prepare_model(model)
    quantized = qir.quantize(prepared, data=[data[0][at : at + BATCH] for at in range(0, 512, BATCH)])
    folder.mkdir(parents=True, exist_ok=True)
    quantized.save(folder / "digits.onnx")

    with torch.no_grad():
        simulated = quantized.simulator("integer")(torch.from_numpy(images)).numpy()
        scores = {"Keras": keras.ops.convert_to_numpy(model(images, training=False))}
        scores["Keras, prepared"] = keras.ops.convert_to_numpy(prepared(images, training=False))
    shipped_model = quantized.onnx()
    runtime = session(shipped_model)
    shipped = runtime.run(None, {runtime.get_inputs()[0].name: images})[0]
    scores |= {"integer simulator": simulated, "onnxruntime": shipped}
    accuracies = {name: accuracy(found, labels) for name, found in scores.items()}

    table = Table(title=f"digits, {len(labels)} images, W8A8")
    table.add_column("where")
    table.add_column("accuracy", justify="right")
    for name, share in accuracies.items():
        table.add_row(name, f"{share:.2%}")
    console = Console()
    console.print(table)
    differing = int((simulated != shipped).sum())
    console.print(f"scores that differ between simulator and onnxruntime: {differing} of {shipped.size}")
    executed = Counter(each.op for each in executed_operators(shipped_model))
    console.print(f"operators that onnxruntime runs: {dict(executed)}")
    lost = accuracies["Keras"] - accuracies["onnxruntime"]
    return int(differing > 0 or lost > 0.02)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/keras_digits"))
    sys.exit(main(parser.parse_args().output))
