"""Grids that no integer kernel has: onnxruntime computes as the simulator does, and a pass says why in float."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from qir.backends.onnx_qdq import emit_onnx, session
from qir.backends.torch_module import emit_torch
from qir.encodings.encoding import Encoding, FloatEncoding
from qir.graph import Graph
from qir.passes.fuse_integer import FuseInteger
from qir.passes.legalize_onnx import LegalizeOnnx
from qir.passes.propagate_encodings import PropagateEncodings
from qir.types import TensorType
from qir.weights import Weight

RANDOM = np.random.default_rng(5)
X = RANDOM.normal(size=(2, 4, 6, 6)).astype(np.float32)
W = RANDOM.normal(size=(3, 4, 3, 3)).astype(np.float32)
U8, I8 = Encoding("u8"), Encoding("i8", True, 0)


def convolution(source: Encoding, weight: Encoding, result: Encoding) -> Graph:
    """Conv, with these grids for what it reads and writes."""
    graph = Graph("net")
    x = graph.input("x", TensorType("f32", X.shape))
    w = graph.weight(Weight(W, ("conv.weight",), trainable=True))
    y = torch.conv2d(torch.from_numpy(X), torch.from_numpy(W)).numpy()
    grids = [replace(grid.with_range(*grid.ranges(data))) for grid, data in ((source, X), (weight, W), (result, y))]
    x_q = graph.add("qir.Quantize", [x], {"encoding": grids[0]}, hint="x_q", module="x_quantizer")
    w_q = graph.add("qir.Quantize", [w], {"encoding": grids[1]}, hint="w_q", module="conv.weight_quantizer")
    conv = graph.add("Conv", [x_q.result, w_q.result], module="conv")
    graph.outputs = graph.add("qir.Quantize", [conv.result], {"encoding": grids[2]}, module="conv.quantizer").results
    return graph


PER_CHANNEL = "an activation has a scale for each channel"
BLOCKS = {"block_axis": 1, "block_size": 2}
CASES = {
    "it reads %w_q from i4, and its kernel reads 8 bits": (U8, Encoding("i4", True, 0, True), U8),
    "it reads %w_q from i16 in blocks, and its kernel reads 8 bits": (U8, Encoding("i8", True, 0, **BLOCKS), U8),
    "it reads %x_q from u16, and its kernel reads 8 bits": (Encoding("u16"), I8, U8),
    "it reads %x_q from f8e4m3fn, and its kernel reads 8 bits": (FloatEncoding("f8e4m3"), FloatEncoding("f8e5m2"), U8),
    "it writes u16, and its kernel writes 8 bits": (U8, I8, Encoding("u16")),
    PER_CHANNEL: (Encoding("u8", axis=1), I8, U8),
    "it reads %x_q in float": (FloatEncoding("bf16"), FloatEncoding("f16"), Encoding("u5")),
}  # fmt: skip


@pytest.mark.parametrize("reason", CASES)
def test_onnxruntime_computes_what_the_simulator_does_and_the_pass_says_why_in_float(reason: str) -> None:
    graph = convolution(*CASES[reason])
    last = graph.outputs[0].node
    assert last is not None
    step = np.max(last.attrs["encoding"].scale)
    simulated = emit_torch(graph)(torch.from_numpy(X)).detach().numpy()
    LegalizeOnnx().run(graph)
    for optimize in (False, True):
        if optimize and reason == PER_CHANNEL:
            continue  # onnxruntime fuses such a convolution into a kernel that then refuses it
        shipped = session(emit_onnx(graph), optimize=optimize).run(None, {"x": X})[0]
        assert np.abs(shipped - simulated).max() <= 1.01 * step  # float sums may round to the next step
        assert np.mean(shipped == simulated) > 0.98
    (note,) = (note for note in FuseInteger().run(graph).missed if note.op == "Conv")
    assert note.reason == reason


@pytest.mark.parametrize(
    ("first", "second", "tied"),
    [
        (Encoding("u16"), Encoding("u16"), True),
        (Encoding("u16"), Encoding("u8"), False),
        (FloatEncoding("f8e4m3"), FloatEncoding("f8e4m3"), True),
        (Encoding("i8", True, block_axis=3, block_size=2), Encoding("i8", True, block_axis=3, block_size=2), False),
    ],
)
def test_a_pool_ties_grids_of_one_kind(first: Encoding, second: Encoding, tied: bool) -> None:
    graph = Graph("net")
    x = graph.add("qir.Quantize", [graph.input("x", TensorType("f32", X.shape))], {"encoding": first})
    pool = graph.add("MaxPool", [x.result], {"kernel_shape": (2, 2)})
    y = graph.add("qir.Quantize", [pool.result], {"encoding": second})
    graph.outputs = y.results
    outcome = PropagateEncodings().run(graph)
    assert (y.attrs["encoding"] is x.attrs["encoding"]) == tied
    assert [note.reason for note in outcome.missed] == ([] if tied else ["its tensors have grids of different kinds"])
