"""The ONNX backend: a graph as a QDQ model, checked by ONNX and, on request, run by onnxruntime."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from qir.backends.onnx_emit import emit_onnx as emit_onnx
from qir.backends.onnx_opsets import CONVERSIONS
from qir.errors import QirError
from qir.evaluate import Runner
from qir.files import write_bytes
from qir.graph import Graph


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write the model to one file, whole or not at all."""
    write_bytes(Path(path), model.SerializeToString(deterministic=True))


def session(model: onnx.ModelProto, *, optimize: bool = True, threads: int = 1, save_to: Path | None = None) -> Any:
    """An onnxruntime session on the CPU, with all optimizations or none; the optimized model goes to `save_to`."""
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise QirError(f"onnxruntime can not load the model: {error}", stage="onnxruntime") from None


def executor(graph: Graph) -> Runner:
    """Runs the graph in onnxruntime with all optimizations."""
    running = session(emit_onnx(graph))
    names = [entry.name for entry in running.get_inputs()]

    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return list(running.run(None, dict(zip(names, inputs, strict=True))))

    return run


@dataclass(frozen=True)
class Executed:
    """One operator as onnxruntime runs it. `on_integers` says that it moves quantized data as it is."""

    op: str
    domain: str
    name: str
    on_integers: bool

    @property
    def integer(self) -> bool:
        """Whether it computes or moves integers."""
        return self.on_integers or self.op.startswith(("QLinear", "QGemm", "MatMulInteger", "ConvInteger"))

    @property
    def converts(self) -> bool:
        """Whether it converts between float and integers."""
        return self.op in CONVERSIONS


def executed_operators(model: onnx.ModelProto) -> list[Executed]:
    """What onnxruntime runs after all optimizations, in its order: read from the optimized model that it saves."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        session(model, save_to=path)
        optimized = onnx.load(str(path))
    integers = {t.name for t in optimized.graph.initializer if t.data_type in _EIGHT_BITS}
    integers |= {v.name for v in optimized.graph.input if v.type.tensor_type.elem_type in _EIGHT_BITS}
    found = []
    for node in optimized.graph.node:
        computes = node.op_type.startswith(("Q", "MatMulInteger")) or node.op_type in CONVERSIONS
        moves = not computes and bool(node.input) and node.input[0] in integers
        found.append(Executed(node.op_type, node.domain, node.name, moves))
        if moves or _writes_integers(node):
            integers.update(node.output)
    return found


def _writes_integers(node: onnx.NodeProto) -> bool:
    """Whether the result is 8-bit: a QGemm only when it is given the grid of its output."""
    if node.op_type == "QGemm":
        return len(node.input) > 7
    return bool(node.op_type.startswith(("QuantizeLinear", "QLinear")))


_EIGHT_BITS = (onnx.TensorProto.UINT8, onnx.TensorProto.INT8)
