"""Nodes with bodies (If, Loop, Scan, SequenceMap): imported, printed, verified, run and written again."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

import qir
from qir import Pipeline, QirError
from qir.api.graph_files import read_graph, write_graph
from qir.backends.onnx_qdq import emit_onnx, session
from qir.evaluate import evaluate
from qir.frontends.onnx_model import import_onnx
from qir.verify import verify

LOOP = """
<ir_version: 8, opset_import: ["": 17]>
net (float[2] x, float[2] unused) => (float[2] y, float[3,2] all) <float[2] w = {1.0, 2.0}, int64 n = {3}> {
    go = Constant<value = bool {1}>()
    before = Abs(x)
    [loop] y, all = Loop(n, go, x) <body = step (int64 i, bool c, float[2] s) => (bool c2, float[2] s2, float[2] out) {
        c2 = Identity(c)
        t = Mul(s, w)
        k = Constant<value_floats = [0.5, 0.5]>()
        [deep] u = If(c) <
            then_branch = then () => (float[2] a) { a = Add(t, before) },
            else_branch = otherwise () => (float[2] b) { b = Sub(t, k) }
        >
        s2 = Identity(u)
        out = Identity(u)
    }>
}
"""

TEXT = """graph @net(%x: f32[2], %unused: f32[2]) {
  %w = weight w : f32[2] #60f83fd0cda76d99
  %before = Abs %x : f32[2] [before] @ (before)
  %y, %all = Loop i64[](3), bool[](True), %x, %w, %before {body=@step} : f32[2], f32[3,2] [loop] @ (loop)
  return %y, %all
  graph @step(%i: i64[], %c: bool[], %s: f32[2]) captures (%w: f32[2], %before: f32[2]) {
    %c2 = Identity %c : bool[] [c2] @ (c2)
    %t = Mul %s, %w : f32[2] [t] @ (t)
    %u = If %c, %t, f32[2](0.5, 0.5), %before {else_branch=@otherwise, then_branch=@then} : f32[2] [deep] @ (deep)
    %s2 = Identity %u : f32[2] [s2] @ (s2)
    %out = Identity %u : f32[2] [out] @ (out)
    return %c2, %s2, %out
    graph @otherwise() captures (%t: f32[2], %k: f32[2], %before: f32[2]) {
      %b = Sub %t, %k : f32[2] [b] @ (b)
      return %b
    }
    graph @then() captures (%t: f32[2], %k: f32[2], %before: f32[2]) {
      %a = Add %t, %before : f32[2] [a] @ (a)
      return %a
    }
  }
}"""

X = np.array([0.5, -1.0], np.float32)


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    return session(model).run(None, feeds)


def test_bodies_are_printed_inside_the_graph_and_read_again():
    graph = import_onnx(parser.parse_model(LOOP))
    verify(graph)
    assert str(graph) == TEXT
    assert qir.parse(str(graph)) == graph
    verify(qir.parse(str(graph)))


def test_what_a_body_captures_is_an_operand():
    graph = import_onnx(parser.parse_model(LOOP))
    loop = next(node for node in graph.nodes() if node.op == "Loop")
    captured = [value.hint for value in loop.operands[-loop.captured :]]
    assert sorted(captured) == ["before", "w"]
    before = next(node.result for node in graph.nodes() if node.op == "Abs")
    assert [use.node for use in before.uses] == [loop]


def test_outputs_and_names_are_those_of_the_model():
    model = parser.parse_model(LOOP)
    emitted = emit_onnx(import_onnx(model))
    expected, got = (run(each, x=X, unused=X) for each in (model, emitted))
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert [value.name for value in emitted.graph.input] == ["x", "unused"]
    assert [value.name for value in emitted.graph.output] == ["y", "all"]
    assert {"w", "n"} <= {tensor.name for tensor in emitted.graph.initializer}
    loop = next(node for node in emitted.graph.node if node.op_type == "Loop")
    assert loop.name == "loop"
    assert list(loop.input) == ["n", "go", "x"]


def test_the_reference_evaluator_runs_bodies():
    model = parser.parse_model(LOOP)
    for mine, theirs in zip(evaluate(import_onnx(model), [X, X]), run(model, x=X, unused=X), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)


def test_bodies_are_legalized_with_the_graph_around_them():
    model = parser.parse_model(
        '<ir_version: 11, opset_import: ["": 24]> g (float[2] x, bool c) => (float[2] y) { y = If(c) <'
        "then_branch = t () => (float[2] a) { a = Swish(x) }, else_branch = e () => (float[2] b) { b = Abs(x) }> }"
    )
    graph = import_onnx(model)
    before = str(graph)
    legal = Pipeline.parse("legalize-onnx", graph).run(graph.copy())
    assert str(graph) == before
    emitted = emit_onnx(legal, opset=21)
    np.testing.assert_allclose(run(emitted, x=X, c=np.array(True))[0], X / (1 + np.exp(-X)), rtol=1e-6)


def test_weights_of_bodies_lie_in_the_file_beside_the_text(tmp_path: Path):
    model = parser.parse_model(LOOP)
    body = model.graph.node[-1].attribute[0].g
    body.initializer.append(numpy_helper.from_array(np.arange(64, dtype=np.float32).reshape(32, 2), "table"))
    body.node.append(helper.make_node("ReduceMax", ["table"], ["top"], keepdims=0))
    body.node[-2].input[0] = "top"
    body.node[-2].op_type = "Identity"
    body.output[2].type.tensor_type.shape.Clear()
    model.graph.output[1].type.tensor_type.shape.Clear()
    model.graph.output[1].type.tensor_type.shape.dim.add().dim_value = 3
    graph = import_onnx(model)
    path = tmp_path / "net.qir"
    write_graph(graph, path)
    again = read_graph(str(path))
    assert again == graph
    assert run(emit_onnx(again), x=X, unused=X)[1].tolist() == [63.0, 63.0, 63.0]


def test_a_copy_of_the_graph_shares_the_bodies():
    graph = import_onnx(parser.parse_model(LOOP))
    assert graph.copy() == graph


def test_sequences_and_optionals_are_types():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (seq(float[2]) s, optional(float[2]) o) => (seq(float[2]) t, bool h)'
        "{ one = OptionalGetElement(o) t = SequenceInsert(s, one) h = OptionalHasElement(o) }"
    )
    graph = import_onnx(model)
    verify(graph)
    assert [str(value.type) for value in graph.inputs] == ["seq(f32[2])", "optional(f32[2])"]
    assert [str(value.type) for value in graph.outputs] == ["seq(f32[2])", "bool[]"]
    assert qir.parse(str(graph)) == graph
    emitted = emit_onnx(graph)
    expected, got = (run(each, s=[X], o=X) for each in (model, emitted))
    np.testing.assert_array_equal(got[0], expected[0])


def test_foreign_domains_keep_their_version():
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1, "unread": 7]> g (float[2,3] x) => (float[2,3] y)'
        "{ y = com.microsoft.Gelu(x) }"
    )
    graph = import_onnx(model)
    assert graph.opsets == {"com.microsoft": 1}
    assert "  opset com.microsoft 1\n" in str(graph)
    assert qir.parse(str(graph)).opsets == graph.opsets
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(run(emit_onnx(graph), x=x)[0], run(model, x=x)[0])


def test_a_scan_of_opset_8_scans_each_element_of_the_batch():
    model = parser.parse_model(
        '<ir_version: 3, opset_import: ["": 8]> g (float[1,2] s, float[1,3,2] x) => (float[1,2] y, float[1,3,2] z)'
        "{ y, z = Scan<num_scan_inputs = 1, body = b (float[2] a, float[2] e) => (float[2] f, float[2] o)"
        "  { f = Add(a, e) o = Identity(f) }>(, s, x) }"
    )
    graph = import_onnx(model)
    feeds = {"s": np.zeros((1, 2), np.float32), "x": np.arange(6, dtype=np.float32).reshape(1, 3, 2)}
    for mine, theirs in zip(run(emit_onnx(graph), **feeds), run(model, **feeds), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_sparse_tensors_get_their_zeros():
    values = helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], [3.0, 4.0])
    for indices in (np.array([1, 3]), np.array([[0, 1], [1, 1]])):
        places = helper.make_tensor("", onnx.TensorProto.INT64, indices.shape, indices.flatten())
        graph = parser.parse_graph("g (float[2,2] x) => (float[2,2] y) { y = Add(x, w) }")
        graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [2, 2]))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        weight = import_onnx(model).weights()[0]
        assert (weight.hint, weight.array.tolist()) == ("w", [[0.0, 3.0], [0.0, 4.0]])
        graph.sparse_initializer[0].dims[0] = 2**40
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        with pytest.raises(QirError, match="can not be written out"):
            import_onnx(model)


BROKEN = [
    (
        "%k: f32[2], %before: f32[2]) {\n      %b = Sub %t, %k",
        "%before: f32[2]) {\n      %b = Sub %t, %before",
        "@otherwise captures 2 values and the node 3",
    ),
    (
        "(%t: f32[2], %k: f32[2], %before: f32[2]) {\n      %b",
        "(%k: f32[2], %before: f32[2]) {\n      %b",
        "%t is not defined yet",
    ),
    ("body=@step", "body=@stop", "there is no graph @stop inside this graph"),
    ("  graph @then()", "  graph @otherwise()", "there are two graphs @otherwise here"),
    ("%a = Add %t, %before", "%a = Add %t, %after", "%after is not defined yet"),
    ("captures (%w: f32[2]", "captures (%w: i64[2]", "captures another type for its %w"),
]


@pytest.mark.parametrize(("old", "new", "said"), BROKEN)
def test_what_is_wrong_in_a_body_is_said(old: str, new: str, said: str):
    assert old in TEXT
    with pytest.raises(QirError) as caught:
        verify(qir.parse(TEXT.replace(old, new, 1)))
    assert said in str(caught.value)
