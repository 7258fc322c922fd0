"""ONNX models import one to one, at the vocabulary's opset; everything else is one QirError."""

import random
import struct
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper, parser

import qir
from qir import QirError
from qir.facts import FUNCTIONALS_LIFTED, MODULES_UNROLLED, held_by
from qir.frontends.onnx_model import import_onnx
from qir.graph import Graph
from qir.proto import model_proto
from qir.verify import verify

CONV = """
<ir_version: 8, opset_import: ["": 17]>
net (float[N,3,8,8] x) => (float[N,2] out)
<float[4,3,3,3] w, float[4] b, int64[2] shape = {0, -1}, float[2,256] dense, float[2] bias, float six = {6.0}> {
    zero = Constant<value_float = 0.0>()
    [conv1] c = Conv<pads = [1, 1, 1, 1]>(x, w, b)
    [act] r = Clip(c, zero, six)
    flat = Reshape(r, shape)
    [fc] out = Gemm<transB = 1>(flat, dense, bias)
}
"""


def model_of(text: str) -> onnx.ModelProto:
    """The model, with seeded random data for the weights that the text declares without data."""
    model = parser.parse_model(text)
    generator = np.random.default_rng(0)
    computed = {name for node in model.graph.node for name in node.output}
    for value in [value for value in model.graph.value_info if value.name not in computed]:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = generator.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        model.graph.value_info.remove(value)
    return model


def fed(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    runtime = pytest.importorskip("onnxruntime")
    runtime.set_default_logger_severity(4)
    return runtime.InferenceSession(model.SerializeToString()).run(None, feeds)


def assert_same_in_the_runtime(model: onnx.ModelProto, feeds: dict[str, np.ndarray], opset: int = 21) -> Graph:
    before = model.SerializeToString(deterministic=True)
    graph = import_onnx(model)
    assert model.SerializeToString(deterministic=True) == before
    verify(graph)
    assert str(qir.parse(str(graph))) == str(graph)
    domains = {entry.domain: entry.version for entry in model.opset_import if entry.domain}
    emitted = model_proto(graph, opset=opset, ir_version=10, domains=domains)
    for expected, got in zip(fed(model, feeds), fed(emitted, feeds), strict=True):
        np.testing.assert_array_equal(got, expected)
    return graph


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def test_a_convolutional_net_gives_the_same_bits_after_import():
    graph = assert_same_in_the_runtime(model_of(CONV), {"x": noise(2, 3, 8, 8)})
    assert [node.op for node in graph.nodes()] == ["Conv", "Clip", "Reshape", "Gemm"]


def test_tensor_names_node_names_and_symbolic_sizes_are_kept():
    graph = import_onnx(model_of(CONV))
    assert [node.result.hint for node in graph.nodes()] == ["c", "r", "flat", "out"]
    assert [node.module for node in graph.nodes()] == ["conv1", "act", "flat", "fc"]
    assert [node.scope for node in graph.nodes()] == ["conv1", "act", "flat", "fc"]
    assert [str(node.result.type) for node in graph.nodes()][:2] == ["f32[N,4,8,8]", "f32[N,4,8,8]"]


def test_every_call_has_a_layer_of_its_own():
    assert {FUNCTIONALS_LIFTED, MODULES_UNROLLED} <= held_by(import_onnx(model_of(CONV)))
    twice = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] z) { [a] y = Relu(x) [a] z = Relu(y) }'
    )
    assert [node.module for node in import_onnx(twice).nodes()] == ["a", "a_1"]


def test_weights_keep_their_names_and_what_acts_as_an_attribute_is_a_literal():
    graph = import_onnx(model_of(CONV))
    assert {value.hint: value.weight.paths for value in graph.weights()} == {
        "w": ("w",), "b": ("b",), "dense": ("dense",), "bias": ("bias",), "zero": (), "six": (), "shape": (),
    }  # fmt: skip
    assert "Clip %c, f32[](0.0), f32[](6.0)" in str(graph)


