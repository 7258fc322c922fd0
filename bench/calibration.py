"""Time and memory of calibrating ResNet-18: qir's calibrate pass beside onnxruntime's calibrators, in the same run.

    python -m bench.calibration [--samples N] [--size PIXELS]

Each calibrator runs in a process and on a core of its own, on the same images, one by one. The times leave imports,
the placement of quantizers and the loading of the model out; memory is what the process grew by at its peak. Exits with
1 when qir is not the fastest of a method, or when its memory grows with the number of images.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import qir
from qir.backends.onnx_qdq import emit_onnx, save_onnx
from qir.passes.calibrate import Calibrate
from tests.torchvision_cpu import torchvision_models

RIVALS = {"min-max": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
OWN = ("min-max", "sqnr", "mse", "entropy", "percentile")
SLACK_MIB = 64
"""How much more memory four times the images may take: what allocators keep."""


def float_graph(size: int) -> qir.Graph:
    """ResNet-18 with its batch norms folded, in ONNX's operators."""
    import torch

    torch.manual_seed(0)
    graph = qir.import_model(torchvision_models().resnet18(), [torch.zeros(2, 3, size, size)])
    return qir.Pipeline.parse("lift-functionals,unroll-modules,fold-batch-norm,legalize-onnx").run(graph)


def images(samples: int, size: int) -> Iterator[np.ndarray]:
    """Synthetic images, made when they are asked for."""
    for seed in range(samples):
        yield np.random.default_rng(seed).standard_normal((1, 3, size, size), np.float32)


def own(method: str, samples: int, size: int, folder: Path) -> Callable[[], object]:
    graph = qir.Pipeline.parse("insert-quantizers,propagate-encodings", float_graph(size)).run(float_graph(size))
    step = Calibrate(data=images(samples, size), method=method)  # type: ignore[arg-type]
    return lambda: step.run(graph)


def rival(method: str, samples: int, size: int, folder: Path) -> Callable[[], object]:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.stream = images(samples, size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.stream, None)
            return None if batch is None else {name: batch}

    graph = float_graph(size)
    name = graph.inputs[0].hint
    save_onnx(emit_onnx(graph), folder / "float.onnx")
    calibrator = create_calibrator(
        str(folder / "float.onnx"), None, str(folder / "augmented.onnx"), getattr(CalibrationMethod, RIVALS[method])
    )

    def run() -> None:
        calibrator.collect_data(Reader())
        calibrator.compute_data()

    return run


def memory(which: str) -> float:
    """What this process holds now (`VmRSS`), or has held at most since the last reset (`VmHWM`), in MiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def one(who: str, method: str, samples: int, size: int) -> dict[str, float]:
    """Seconds of wall clock and of processors, and MiB."""
    with tempfile.TemporaryDirectory() as folder:
        work = {"qir": own, "onnxruntime": rival}[who](method, samples, size, Path(folder))
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
        work()
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "mib": memory("VmHWM") - before}


def apart(who: str, method: str, samples: int, size: int) -> dict[str, Any]:
    """`one` in a process of its own; an error is its last line."""
    command = [sys.executable, "-m", "bench.calibration", "--one", who, method]
    done = subprocess.run(
        [*command, "--samples", str(samples), "--size", str(size)], capture_output=True, text=True, check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}),
    )  # fmt: skip
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--one", nargs=2, metavar=("WHO", "METHOD"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one, options.samples, options.size)))
        return 0
    table = Table("method", "who", "wall s", "CPU s", "peak MiB", "peak MiB, a quarter of the images",
                  title=f"ResNet-18, {options.samples} images of {options.size}²")  # fmt: skip
    good = True
    for method in OWN:
        rows = {who: [apart(who, method, count, options.size) for count in (options.samples, options.samples // 4)]
                for who in ("qir", "onnxruntime") if who == "qir" or method in RIVALS}  # fmt: skip
        for who, (full, quarter) in rows.items():
            cells = [full["error"]] if "error" in full else [f"{full[key]:.1f}" for key in ("wall", "cpu", "mib")]
            table.add_row(method, who, *cells, "" if "error" in quarter else f"{quarter['mib']:.0f}")
        mine, few = rows["qir"]
        other = rows.get("onnxruntime", [{}])[0]
        good &= "error" not in mine and mine["mib"] < few["mib"] + SLACK_MIB
        good &= "wall" not in other or mine["wall"] < other["wall"]
    Console().print(table)
    return not good


if __name__ == "__main__":
    sys.exit(main())
