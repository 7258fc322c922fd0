"""Measures what onnxruntime's kernels cost in float and on integers, and prints the table that a target profile holds.

    python -m bench.kernel_costs >> my_profile.toml

Each operator runs inside of a small model, with quantizers around it and without; its own time is read from
onnxruntime's profile, so conversions and changes of layout are not counted. One thread; the fastest tenth of the runs
counts, which other work on the machine disturbs least. The time is fitted as
a number of nanoseconds for each element of the result plus one for each product that is summed in it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

RUNS = 60
GAIN = 1.5
"""How much faster integers must be to be worth what a rounding costs in accuracy: a choice, not a measurement."""
SCALE, ZERO = np.float32(0.05), np.uint8(128)
INTEGER = {
    "Gemm": ("QGemm",), "MatMul": ("MatMulIntegerToFloat", "QLinearMatMul"), "MaxPool": ("NhwcMaxPool", "MaxPool"),
}  # fmt: skip
"""What onnxruntime calls the integer kernels whose names are not QLinear and that of the operator."""


@dataclass(frozen=True)
class Case:
    """One operator on tensors of these sizes; `weight` is constant, `products` are summed for each element."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    weight: tuple[int, ...] | None = None
    attrs: dict[str, Any] = field(default_factory=dict)
    products: int = 0
    float_output: bool = False
    images: bool = False


def conv(inputs: int, outputs: int, kernel: int, size: int, group: int = 1) -> Case:
    attrs = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, "group": group}
    weight = (outputs, inputs // group, kernel, kernel)
    return Case("Conv", ((1, inputs, size, size),), weight, attrs, inputs // group * kernel**2, images=True)


def linear(op: str, rows: int, inputs: int, outputs: int) -> Case:
    shape = (rows, inputs) if op == "Gemm" else (1, rows, inputs)
    return Case(op, (shape,), (inputs, outputs), {}, inputs, float_output=True)


def product(heads: int, rows: int, inner: int, columns: int) -> Case:
    return Case("MatMul", ((1, heads, rows, inner), (1, heads, inner, columns)), None, {}, inner, float_output=True)


IMAGE = (1, 64, 56, 56)
POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
CASES: dict[str, list[Case]] = {
    "Conv": [conv(16, 64, 1, 56), conv(64, 64, 3, 56), conv(256, 256, 3, 14), conv(96, 24, 1, 56)],
    "Conv of groups": [conv(96, 96, 3, 56, group=96), conv(96, 96, 5, 28, group=96), conv(256, 256, 3, 14, group=256)],
    "Gemm": [linear("Gemm", 128, 1024, 1024), linear("Gemm", 16, 1024, 1024), linear("Gemm", 128, 64, 1024)],
    "MatMul": [linear("MatMul", 128, 384, 384), linear("MatMul", 128, 384, 1536), linear("MatMul", 128, 1536, 384)],
    "MatMul of tensors": [product(12, 128, 32, 128), product(12, 128, 128, 32), product(12, 128, 64, 128)],
    "Add": [Case("Add", (IMAGE, IMAGE))],
    "Mul": [Case("Mul", (IMAGE, IMAGE))],
    "Concat": [Case("Concat", (IMAGE, IMAGE), attrs={"axis": 1})],
    "Sigmoid": [Case("Sigmoid", (IMAGE,))],
    "LeakyRelu": [Case("LeakyRelu", (IMAGE,))],
    "MaxPool": [Case("MaxPool", (IMAGE,), attrs=POOL, images=True)],
    "AveragePool": [Case("AveragePool", (IMAGE,), attrs=POOL, images=True)],
    "GlobalAveragePool": [Case("GlobalAveragePool", ((1, 512, 7, 7),), images=True)],
}


class Model:
    """A case as an ONNX model, in float or with a quantizer on every tensor."""

    def __init__(self, case: Case, quantized: bool) -> None:
        self.quantized, self.nodes, self.held = quantized, [], []
        self.hold("s", np.asarray(SCALE))
        self.hold("z", np.asarray(ZERO))
        self.hold("wz", np.asarray(np.int8(0)))
        names = [self.activation(f"x{i}") for i in range(len(case.shapes))]
        if case.images and case.weight is None:
            names = [self.operator(Case("Conv", (), (case.shapes[0][1], case.shapes[0][1], 1, 1)), names, "before")]
        name = self.operator(case, names, "y")
        if case.images:
            channels = case.shapes[0][1] if case.weight is None else case.weight[0]
            name = self.operator(Case("Conv", (), (channels, channels, 1, 1)), [name], "after")
        dtype = TensorProto.UINT8 if quantized else TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info(f"x{i}", dtype, shape) for i, shape in enumerate(case.shapes)]
        out = helper.make_tensor_value_info(name.removesuffix("_d"), TensorProto.UNDEFINED, None)
        if quantized and not case.float_output:
            out = helper.make_tensor_value_info(f"{name.removesuffix('_d')}_q", TensorProto.UINT8, None)
        else:
            out = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "g", inputs, [out], self.held)
        self.proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        random = np.random.default_rng(0)
        self.feeds = {
            f"x{i}": random.integers(0, 255, shape).astype(np.uint8 if quantized else np.float32)
            for i, shape in enumerate(case.shapes)
        }

    def hold(self, name: str, array: np.ndarray) -> None:
        self.held.append(numpy_helper.from_array(array, name))

    def add(self, op: str, inputs: list[str], output: str, **attrs: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], **attrs))
        return output

    def activation(self, name: str) -> str:
        return self.add("DequantizeLinear", [name, "s", "z"], f"{name}_d") if self.quantized else name

    def operator(self, case: Case, inputs: list[str], name: str) -> str:
        operands = list(inputs)
        if case.weight is not None:
            data = np.random.default_rng(1).integers(-127, 128, case.weight)
            self.hold(f"{name}_w", data.astype(np.int8 if self.quantized else np.float32))
            given = [f"{name}_w", "s", "wz"]
            operands.append(self.add("DequantizeLinear", given, f"{name}_wd") if self.quantized else f"{name}_w")
        self.add(case.op, operands, name, **case.attrs)
        if not self.quantized or case.float_output:
            return name
        self.add("QuantizeLinear", [name, "s", "z"], f"{name}_q")
        return self.add("DequantizeLinear", [f"{name}_q", "s", "z"], f"{name}_d") if not case.float_output else name