def test_the_scales_of_resize_are_literals_and_a_small_bias_is_not():
    model = model_of(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,2,4,4] x) => (float[1,2,8,8] z) '
        "<float[4] scales = {1.0, 1.0, 2.0, 2.0}, "
        "float[2] scale, float[2] bias, float[2] mean, float[2] var = {1.0, 2.0}>"
        '{ y = Resize<mode = "linear">(x, , scales) z = BatchNormalization(y, scale, bias, mean, var) }'
    )
    graph = assert_same_in_the_runtime(model, {"x": noise(1, 2, 4, 4)})
    assert {value.hint for value in graph.weights() if not value.weight.paths} == {"scales"}


def test_a_weight_that_two_nodes_read_is_one_value():
    model = model_of(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2,4] x) => (float[2,4] z) <float[4,4] w>'
        "{ y = MatMul(x, w) z = MatMul(y, w) }"
    )
    assert len(import_onnx(model).weights()) == 1


def test_unread_weights_and_inputs_that_declare_weights_are_left_out():
    model = model_of(
        '<ir_version: 3, opset_import: ["": 17]> g (float[2] x, float[2] w) => (float[2] y)'
        "<float[2] w, float[2] unread> { y = Mul(x, w) }"
    )
    graph = import_onnx(model)
    assert [value.hint for value in graph.inputs] == ["x"]
    assert [value.hint for value in graph.weights()] == ["w"]


def test_quantize_and_dequantize_stay_as_they_are():
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[2,3] x) => (float[2,3] y)'
        "<float scale = {0.5}, int8 zero = {0}, int8[3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>"
        "{ q = QuantizeLinear(x, scale, zero) d = DequantizeLinear(q, scale, zero)"
        "  v = DequantizeLinear(w, scale, zero) y = MatMul(d, v) }"
    )
    graph = assert_same_in_the_runtime(model, {"x": noise(2, 3)})
    assert [node.op for node in graph.nodes()] == ["QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul"]


def test_operators_of_other_domains_are_kept_with_the_types_that_the_model_states():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[2,3] x) => (float[2,3] z)'
        "<float[2,3] y> { y = com.microsoft.Gelu(x) z = Relu(y) }"
    )
    graph = assert_same_in_the_runtime(model, {"x": noise(2, 3)})
    assert [(node.op, str(node.result.type)) for node in graph.nodes()] == [
        ("com.microsoft.Gelu", "f32[2,3]"), ("Relu", "f32[2,3]"),
    ]  # fmt: skip


def test_functions_that_the_model_defines_are_inlined():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "local": 1]> g (float[2] x) => (float[2] y) <float[2] w = {1.0, 2.0}>'
        "{ [call] y = local.twice(x, w) }"
        '<domain: "local", opset_import: ["": 17]> twice (a, b) => (c) { s = Add(a, b) c = Mul(s, b) }'
    )
    graph = assert_same_in_the_runtime(model, {"x": noise(2)})
    assert [node.op for node in graph.nodes()] == ["Add", "Mul"]
    assert graph.outputs[0].hint == "y"


def test_nodes_may_stand_in_any_order():
    model = model_of(CONV)
    nodes = list(reversed(model.graph.node))
    expected = str(import_onnx(model))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert str(import_onnx(model)) == expected


def test_outputs_may_be_inputs_and_weights():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] x, float[2] w)<float[2] w = {1.0, 2.0}> {}'
    )
    graph = import_onnx(model)
    assert [value.hint for value in graph.outputs] == ["x", "w"]


def test_left_out_operands_and_results_keep_their_places():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,1,4,4] x) => (int64[1,1,2,2] i) '
        "{ , i = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x) }"
    )
    graph = import_onnx(model)
    assert len(graph.nodes()[0].results) == 2
    assert graph.outputs[0].port == 1


# -- older opsets --------------------------------------------------------------------------------------------------

