"""A model of several gigabytes through import, quantize and emit: the peak of memory against the size of the weights.

    python -m bench.large_model [gigabytes, 3 unless given]

Each way runs in a process of its own: `float` imports and writes the model as it is, `int8` quantizes it between. The
peak counts all resident memory, the pages of mapped files among it. Exits with 1 when it is over 1.3 times the weights.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

WIDTH = 4096
ALLOWED = 1.3


def generate(folder: Path, gigabytes: float) -> Path:
    """A chain of linear layers and ReLUs whose weights lie in a file beside the model."""
    layers = max(2, round(gigabytes * 2**30 / (4 * WIDTH * WIDTH)))
    generator, path = np.random.default_rng(0), folder / "large.onnx"
    nodes, tensors, last = [], [], "x"
    with (folder / "large.data").open("wb") as file:
        for number in range(layers):
            offset = file.tell()
            weight = generator.standard_normal((WIDTH, WIDTH), np.float32) * np.float32(WIDTH**-0.5 * 1.4)
            file.write(weight.data)
            name = f"layers.{number}.weight"
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=weight.shape)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "large.data"), ("offset", str(offset)), ("length", str(weight.nbytes))):
                tensor.external_data.add(key=key, value=value)
            tensors.append(tensor)
            nodes.append(helper.make_node("MatMul", [last, name], [f"product_{number}"], f"matmul_{number}"))
            nodes.append(helper.make_node("Relu", [f"product_{number}"], [f"act_{number}"], f"relu_{number}"))
            last = f"act_{number}"
    ends = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", last))
    graph = helper.make_graph(nodes, "large", [next(ends)], [next(ends)], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def peak() -> float:
    """The peak of resident memory of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def work(way: str, path: Path) -> None:
    """Import and write the model, quantized if `way` says so, and print the peak of memory and the time."""
    import qir

    start, out = time.monotonic(), path.with_name(f"{way}.onnx")
    if way == "float":
        from qir.backends.onnx_emit import write_onnx
        from qir.frontends.onnx_model import import_onnx

        write_onnx(import_onnx(path), out)
    else:
        data = np.random.default_rng(1).standard_normal((8, WIDTH), np.float32)
        qir.quantize(path, data=[data]).save(out)
    print(f"{peak():.0f} {time.monotonic() - start:.1f}")


def same_outputs(first: Path, second: Path) -> float:
    """The signal to noise ratio of what onnxruntime computes with the two models, in dB."""
    import onnxruntime

    x = np.random.default_rng(2).standard_normal((2, WIDTH), np.float32)
    outputs = [onnxruntime.InferenceSession(path).run(None, {"x": x})[0] for path in (first, second)]
    noise = float(np.square(outputs[0] - outputs[1]).sum())
    return float("inf") if noise == 0 else 10 * np.log10(float(np.square(outputs[0]).sum()) / noise)


def main() -> int:
    if len(sys.argv) == 3:
        work(sys.argv[1], Path(sys.argv[2]))
        return 0
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        path = generate(Path(folder), float(sys.argv[1]) if len(sys.argv) > 1 else 3.0)
        weights = path.with_name("large.data").stat().st_size
        print(f"weights: {weights / 2**30:.2f} GiB")
        for way in ("float", "int8"):
            command = [sys.executable, "-m", "bench.large_model", way, str(path)]
            used, seconds = map(float, subprocess.run(command, check=True, capture_output=True).stdout.split()[-2:])
            sqnr = same_outputs(path, path.with_name(f"{way}.onnx"))
            ratio = f"{used / 2**30:.2f} GiB, {used / weights:.2f} times the weights"
            print(f"{way}: peak {ratio}, {seconds:.0f} s, {sqnr:.1f} dB")
            failed |= used > ALLOWED * weights
            path.with_name(f"{way}.onnx").unlink()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
