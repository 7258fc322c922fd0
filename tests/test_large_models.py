"""Weights that one file can not hold are written beside it. The limits are small here; `bench.large_model` has 3 GB."""

from pathlib import Path

import numpy as np
import onnx
import pytest

import qir
from qir import QirError
from qir.backends import onnx_emit
from qir.backends.onnx_emit import emit_onnx, write_onnx
from qir.frontends.onnx_model import import_onnx
from qir.weights import Weight
from tests.test_fold_qdq import X, resnet, run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_emit, "LIMIT", 1000)
    monkeypatch.setattr(onnx_emit, "LARGE", 64)


def test_large_weights_go_beside_the_model(tmp_path: Path, small: None):
    path = tmp_path / "net.onnx"
    write_onnx(import_onnx(resnet()), path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["net.onnx", "net.onnx.data"]
    bare = onnx.load(path, load_external_data=False)
    assert {tensor.name for tensor in bare.graph.initializer if tensor.external_data} == {
        "conv1.weight", "conv2.weight", "fc.weight",
    }  # fmt: skip
    np.testing.assert_array_equal(run(onnx.load(path)), run(resnet()))
    assert import_onnx(path) == import_onnx(resnet())


def test_a_quantized_model_and_the_command_line_write_them_too(tmp_path: Path, small: None):
    quantized = qir.quantize(import_onnx(resnet()), data=[X])
    quantized.save(tmp_path / "int8.onnx")
    assert (tmp_path / "int8.onnx.data").exists()
    assert run(onnx.load(tmp_path / "int8.onnx")).shape == (4, 4)
    from qir.api.graph_files import write_graph

    write_graph(import_onnx(resnet()), tmp_path / "float.onnx")
    assert (tmp_path / "float.onnx.data").exists()


def test_a_model_in_memory_is_refused_with_what_to_do(small: None):
    with pytest.raises(QirError, match="larger than the 2 GiB") as caught:
        emit_onnx(import_onnx(resnet()))
    assert "write_onnx" in str(caught.value)


def test_four_bit_weights_are_packed(tmp_path: Path, small: None):
    import ml_dtypes

    graph = qir.Graph("g")
    points = np.arange(4096).reshape(64, 64) % 16 - 8
    weight = graph.weight(Weight(points.astype(ml_dtypes.int4), ("w",)))
    scale = graph.constant(np.float32(0.5))
    values = graph.add("DequantizeLinear", [weight, scale])
    x = graph.input("x", qir.parse("graph @g(%x: f32[1,64]) {\n  return %x\n}").inputs[0].type)
    graph.outputs = [graph.add("MatMul", [x, values.result]).result]
    path = tmp_path / "int4.onnx"
    write_onnx(graph, path)
    assert (tmp_path / "int4.onnx.data").stat().st_size == 2048
    assert import_onnx(path).weights()[0].array.astype(int).tolist() == points.tolist()


def test_nothing_half_written_is_left_behind(tmp_path: Path, small: None):
    folder = tmp_path / "file"
    folder.write_text("not a folder")
    with pytest.raises(QirError):
        write_onnx(import_onnx(resnet()), folder / "net.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