IMAGE = "float[2,3,8,8] x"
OLD = [
    (11, IMAGE, "y = Softmax<axis = 1>(x)"),
    (11, IMAGE, "y = LogSoftmax<axis = 3>(x)"),
    (9, IMAGE, "y = Clip<min = -0.5, max = 0.5>(x)"),
    (11, IMAGE, "y = ReduceSum<axes = [1], keepdims = 0>(x)"),
    (13, IMAGE, "y = ReduceMean<axes = [2, 3]>(x)"),
    (11, "float[1,3] x", "y = Squeeze<axes = [0]>(x)"),
    (11, "float[1,3] x", "y = Unsqueeze<axes = [0]>(x)"),
    (7, IMAGE, "y = Dropout<ratio = 0.5>(x)"),
    (11, IMAGE, "y, z = Split<axis = 3>(x)"),
    (11, IMAGE, "y, z = Split<axis = 3, split = [3, 5]>(x)"),
    (13, IMAGE, "y, z = Split<axis = 3>(x)"),
    (9, IMAGE, "y = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 2.0>(x)"),
    (9, IMAGE, "y = Slice<starts = [1], ends = [-1], axes = [2]>(x)"),
    (9, IMAGE, "y, i = TopK<k = 3>(x)"),
    (8, IMAGE, 'y = Upsample<mode = "nearest", scales = [1.0, 1.0, 2.0, 2.0]>(x)'),
    (8, IMAGE, 'y = Upsample<mode = "linear", scales = [1.0, 1.0, 2.0, 2.0]>(x)'),
    (16, "float[1,3,8,8] x, float[1,4,4,2] at", 'y = GridSample<mode = "bilinear">(x, at)'),
    (10, "float[1,3,8,8] x, float[1,4] at, int64[1] of", "y = RoiAlign(x, at, of)"),
    (17, "float[1,8,1] x", "y = DFT<axis = 1>(x)"),
    (9, "float[2,3] x, int64[2,3] of, float[2,3] at", "y = Scatter(x, of, at)"),
    (10, "float[2,3] x, int64[1] of", "y = Gather(x, of)"),
    (8, IMAGE, "y = MaxPool<kernel_shape = [2, 2]>(x)"),
]


@pytest.mark.parametrize(("opset", "inputs", "body"), OLD, ids=[f"{o}-{b.split('= ')[1][:12]}" for o, _, b in OLD])
def test_nodes_of_older_opsets_keep_their_meaning(opset: int, inputs: str, body: str):
    outputs = ", ".join(
        f"{'int64' if name == 'i' else 'float'}[...] {name}" for name in body.split(" = ")[0].split(", ")
    )
    outputs = outputs.replace("[...]", "")
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}')
    feeds = {}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        whole = value.type.tensor_type.elem_type == TensorProto.INT64
        feeds[value.name] = np.zeros(shape, np.int64) if whole else np.abs(noise(*shape))
    assert_same_in_the_runtime(model, feeds)


def test_only_the_nodes_that_changed_are_converted():
    model = model_of(CONV.replace('"": 17', '"": 13'))
    assert str(import_onnx(model)) == str(import_onnx(model_of(CONV)))


def test_a_converted_node_keeps_its_name():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 11]> g (float[N,3,8] x) => (float[N,3,8] y) { [soft] y = Softmax(x) }'
    )
    graph = import_onnx(model)
    assert {node.op: node.module for node in graph.nodes()}["Softmax"] == "soft"
    assert {node.scope for node in graph.nodes()} == {"soft"}
    assert (graph.outputs[0].hint, str(graph.outputs[0].type)) == ("y", "f32[N,3,8]")


def test_nodes_without_an_equal_at_the_newest_opset_are_listed():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[1,4] x, float[2] s, float[2] b) => (float[1,4] z)'
        "{ [one] y = GroupNormalization<num_groups = 2>(x, s, b)"
        "  [two] z = GroupNormalization<num_groups = 2>(y, s, b) }"
    )
    with pytest.raises(QirError) as caught:
        import_onnx(model)
    assert "one (GroupNormalization)" in str(caught.value)
    assert "two (GroupNormalization)" in str(caught.value)


# -- files ---------------------------------------------------------------------------------------------------------


