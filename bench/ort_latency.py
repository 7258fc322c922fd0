"""Latency and accuracy of qir's integer files in onnxruntime, beside the float file and onnxruntime's own quantizer.

    python -m bench.ort_latency [MODEL ...]

Every model is exported by torch.onnx, and that one float file is what both quantizers read. onnxruntime's quantizer
runs with u8 activations and s8 weights per channel, as QDQ and as QOperator, and with its defaults. All sessions have
one thread and all optimizations; they take turns in every round, and the table has medians of the ratios to the float
file in the same round, so other load on the machine counts for all of them alike. Exits with 1 when qir's file is
slower than the best of the others by more than 5 percent, or further from the float model by more than 0.5 decibels.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from rich.table import Table
from torch import Tensor, nn

import qir
from bench.report import report
from qir.backends.onnx_qdq import session
from tests.torchvision_cpu import torchvision_models

CALIBRATION, HELD_OUT, ROUNDS = 32, 16, 30


class Encoder(nn.Module):
    """Six layers of the shape of a small BERT, without its embeddings."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(256, 4, 1024, activation="gelu", batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 6, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        """Features of tokens [n, 64, 256]."""
        features: Tensor = self.layers(x)
        return features


def perceptron() -> nn.Module:
    """Four wide layers."""
    sizes = (512, 1024, 1024, 1024, 10)
    pairs = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*pairs[:-1])


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet18": (lambda: torchvision_models().resnet18(), (3, 224, 224)),
    "mobilenet_v2": (lambda: torchvision_models().mobilenet_v2(), (3, 224, 224)),
    "perceptron": (perceptron, (512,)),
    "encoder": (Encoder, (64, 256)),
}


@dataclass(frozen=True)
class Contender:
    """A file: its time over that of the float file in the same round, and its distance from the float outputs (dB)."""

    name: str
    ratio: float
    signal_to_noise: float


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """The calibration data, sample by sample."""

    def __init__(self, data: np.ndarray) -> None:
        self.items: Iterator[dict[str, np.ndarray]] = iter([{"x": sample[None]} for sample in data])

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next sample, None at the end."""
        return next(self.items, None)


def settled(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """The model with batch norms that fit random inputs, in evaluation mode."""
    torch.manual_seed(0)
    model.train()
    with torch.no_grad():
        for _ in range(4):
            model(torch.randn(4, *shape))
    return model.eval()


def files(name: str, folder: Path) -> dict[str, Path]:
    """The float file and every quantized one."""
    build, shape = MODELS[name]
    torch.manual_seed(0)
    model = settled(build(), shape)
    random = np.random.default_rng(0)
    data = random.standard_normal((CALIBRATION, *shape)).astype(np.float32)
    plain, prepared = folder / "float.onnx", folder / "prepared.onnx"
    example = torch.randn(2, *shape)
    torch.onnx.export(model, (example,), str(plain), opset_version=17, input_names=["x"], output_names=["y"],
                      dynamic_axes={"x": {0: "n"}, "y": {0: "n"}}, dynamo=False)  # fmt: skip
    quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    found = {"float": plain, "qir": folder / "qir.onnx"}
    qir.quantize(plain, data=(data[at : at + 8] for at in range(0, CALIBRATION, 8))).save(found["qir"])
    chosen: dict[str, dict[str, Any]] = {
        "quantize_static QDQ": {"quant_format": QuantFormat.QDQ},
        "quantize_static QOperator": {"quant_format": QuantFormat.QOperator},
    }
    types = {"per_channel": True, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    for label, options in {**{key: {**value, **types} for key, value in chosen.items()}, "quantize_static": {}}.items():
        found[label] = folder / f"{label.replace(' ', '_')}.onnx"
        quantize_static(str(prepared), str(found[label]), Reader(data), **options)
    return found


def measured(name: str, rounds: int) -> list[Contender]:
    """Every quantized file of a model."""
    shape = MODELS[name][1]
    with tempfile.TemporaryDirectory() as folder:
        running = {label: session(onnx.load(str(path))) for label, path in files(name, Path(folder)).items()}
    held_out = np.random.default_rng(1).standard_normal((HELD_OUT, *shape)).astype(np.float32)
    outputs = {label: _outputs(each, held_out) for label, each in running.items()}
    times: dict[str, list[float]] = {label: [] for label in running}
    for number in range(rounds):
        for label, each in running.items():
            times[label].append(_seconds(each, held_out[number % HELD_OUT][None]))
    plain = np.array(times.pop("float"))
    exact = outputs.pop("float")
    return [
        Contender(label, float(np.median(np.array(seconds) / plain)), _ratio(exact, outputs[label]))
        for label, seconds in times.items()
    ]


def _outputs(running: onnxruntime.InferenceSession, data: np.ndarray) -> np.ndarray:
    name = running.get_inputs()[0].name
    return np.concatenate([running.run(None, {name: sample[None]})[0] for sample in data])


def _seconds(running: onnxruntime.InferenceSession, sample: np.ndarray) -> float:
    name = running.get_inputs()[0].name
    started = time.perf_counter()
    running.run(None, {name: sample})
    return time.perf_counter() - started


def _ratio(exact: np.ndarray, other: np.ndarray) -> float:
    wide = exact.astype(np.float64)
    return float(10 * np.log10(np.sum(wide**2) / max(float(np.sum((wide - other) ** 2)), 1e-300)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 when qir's file is as fast and as near as the best of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="default: %(default)s")
    given = parser.parse_args(arguments)
    if unknown := set(given.models) - set(MODELS):
        parser.error(f"no model is called {', '.join(sorted(unknown))}")
    table = Table("model", "file", "time ÷ float", "speed of float", "signal to noise")
    failed = []
    for name in given.models or MODELS:
        ours, *others = measured(name, given.rounds)
        for each in (ours, *others):
            speed = f"{1 / each.ratio:.2f}×"
            table.add_row(name, each.name, f"{each.ratio:.3f}", speed, f"{each.signal_to_noise:.1f} dB")
        slower = ours.ratio > 1.05 * min(other.ratio for other in others)
        further = ours.signal_to_noise < max(other.signal_to_noise for other in others) - 0.5
        failed += [name] if slower or further else []
        table.add_section()
    return report([table], failed)


if __name__ == "__main__":
    sys.exit(main())