def events(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """The microseconds of every run of every kernel, by the name of its operator."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.enable_profiling, options.log_severity_level = 1, True, 3
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for _ in range(RUNS):
            session.run(None, feeds)
        found: dict[str, list[float]] = {}
        for event in json.loads(Path(session.end_profiling()).read_text()):
            if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
                found.setdefault(event["args"]["op_name"], []).append(event["dur"])
    return found


def kernel_time(case: Case, quantized: bool) -> float:
    """Nanoseconds of one run of the operator's own kernel."""
    built = Model(case, quantized)
    found = events(built.proto, built.feeds)
    wanted = INTEGER.get(case.op, (f"QLinear{case.op}",)) if quantized else (case.op, f"Fused{case.op}")
    times = next((found[name] for name in wanted if name in found), None)
    if times is None:
        raise SystemExit(f"onnxruntime runs {case.op} as {', '.join(found)}")
    extra = 2 if case.images and case.op == "Conv" else 1
    return 1e3 * float(np.quantile(times[::extra], 0.1))


def elements(case: Case) -> int:
    """The elements of the result."""
    shape = case.shapes[0]
    if case.op in ("MaxPool", "AveragePool"):
        return int(np.prod(shape)) // 4
    if case.op == "GlobalAveragePool":
        return shape[1]
    if case.op == "Concat":
        return 2 * int(np.prod(shape))
    if case.op == "Conv" and case.weight is not None:
        return int(np.prod(shape)) // shape[1] * case.weight[0]
    if case.products:
        columns = case.weight[-1] if case.weight is not None else case.shapes[1][-1]
        return int(np.prod(shape)) // shape[-1] * columns
    return int(np.prod(shape))


def fitted(cases: Sequence[Case], quantized: bool) -> tuple[float, float]:
    """Nanoseconds for each element and for each product, no one negative, that fit the times in proportion."""
    times = np.array([kernel_time(case, quantized) for case in cases])
    sizes = np.array([[elements(case), elements(case) * case.products] for case in cases], float)
    if not any(case.products for case in cases):
        return float(np.mean(times / sizes[:, 0])), 0.0
    found = np.linalg.lstsq(sizes / times[:, None], np.ones(len(cases)), rcond=None)[0]
    if found.min() < 0:
        kept = int(found[0] < 0)
        alone = float(np.exp(np.mean(np.log(times / sizes[:, kept]))))
        return (alone, 0.0) if kept == 0 else (0.0, alone)
    return float(found[0]), float(found[1])


def conversion(op: str) -> float:
    """Nanoseconds for each element of QuantizeLinear or DequantizeLinear."""
    count = 1 << 18
    wide, narrow = TensorProto.FLOAT, TensorProto.UINT8
    dtypes = (wide, narrow) if op == "QuantizeLinear" else (narrow, wide)
    x, y = (helper.make_tensor_value_info(name, dtype, [count]) for name, dtype in zip("xy", dtypes, strict=True))
    held = [numpy_helper.from_array(np.asarray(SCALE), "s"), numpy_helper.from_array(np.asarray(ZERO), "z")]
    graph = helper.make_graph([helper.make_node(op, ["x", "s", "z"], ["y"])], "g", [x], [y], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    data = np.zeros(count, helper.tensor_dtype_to_np_dtype(dtypes[0]))
    return 1e3 * float(np.quantile(events(model, {"x": data})[op], 0.1)) / count


def table() -> Iterator[str]:
    """The table, line by line."""
    yield f"# Measured by bench/kernel_costs.py with onnxruntime {onnxruntime.__version__}, 1 thread."
    yield "[costs]"
    yield f"quantize = {conversion('QuantizeLinear'):.3g}"
    yield f"dequantize = {conversion('DequantizeLinear'):.3g}"
    yield f"gain = {GAIN}"
    for name, cases in CASES.items():
        (f, fp), (i, ip) = fitted(cases, False), fitted(cases, True)
        op, _, of = name.partition(" of ")
        where = f"{of or 'kernels'}.{op}"
        yield f"\n[costs.{where}]"
        yield f"float_element = {f:.3g}"
        yield f"integer_element = {i:.3g}"
        if cases[0].products:
            yield f"float_product = {fp:.3g}"
            yield f"integer_product = {ip:.3g}"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
