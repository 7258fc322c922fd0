"""Reference results: those of onnx.reference for the whole model, whatever the graph is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from qir import Graph, Loc, QirError, Value
from qir.attributes import TRAINING
from qir.backends.onnx_qdq import executor
from qir.encodings.encoding import Encoding
from qir.evaluate import evaluate, reference
from qir.proto import model_proto
from qir.types import TensorType
from qir.weights import Weight

F32 = TensorType("f32", (2, 4))
X = np.array([[-1.5, -0.5, 0.5, 1.5], [2.5, 3, -3, 0]], np.float32)


@st.composite
def arithmetic(draw: st.DrawFn) -> Graph:
    """Elementwise and matrix operators on one input, weights and numbers, all of shape [2,4]."""
    graph = Graph()
    values: list[Value] = [graph.input("x", F32)]
    weight = graph.weight(Weight(np.eye(4, dtype=np.float32)[::-1] * 0.5, ("w",)))
    values.append(graph.weight(Weight(X[:, ::-1].copy(), ("b",))))
    for _ in range(draw(st.integers(1, 6))):
        a, b = (draw(st.sampled_from(values)) for _ in range(2))
        number = graph.constant(draw(st.sampled_from([0.5, -2.0, 3.0])))
        calls: list[tuple[str, list[Value | None], dict[str, Any]]] = [
            ("Relu", [a], {}), ("Add", [a, b], {}), ("Mul", [a, b], {}), ("Sub", [a, number], {}),
            ("Clip", [a, None, b if b is number else number], {}), ("MatMul", [a, weight], {}),
            ("Concat", [a, b], {"axis": 0}), ("Sum", [a, b, a], {}), ("LeakyRelu", [a], {"alpha": 0.125}),
        ]  # fmt: skip
        made = graph.add(*draw(st.sampled_from(calls)))
        if made.op == "Concat":
            made = graph.add("Split", made.results, {"axis": 0, "num_outputs": 2}, results=2)
        values += made.results
    graph.outputs = values[-2:]
    return graph


@settings(max_examples=60, deadline=None)
@given(arithmetic())
def test_node_by_node_is_the_whole_model_at_once(graph: Graph) -> None:
    proto = model_proto(graph)
    names = [value.name for value in proto.graph.output]
    whole = ReferenceEvaluator(proto).run(names, {proto.graph.input[0].name: X})
    found = dict(zip(dict.fromkeys(graph.outputs), whole, strict=True))
    for value, result in zip(graph.outputs, evaluate(graph, [X]), strict=True):
        np.testing.assert_array_equal(result, found[value])


def single(op: str, operands: list[Any], attrs: dict[str, Any] | None, x: np.ndarray) -> Graph:
    """The first result of one operator; `operands` follow the input x."""
    graph = Graph()
    data = graph.input("x", TensorType("f32", x.shape))
    given = [None if item is None else graph.constant(item) for item in operands]
    graph.outputs = graph.add(op, [data, *given], attrs).results[:1]
    return graph


def run(op: str, operands: list[Any], attrs: dict[str, Any] | None = None, x: np.ndarray = X) -> np.ndarray:
    return np.asarray(evaluate(single(op, operands, attrs, x), [x])[0])


@pytest.mark.parametrize("shape", [(2, 4), (3, 2, 4), (4,)])
def test_linear_is_a_product_with_the_transposed_weight(shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    weight, bias = np.arange(12, dtype=np.float32).reshape(3, 4), np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(run("qir.Linear", [weight, bias], x=x), x @ weight.T + bias)
    np.testing.assert_array_equal(run("qir.Linear", [weight], x=x), x @ weight.T)


@pytest.mark.parametrize(("size", "parts"), [(6, 1), (6, 3), (6, 4), (7, 3), (5, 5), (2, 5)])
def test_adaptive_pooling_takes_the_mean_of_torchs_windows(size: int, parts: int) -> None:
    x = np.arange(size * size, dtype=np.float32).reshape(1, 1, size, size)
    windows = [slice(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]
    expected = [[x[0, 0, a, b].mean() for b in windows] for a in windows]
    pooled = run("qir.AdaptiveAveragePool", [], {"output_size": (parts, parts)}, x)
    np.testing.assert_allclose(pooled[0, 0], expected, rtol=1e-6)


def test_a_quantizer_rounds_to_its_grid() -> None:
    encoding = Encoding("u8").with_range(np.array(-1.5), np.array(2.0))
    expected = encoding.dequantize(encoding.quantize(X))
    np.testing.assert_array_equal(run("qir.Quantize", [], {"encoding": encoding}), expected)


def test_a_quantizer_of_a_weight_rounds_it_too() -> None:
    graph = Graph()
    encoding = Encoding("i8", True, 1, narrow=True).with_range(X.min(0), X.max(0))
    weight = graph.weight(Weight(X, ("w",)))
    graph.outputs = graph.add("qir.Quantize", [weight], {"encoding": encoding}).results
    np.testing.assert_array_equal(evaluate(graph, [])[0], encoding.dequantize(encoding.quantize(X)))


def test_before_calibration_a_quantizer_changes_nothing() -> None:
    np.testing.assert_array_equal(run("qir.Quantize", [], {"encoding": Encoding("u8")}), X)


@pytest.mark.parametrize(("axis", "rows", "columns"), [(1, 3, 7), (-1, 2, 150), (0, 5, 90)])
def test_elements_are_gathered_along_an_axis_of_any_size(axis: int, rows: int, columns: int) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((3, 100)).astype(np.float32)
    indices = random.integers(-x.shape[axis], x.shape[axis], (rows, columns))
    graph = single("GatherElements", [indices], {"axis": axis}, x)
    np.testing.assert_array_equal(evaluate(graph, [x])[0], executor(graph)([x])[0])


def test_a_number_takes_the_dtype_of_the_tensor() -> None:
    x = np.array([1, 2], np.float16)
    graph = Graph()
    data = graph.input("x", TensorType("f16", (2,)))
    graph.outputs = graph.add("Mul", [data, graph.constant(3)]).results
    (result,) = evaluate(graph, [x])
    assert (result.dtype, result.tolist()) == (np.float16, [3, 6])


def test_shape_arithmetic_reaches_a_view() -> None:
    graph = Graph()
    x = graph.input("x", TensorType("f32", ("N", 4)))
    rows = graph.add("qir.AxisSize", [x], {"axis": 0}).result
    twice = graph.add("Mul", [rows, graph.constant(2)]).result
    graph.outputs = graph.add("qir.View", [x, twice], {"shape": (None, -1)}).results
    np.testing.assert_array_equal(evaluate(graph, [X])[0], X.reshape(4, 2))


def test_nodes_that_follow_the_training_flag_are_run_as_in_inference() -> None:
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    result = run("BatchNormalization", [ones * 3, ones, zeros, ones], {"training_mode": TRAINING, "epsilon": 0.0})
    np.testing.assert_allclose(result, X * 3 + 1)
    np.testing.assert_array_equal(run("qir.StochasticDepth", [], {"p": 0.5}), X)


def test_outputs_may_be_inputs_weights_and_each_other() -> None:
    graph = Graph()
    x, weight = graph.input("x", F32), graph.weight(Weight(X, ("w",)))
    relu = graph.add("Relu", [x]).result
    graph.outputs = [relu, x, weight, relu]
    results = evaluate(graph, [X * 2])
    for result, expected in zip(results, [np.maximum(X * 2, 0), X * 2, X, np.maximum(X * 2, 0)], strict=True):
        np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(reference(graph)([X])[1], X)


def test_the_watch_sees_every_value_computed() -> None:
    graph = Graph()
    relu = graph.add("Relu", [graph.input("x", F32)])
    graph.outputs = graph.add("Sigmoid", relu.results).results
    seen: list[str] = []
    evaluate(graph, [X], lambda value, result: seen.append(value.hint))
    assert seen == ["relu", "sigmoid"]


def test_a_wrong_number_of_inputs_is_refused() -> None:
    graph = Graph()
    graph.input("x", F32)
    with pytest.raises(QirError, match="has 1 inputs and was given 2"):
        evaluate(graph, [X, X])


@pytest.mark.parametrize(("op", "message"), [("torch.f", "no reference result"), ("MatMul", "can not run this node")])
def test_a_node_without_a_result_is_named_with_its_line(op: str, message: str) -> None:
    graph = Graph()
    x = graph.input("x", TensorType("f32", None))
    graph.outputs = graph.add(op, [x, x], types=[F32], locs=(Loc("net.py", 9),)).results
    with pytest.raises(QirError) as caught:
        evaluate(graph, [X])
    assert message in str(caught.value)
    assert "net.py:9" in str(caught.value)