def saved(folder: Path, model: onnx.ModelProto, **options: object) -> Path:
    path = folder / "net.onnx"
    onnx.save(model, path, **options)
    return path


def external(folder: Path) -> Path:
    options = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    return saved(folder, model_of(CONV), **options)


def test_external_data_is_mapped_and_equal(tmp_path: Path):
    graph = import_onnx(external(tmp_path))
    weight = next(value.weight for value in graph.weights() if value.hint == "w")
    base = weight.array
    while isinstance(base.base, np.ndarray):
        base = base.base
    assert isinstance(base, np.memmap)
    assert str(graph) == str(import_onnx(model_of(CONV)))


@pytest.mark.parametrize("dtype", [TensorProto.INT4, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.UINT2])
def test_external_data_of_every_width_is_read(tmp_path: Path, dtype: int):
    values = np.array([[0, 1, 2], [1, 2, 0], [3, 0, 1]])
    tensor = helper.make_tensor("w", dtype, [3, 3], values)
    graph = helper.make_graph([], "g", [], [helper.make_tensor_value_info("w", dtype, [3, 3])], [tensor])
    model = helper.make_model(graph)
    inline = import_onnx(model).weights()[0].weight
    raw = numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
    (tmp_path / "w.bin").write_bytes(raw)
    entry = model.graph.initializer[0]
    entry.ClearField("int32_data")
    entry.ClearField("raw_data")
    entry.data_location = TensorProto.EXTERNAL
    entry.external_data.add(key="location", value="w.bin")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    assert import_onnx(path).weights()[0].weight.digest == inline.digest


