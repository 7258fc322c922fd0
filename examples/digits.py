"""The main job, end to end on real data: train a CNN on handwritten digits, prepare, quantize, ship and check it.

Writes to build/demo/: the graph after every pass, the prepared module's code, the QDQ ONNX file and a report.
Exits with 1 when the simulator and onnxruntime differ anywhere, when an operator that should run as an integer does
not, or when quantization costs more than two percent of accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import qir
from qir.backends.onnx_qdq import executed_operators, session
from qir.errors import QirError
from qir.files import write_text
from qir.progress import track
from qir.watch import SaveAfter, Verify

EPOCHS = 12
BATCH = 64


class DigitsNet(nn.Module):
    """A small CNN with everything that a preparer has to deal with."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1, bias=False)
        self.stem_norm = nn.BatchNorm2d(16)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(16)
        self.pointwise = nn.Conv2d(16, 16, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(16)
        self.wide = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.wide_norm = nn.BatchNorm2d(32)
        self.act = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the ten digits for images [n, 1, 8, 8]."""
        x = F.relu(self.stem_norm(self.stem(x)))
        y = self.act(self.depthwise_norm(self.depthwise(x)))
        y = self.pointwise_norm(self.pointwise(y))
        x = self.act(x + y)
        x = self.pool(self.act(self.wide_norm(self.wide(x))))
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.head(self.dropout(x))


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, and those of a held-out fifth."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    parts = train_test_split(images.numpy(), data.target, test_size=0.2, random_state=0, stratify=data.target)
    train, test, train_labels, test_labels = map(torch.tensor, parts)
    return train, train_labels, test, test_labels


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int = EPOCHS) -> None:
    """Train in place, into evaluation mode."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    model.train()
    for _ in track(range(epochs), "training"):
        for index in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(model(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    model.eval()


def accuracy(scores: np.ndarray, labels: Tensor) -> float:
    """The share of right answers, in percent."""
    return 100 * float((scores.argmax(1) == labels.numpy()).mean())


def scores(module: nn.Module, images: Tensor) -> np.ndarray:
    """The module's outputs."""
    with torch.no_grad():
        return np.asarray(module(images).numpy())


def main(folder: Path) -> int:
    """Run the job; 0 when every promise holds."""
    torch.manual_seed(0)
    images, labels, test, test_labels = digits()
    model = DigitsNet()
    train(model, images, labels)

    prepared = qir.prepare_model(model)
    write_text(folder / "prepared.py", prepared.code.strip() + "\n")
    exact = torch.equal(model(test), prepared(test))

    calibration = list(images[:128].split(32))
    quantized = qir.quantize(model, data=calibration, target="ort-x86-vnni", watch=[Verify(), SaveAfter(folder)])
    quantized.save(folder / "digits.onnx")
    write_text(folder / "integer.qir", f"// as onnxruntime runs it\n{quantized.integer_graph()}\n")

    onnx_model = quantized.onnx()
    running = session(onnx_model)
    shipped = running.run(None, {running.get_inputs()[0].name: test.numpy()})[0]
    integer = scores(quantized.simulator("integer"), test)
    results = {
        "float model": accuracy(scores(model, test), test_labels),
        "simulator, float mode": accuracy(scores(quantized.simulator("float"), test), test_labels),
        "simulator, integer mode": accuracy(integer, test_labels),
        "onnxruntime": accuracy(shipped, test_labels),
    }
    equal = int((integer == shipped).sum())
    executed = executed_operators(onnx_model)
    reasons = {note.op: note.reason for note in quantized.float_operators()}
    floating = [operator.op for operator in executed if not operator.integer and not operator.converts]
    report = {
        "accuracy": results,
        "prepared module equals the model": exact,
        "equal output values": equal,
        "output values": shipped.size,
        "integer operators": Counter(operator.op for operator in executed if operator.integer),
        "conversions": Counter(operator.op for operator in executed if operator.converts),
        "float operators": {op: reasons.get(op, "qir expected an integer operator here") for op in floating},
        "pipeline": str(quantized.pipeline),
    }
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    show(report)
    failures = broken_promises(report)
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    print(f"\nwritten to {folder}/: the graph after every pass, prepared.py, digits.onnx, integer.qir, report.json")
    return 1 if failures else 0


def broken_promises(report: dict[str, Any]) -> list[str]:
    """What does not hold."""
    floating = ", ".join(report["float operators"])
    drop = report["accuracy"]["float model"] - report["accuracy"]["onnxruntime"]
    checks = {
        "the prepared module differs from the model": report["prepared module equals the model"],
        "the simulator differs from onnxruntime": report["equal output values"] == report["output values"],
        f"onnxruntime runs {floating} in float": not floating,
        f"quantization costs {drop:.1f} % of accuracy": drop <= 2.0,
    }
    return [failure for failure, holds in checks.items() if not holds]


def show(report: dict[str, Any]) -> None:
    """Print the report as one table."""
    table = Table(title="Handwritten digits, 360 held-out images", show_header=False)
    for name, percent in report["accuracy"].items():
        table.add_row(f"accuracy, {name}", f"{percent:.2f} %")
    table.add_section()
    table.add_row("prepared module = model, bit for bit", "yes" if report["prepared module equals the model"] else "NO")
    table.add_row(
        "simulator = onnxruntime, bit for bit", f"{report['equal output values']} of {report['output values']} values"
    )
    table.add_section()
    for name, count in report["integer operators"].items():
        table.add_row(f"onnxruntime, on integers: {name}", str(count))
    for name, count in report["conversions"].items():
        table.add_row(f"onnxruntime, conversion: {name}", str(count))
    for name, reason in report["float operators"].items():
        table.add_row(f"onnxruntime, in float: {name}", reason)
    if not report["float operators"]:
        table.add_row("onnxruntime, in float", "nothing")
    Console().print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("build/demo"), help="where to write (default: %(default)s)")
    try:
        sys.exit(main(parser.parse_args().folder))
    except QirError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
