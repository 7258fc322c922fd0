"""Fewer bits on real data: a CNN on handwritten digits with 8, 4 and 4 × 4 bits, calibrated and trained.

Prints the accuracy of the float model and of every quantized one, in the simulator and in onnxruntime, and writes the
ONNX files to build/digits_qat/. Exits with 1 when a promise does not hold: W8A8 within 0.3 points of the float model,
W4A8 within 1, and W4A4 after quantization-aware training within 1.5.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from examples.digits import BATCH, DigitsNet, accuracy, digits, scores, train
from qir import QuantizationSimModel, correct_biases
from qir.backends.onnx_qdq import session
from qir.errors import QirError
from qir.progress import track

FLOAT_EPOCHS = 30
TUNING_EPOCHS = 12


@dataclass(frozen=True)
class Row:
    """A quantized model: its accuracies in percent, and how far it may fall below the float model."""

    name: str
    simulated: float
    shipped: float
    allowed: float | None = None


def simulator(model: nn.Module, images: Tensor, weight_bits: int, activation_bits: int) -> QuantizationSimModel:
    """A calibrated simulator for onnxruntime on x86, its biases corrected, whose ranges training can move."""
    sim = QuantizationSimModel(
        model,
        images[:1],
        "training_range_learning_with_tf_init",
        default_param_bw=weight_bits,
        default_output_bw=activation_bits,
        target="ort-x86-vnni",
    )
    sim.compute_encodings(images[:256].split(BATCH))
    correct_biases(sim, images[:512].split(BATCH))
    return sim


def tune(sim: QuantizationSimModel, teacher: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Train weights and ranges, towards the labels and the scores of the teacher."""
    ranges = [parameter for name, parameter in sim.model.named_parameters() if "_quantizer" in name]
    weights = [parameter for name, parameter in sim.model.named_parameters() if "_quantizer" not in name]
    optimizer = torch.optim.Adam([{"params": weights, "lr": 1e-3}, {"params": ranges, "lr": 1e-3}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TUNING_EPOCHS)
    sim.model.train()
    for _ in track(range(TUNING_EPOCHS), "quantization-aware training"):
        for index in torch.randperm(len(images)).split(BATCH):
            with torch.no_grad():
                soft = F.softmax(teacher(images[index]), dim=1)
            found = sim.model(images[index])
            loss = F.cross_entropy(found, labels[index]) + F.cross_entropy(found, soft)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    sim.model.eval()


def judged(
    sim: QuantizationSimModel, name: str, folder: Path, test: tuple[Tensor, Tensor], allowed: float | None = None
) -> Row:
    """Ship the simulator as it is now, and run both."""
    images, labels = test
    quantized = sim.quantized()
    quantized.save(folder / f"{name.replace(' ', '_').replace(',', '')}.onnx")
    running = session(quantized.onnx())
    shipped = running.run(None, {running.get_inputs()[0].name: images.numpy()})[0]
    return Row(name, accuracy(scores(sim.model, images), labels), accuracy(shipped, labels), allowed)


def main(folder: Path) -> int:
    """Run the job; 0 when every promise holds."""
    torch.manual_seed(0)
    images, labels, *test = digits()
    model = DigitsNet()
    train(model, images, labels, FLOAT_EPOCHS)
    float_accuracy = accuracy(scores(model, test[0]), test[1])
    rows = []
    for weight_bits, activation_bits, allowed, tuned_allowed in (
        (8, 8, 0.3, None),
        (4, 8, 1.0, None),
        (4, 4, None, 1.5),
    ):
        name = f"W{weight_bits}A{activation_bits}"
        sim = simulator(model, images, weight_bits, activation_bits)
        rows.append(judged(sim, name, folder, (test[0], test[1]), allowed))
        if weight_bits < 8:
            tune(sim, model, images, labels)
            rows.append(judged(sim, f"{name}, trained", folder, (test[0], test[1]), tuned_allowed))
    show(float_accuracy, rows)
    broken = [row for row in rows if row.allowed is not None
              and float_accuracy - min(row.simulated, row.shipped) > row.allowed + 1e-9]  # fmt: skip
    for row in broken:
        print(f"FAILED: {row.name} is more than {row.allowed} points below the float model", file=sys.stderr)
    return 1 if broken else 0


def show(float_accuracy: float, rows: list[Row]) -> None:
    """Print the accuracies."""
    table = Table("model", "simulator", "onnxruntime", "may fall by", title="Handwritten digits, 360 held-out images")
    table.add_row("float", f"{float_accuracy:.2f} %", "", "")
    for row in rows:
        allowed = "" if row.allowed is None else f"{row.allowed} points"
        table.add_row(row.name, f"{row.simulated:.2f} %", f"{row.shipped:.2f} %", allowed)
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folder_help = "where to write (default: %(default)s)"
    parser.add_argument("--folder", type=Path, default=Path("build/digits_qat"), help=folder_help)
    try:
        sys.exit(main(parser.parse_args().folder))
    except QirError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