def moved(path: Path, key: str, value: str) -> Path:
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        kept = [entry for entry in tensor.external_data if entry.key != key]
        entries = [onnx.StringStringEntryProto(key=e.key, value=e.value) for e in kept]
        del tensor.external_data[:]
        tensor.external_data.extend([*entries, onnx.StringStringEntryProto(key=key, value=value)])
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("location", "gone.data", "is missing"),
        ("location", "../net.data", "outside of the model's folder"),
        ("location", "", "outside of the model's folder"),
        ("offset", "100000000", "ends before"),
        ("offset", "-4", "is damaged"),
        ("offset", "x", "is damaged"),
        ("length", "3", "is damaged"),
    ],
)
def test_external_data_that_is_not_there_is_one_error(tmp_path: Path, key: str, value: str, message: str):
    folder = tmp_path / "model"
    folder.mkdir()
    path = moved(external(folder), key, value)
    (tmp_path / "net.data").write_bytes((folder / "net.data").read_bytes())
    with pytest.raises(QirError, match=message):
        import_onnx(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder)
    (folder / "net.data").rename(tmp_path / "elsewhere")
    (folder / "net.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(QirError, match="outside of the model's folder"):
        import_onnx(path)


def test_a_model_in_memory_has_no_external_data(tmp_path: Path):
    model = onnx.load(external(tmp_path), load_external_data=False)
    with pytest.raises(QirError, match="has no folder"):
        import_onnx(model)


@pytest.mark.parametrize("content", [b"", b"hello, world", bytes(range(256)) * 4, b"\x08\x08"])
def test_a_file_that_is_no_model_is_one_error(tmp_path: Path, content: bytes):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(QirError, match="is no ONNX model"):
        import_onnx(path)


def test_a_missing_file_and_a_folder_are_one_error(tmp_path: Path):
    with pytest.raises(QirError, match="can not read"):
        import_onnx(tmp_path / "none.onnx")
    with pytest.raises(QirError, match="can not read"):
        import_onnx(str(tmp_path))


def test_a_truncated_file_is_one_error(tmp_path: Path):
    whole = model_of(CONV).SerializeToString()
    path = tmp_path / "net.onnx"
    for size in range(1, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(QirError):
            import_onnx(path)


# -- models that can not be ----------------------------------------------------------------------------------------

HEAD = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) '


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "{ [p] y = Add(x, z) [q] z = Relu(y) }", ["these nodes read what they compute", "p (Add)", "q (Relu)"]),
        (HEAD + "{ [p] y = Add(x, z) }", ["p (Add) reads 'z', which nothing computes"]),
        (HEAD + "{ z = Relu(x) }", ["the output 'y' is computed by nothing"]),
        (HEAD + "{ y = Relu(x) y = Abs(x) }", ["the tensor 'y' is computed 2 times"]),
        (HEAD + "{ y = Relu(x) x = Abs(y) }", ["the tensor 'x' is computed and also given"]),
        (HEAD + "{ [p] y = Rleu(x) }", ["p (Rleu): there is no such operator at opset 17"]),
        (HEAD + "{ [p] y = other.F(x) }", ["p (other.F): no opset is declared for the domain 'other'"]),
        (HEAD + "{ [p] y = Add(x) }", ["p (Add): Add reads at least 2 operands; B is missing"]),
        (HEAD + "{ [p] y = Relu<alpha = 1.0>(x) }", ["p (Relu): Relu has no attribute 'alpha'"]),
        (HEAD + "{ [p] y, z = Relu(x) }", ["p (Relu): Relu has 2 results"]),
        (
            HEAD + "{ c = Constant<value = bool {1}>() [p] y = If(c) <"
            "then_branch = t () => (float[2] a) { [r] a = Rleu(x) },"
            "else_branch = e () => (float[2] b) { b = Abs(x) }> }",
            ["r (Rleu): there is no such operator at opset 17"],
        ),
        (
            HEAD + "{ c = Constant<value = bool {1}>() [p] y = If(c) <"
            "then_branch = t () => (float[2] a) { [r] a = Add(x) },"
            "else_branch = e () => (float[2] b) { b = Abs(z) }> }",
            ["reads 'z', which nothing computes"],
        ),
        (
            HEAD + "{ c = Constant<value = bool {1}>() [p] y = If(c) <"
            "then_branch = t () => (float[2] a) { [r] a = Add(x) },"
            "else_branch = e () => (float[2] b) { b = Abs(x) }> }",
            ["p (If): r (Add): Add reads at least 2 operands; B is missing"],
        ),
        (
            HEAD + "{ c = Constant<value = bool {1}>() [p] y = If<then_branch = 1.0, else_branch = 2>(c) }",
            ["p (If): attribute 'else_branch' of If is of kind GRAPH; 2 is not"],
        ),
        (
            HEAD + "{ [p] y = torch.os.system(x) }",
            ["p (torch.os.system): the domain 'torch.os' is not one of ONNX operators"],
        ),
        (HEAD.replace("17", "99") + "{ y = Relu(x) }", ["the model has opset 99"]),
        (HEAD.replace('"": 17', "") + "{ y = Relu(x) }", ["declares no opset"]),
        (HEAD.replace("float[2] x", "sparse_tensor(float[2]) x") + "{ y = Relu(x) }", ["x: it is no tensor"]),
    ],
)
def test_what_is_wrong_with_a_model_is_one_error_that_lists_it(text: str, said: list[str]):
    with pytest.raises(QirError) as caught:
        import_onnx(parser.parse_model(text))
    for part in said:
        assert part in str(caught.value)


def test_damaged_weights_are_one_error():
    model = model_of(CONV)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    weight.raw_data = weight.raw_data[:-3]
    with pytest.raises(QirError, match="the data of the tensor 'w' is damaged"):
        import_onnx(model)
    weight.data_type = 77
    with pytest.raises(QirError, match="no element type"):
        import_onnx(model)


def mutated(seed: bytes, generator: random.Random) -> bytes:
    """`seed` with a few bytes changed, inserted, removed, or a piece of it repeated."""
    data = bytearray(seed)
    for _ in range(generator.randint(1, 6)):
        at = generator.randrange(len(data))
        match generator.randrange(5):
            case 0:
                data[at] = generator.randrange(256)
            case 1:
                data[at] ^= 1 << generator.randrange(8)
            case 2:
                del data[at : at + generator.randint(1, 8)]
            case 3:
                data[at:at] = struct.pack("<Q", generator.getrandbits(64))[: generator.randint(1, 8)]
            case 4:
                piece = data[at : at + generator.randint(1, 40)]
                data[at:at] = piece
        if not data:
            return b""
    return bytes(data)


