"""QDQ models are imported with their encodings, edited and written again."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper, parser

import qir
from qir import Pipeline
from qir.backends.onnx_qdq import emit_onnx, session
from qir.backends.torch_module import emit_torch
from qir.backends.torch_snapshot import snapshot
from qir.encodings.encoding import ProductEncoding
from qir.frontends.onnx_model import import_onnx
from qir.graph import Graph
from qir.passes.fold_qdq import FoldQdq
from qir.quantizers import quantizers
from qir.verify import verify


def resnet() -> onnx.ModelProto:
    """A small residual net, its tensors and nodes named as torch's exporter names them."""
    generator = np.random.default_rng(0)
    sizes = {"conv1.weight": (8, 3, 3, 3), "conv1.bias": (8,), "conv2.weight": (8, 8, 3, 3), "conv2.bias": (8,),
             "fc.weight": (4, 8), "fc.bias": (4,)}  # fmt: skip
    weights = [numpy_helper.from_array(generator.normal(size=s).astype(np.float32) * 0.2, n) for n, s in sizes.items()]
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "conv1.weight", "conv1.bias"], ["a"], "/conv1/Conv", pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"], "/relu/Relu"),
        node("Conv", ["b", "conv2.weight", "conv2.bias"], ["c"], "/conv2/Conv", pads=[1, 1, 1, 1]),
        node("Add", ["c", "b"], ["d"], "/Add"),
        node("Relu", ["d"], ["e"], "/relu_1/Relu"),
        node("GlobalAveragePool", ["e"], ["f"], "/pool/Pool"),
        node("Flatten", ["f"], ["g"], "/Flatten"),
        node("Gemm", ["g", "fc.weight", "fc.bias"], ["out"], "/fc/Gemm", transB=1),
    ]
    inputs, outputs = (
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
        for name, shape in (("x", ["N", 3, 8, 8]), ("out", ["N", 4]))
    )
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


X = np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype(np.float32)


def run(model: onnx.ModelProto, *, optimize: bool = False) -> np.ndarray:
    return session(model, optimize=optimize).run(None, {"x": X})[0]


class Reader:
    """Calibration data as onnxruntime's quantizer takes it."""

    def __init__(self) -> None:
        self.left = [{"x": X}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None

    def set_range(self, *_: int) -> None:
        pass

    def __len__(self) -> int:
        return 1


def quantized_by_onnxruntime(folder: Path, per_channel: bool) -> onnx.ModelProto:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    onnx.save(resnet(), folder / "float.onnx")
    quantize_static(folder / "float.onnx", folder / "int8.onnx", Reader(), quant_format=QuantFormat.QDQ,
                    per_channel=per_channel, weight_type=QuantType.QInt8)  # fmt: skip
    return onnx.load(folder / "int8.onnx")


def folded(model: onnx.ModelProto) -> Graph:
    graph = import_onnx(model)
    Pipeline.parse("fold-qdq").run(graph)
    verify(graph)
    return graph


def written(graph: Graph) -> onnx.ModelProto:
    legal = graph.copy()
    Pipeline.parse("legalize-onnx", legal).run(legal)
    return emit_onnx(legal)


def integers(model: onnx.ModelProto) -> list[bytes]:
    arrays = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    return sorted(array.tobytes() for array in arrays if array.dtype.kind in "iu" and array.size > 4)


@pytest.mark.parametrize("per_channel", [False, True])
def test_a_file_of_onnxruntimes_quantizer_is_folded_and_written_again_bit_for_bit(tmp_path: Path, per_channel: bool):
    model = quantized_by_onnxruntime(tmp_path, per_channel)
    graph = folded(model)
    assert not any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes())
    assert sum(isinstance(node.attrs["encoding"], ProductEncoding) for node in quantizers(graph)) == 3
    again = written(graph)
    assert integers(again) == integers(model)
    for optimize in (False, True):
        np.testing.assert_array_equal(run(again, optimize=optimize), run(model, optimize=optimize))


def test_a_quantized_file_is_edited_and_written_again(tmp_path: Path):
    graph = folded(quantized_by_onnxruntime(tmp_path, per_channel=True))
    first = next(node for node in quantizers(graph) if node.operands[0] is graph.inputs[0])
    graph.replace(first.result, first.operands[0])
    graph.erase(first)
    bias = next(node for node in quantizers(graph) if node.operands[0].hint == "conv1.bias")
    graph.replace(bias.result, bias.operands[0])
    graph.erase(bias)
    again = written(graph)
    assert not any(list(node.input)[:1] == ["x"] and node.op_type == "QuantizeLinear" for node in again.graph.node)
    assert run(again).shape == (4, 4)


HEAD = '<ir_version: 10, opset_import: ["": 21]> g (float[2,3] x) => (float[2,3] y) '
PAIR = "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
GRID = "<float s = {0.5}, uint8 z = {1}> "
LEFT = [
    (HEAD + GRID.replace("1}", "1}, uint8 v = {2}") + PAIR.replace("(q, s, z)", "(q, s, v)"), "another grid"),
    (
        HEAD + GRID.replace("1}", "1}, float t = {0.5}") + "{ q = QuantizeLinear(x, s, z) r = Relu(t) "
        "y = DequantizeLinear(q, r, z) }",
        "is computed",
    ),
    (HEAD.replace("float[2,3] y", "float[2,3] y, uint8[2,3] q") + GRID + PAIR, "read by others"),
    (
        HEAD + "<float s = {1.0}, int32[2,3] w = {2000000001, 1, 2, 3, 4, 5}> "
        "{ v = DequantizeLinear(w, s) y = Add(x, v) }",
        "too large",
    ),
    (HEAD.replace("float[2,3] x", "uint8[2,3] x") + GRID + "{ y = DequantizeLinear(x, s, z) }", "come from elsewhere"),
    (HEAD + GRID.replace("0.5", "-0.5") + PAIR, "not positive"),
]


@pytest.mark.parametrize(("text", "why"), LEFT)
def test_what_is_no_quantizer_stays_and_says_why(text: str, why: str):
    graph = import_onnx(parser.parse_model(text))
    before = str(graph)
    outcome = FoldQdq().run(graph)
    assert str(graph) == before
    assert [why in note.reason for note in outcome.missed] == [True]


def test_tied_scales_are_one_encoding_and_equal_ones_are_two():
    text = HEAD + "<float s = {0.5}, uint8 z = {1}, float t = {0.5}, uint8 v = {1}> { q = QuantizeLinear(x, s, z) "
    text += "a = DequantizeLinear(q, s, z) b = QuantizeLinear(a, s, z) c = DequantizeLinear(b, s, z) "
    text += "d = QuantizeLinear(c, t, v) y = DequantizeLinear(d, t, v) }"
    graph = folded(parser.parse_model(text))
    first, second, third = (node.attrs["encoding"] for node in quantizers(graph))
    assert first is second
    assert second is not third


def test_an_onnx_file_is_fine_tuned_in_torch_and_written_again():
    quantized = qir.quantize(import_onnx(resnet()), data=[X])
    module = emit_torch(quantized.graph)
    assert {name for name, _ in module.named_parameters()} >= {"conv1.weight", "conv2.bias", "fc.weight"}
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=0.05)
    target = torch.arange(4)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(module(torch.from_numpy(X)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    trained = snapshot(quantized.graph, module)
    with torch.no_grad():
        expected = module(torch.from_numpy(X)).numpy()
    shipped = written(trained)
    np.testing.assert_allclose(run(shipped), expected, atol=2e-2)
    assert not np.array_equal(run(shipped), run(written(quantized.graph)))
    assert [value.name for value in shipped.graph.output] == ["out"]