FUZZ_SEEDS = [
    CONV,
    HEAD + "{ c = Constant<value_ints = [2]>() s = Shape(x) r = Reshape(x, s) k = Expand(r, c) y = Tile(k, c) }",
    '<ir_version: 8, opset_import: ["": 11]> g (float[1,3,8] x) => (float[1,3,8] y)'
    "{ s = Softmax(x) q = Squeeze<axes = [0]>(s) y = Unsqueeze<axes = [0]>(q) }",
    HEAD + "<float w = {0.5}, int64 n = {3}> { c = Constant<value = bool {1}>() y = Loop(n, c, x) <body = b"
    "  (int64 i, bool g, float[2] s) => (bool h, float[2] t) { h = Identity(g) t = If(g) <"
    "  then_branch = p () => (float[2] a) { a = Mul(s, w) }, else_branch = q () => (float[2] e) { e = Abs(x) }> }> }",
    HEAD + "{ s = SequenceConstruct(x, x) o = Optional(s) g = OptionalGetElement(o) k = Constant<value_int = 0>()"
    "  y = SequenceAt(g, k) }",
    HEAD + "<float s = {0.5}, uint8 z = {1}> { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
    '<ir_version: 8, opset_import: ["": 17, "local": 1]> g (float[2] x) => (float[2] y) { y = local.f(x) }'
    '<domain: "local", opset_import: ["": 17]> f (a) => (c) { s = Add(a, a) c = Mul(s, a) }',
]


def shuffled(model: onnx.ModelProto, generator: random.Random) -> onnx.ModelProto:
    """`model` with a few names, attributes, types or nodes of one place put into another."""
    graphs = [model.graph]
    for graph in graphs:
        graphs += [a.g for node in graph.node for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    for _ in range(generator.randint(1, 4)):
        graph, other = generator.choice(graphs), generator.choice(graphs)
        node, given = (generator.choice(g.node) if g.node else onnx.NodeProto() for g in (graph, other))
        donor = onnx.NodeProto.FromString(given.SerializeToString())
        names = [*donor.input, *donor.output, "", "x", "w", "gone"]
        match generator.randrange(8):
            case 0 if node.input:
                node.input[generator.randrange(len(node.input))] = generator.choice(names)
            case 1 if node.output:
                node.output[generator.randrange(len(node.output))] = generator.choice(names)
            case 2:
                node.attribute.extend(donor.attribute)
            case 3:
                node.op_type = donor.op_type
            case 4 if node.attribute:
                del node.attribute[generator.randrange(len(node.attribute))]
            case 5 if graph.output and other.input:
                graph.output[0].name = generator.choice(other.input).name
            case 6:
                graph.node.add().CopyFrom(donor)
            case 7:
                node.input.append(generator.choice(names))
    return model


def fuzz(count: int, seed: int = 0) -> int:
    """Import `count` mutated models; how many were accepted. Raises whatever is no QirError."""
    generator, accepted = random.Random(seed), 0
    models = [model_of(text) for text in FUZZ_SEEDS]
    for tensor in models[0].graph.initializer:
        if tensor.name == "dense":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((2, 2), np.float32), "dense"))
    seeds = [model.SerializeToString() for model in models]
    for _ in range(count):
        data = generator.choice(seeds)
        structural = generator.random() < 0.4
        try:
            model = onnx.ModelProto.FromString(data if structural else mutated(data, generator))
            model = shuffled(model, generator) if structural else model
        except DecodeError:
            continue
        try:
            graph = import_onnx(model)
        except QirError:
            continue
        accepted += 1
        assert str(qir.parse(str(graph))) == str(graph)
    return accepted


def test_mutated_models_import_or_raise_a_qir_error():
    assert fuzz(2000) > 0
