"""The verifier says what is wrong with a graph, where, and in whose source line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import graphs

from qir import Graph, Loc, Node, QirError, Value, parse
from qir.attributes import Port
from qir.encodings.encoding import Encoding, ProductEncoding
from qir.types import ScalarType, TensorType
from qir.verify import problems, verify
from qir.weights import Weight

F32 = TensorType("f32", (2, 4))
TEXT = """graph @g(%x: f32[2,4]) {
  %w = weight w : f32[4,4] #0123456789abcdef
  %relu = Relu %x : f32[2,4] @ net.py:7
  %mul = MatMul %relu, %w : f32[2,4] [fc] @ net.py:8
  return %mul
}"""


def nodes() -> tuple[Graph, Node, Node]:
    graph = parse(TEXT)
    relu, matmul = graph.nodes()
    return graph, relu, matmul


def complaint(graph: Graph) -> str:
    with pytest.raises(QirError) as caught:
        verify(graph)
    assert caught.value.stage == "verify"
    return str(caught.value)


@settings(max_examples=100, deadline=None)
@given(graphs())
def test_any_graph_made_with_the_verbs_is_valid(graph: Graph) -> None:
    assert list(problems(graph)) == []


def test_a_cycle_is_named_with_the_line_of_a_node_on_it() -> None:
    graph, relu, matmul = nodes()
    graph.set_operand(relu, 0, matmul.result)
    said = complaint(graph)
    assert "cycle" in said
    assert "net.py:" in said


def test_a_cycle_that_no_output_reaches_is_found() -> None:
    graph, relu, matmul = nodes()
    graph.set_operand(relu, 0, matmul.result)
    graph.outputs = list(graph.inputs)
    assert "cycle" in complaint(graph)


def test_a_node_that_reads_itself_is_a_cycle() -> None:
    graph, relu, _ = nodes()
    graph.set_operand(relu, 0, relu.result)
    assert "cycle" in complaint(graph)


def test_ranks_against_the_flow_of_data_are_a_cycle() -> None:
    graph, relu, matmul = nodes()
    relu.order, matmul.order = 2, 1
    said = complaint(graph)
    assert "!1" in said or "order" in said


def remove_definition(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.remove_node(relu)


def two_definitions(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.add_edge(matmul, relu.result, key=1)


def computed_input(graph: Graph, relu: Node, matmul: Node) -> None:
    other = graph.add("Sigmoid", [matmul.result], types=[F32])
    graph.nx.remove_node(other.result)
    graph.nx.add_edge(other, graph.inputs[0], key=0)
    graph.nx.remove_edge(graph.inputs[0], relu, key=0)


def two_at_one_port(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.add_edge(graph.inputs[0], matmul, key=0)


def gap_in_results(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.add_edge(relu, graph._value("y", F32), key=2)


def no_result(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.remove_node(matmul.result)
    graph.outputs = relu.results


def value_to_value(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.add_edge(relu.result, matmul.result, key=0)


def odd_port(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.add_edge(graph.inputs[0], matmul, key="left")


def odd_vertex(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.add_edge("conv", matmul, key=2)


def stranger(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.add_edge(Graph().input("far", F32), matmul, key=2)


def lost_output(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.remove_node(matmul.result)
    graph.nx.add_edge(matmul, graph._value("new", F32), key=0)


def input_twice(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.inputs *= 2


def too_many_operands(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.add_edge(graph.inputs[0], relu, key=1)


def missing_operand(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.remove_edge(relu.result, matmul, key=0)


def unknown_operator(graph: Graph, relu: Node, matmul: Node) -> None:
    relu.op = "Relo"


def unknown_attribute(graph: Graph, relu: Node, matmul: Node) -> None:
    relu.attrs["slope"] = 1


def default_attribute(graph: Graph, relu: Node, matmul: Node) -> None:
    relu.op, relu.attrs = "LeakyRelu", {"alpha": 0.01}


def too_many_results(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.nx.add_edge(relu, graph._value("y", F32), key=1)


def wrong_dtype(graph: Graph, relu: Node, matmul: Node) -> None:
    relu.result.type = TensorType("f16", (2, 4))


def wrong_shape(graph: Graph, relu: Node, matmul: Node) -> None:
    matmul.result.type = TensorType("f32", (2, 5))


def wrong_rank(graph: Graph, relu: Node, matmul: Node) -> None:
    relu.result.type = TensorType("f32", (2, 4, 1))


def number_for_tensor(graph: Graph, relu: Node, matmul: Node) -> None:
    relu.result.type = ScalarType("float")


def operands_do_not_fit(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.weights()[0].type = TensorType("f32", (5, 4))


def one_path_twice(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.weight(Weight(np.zeros(2, np.float32), ("w",)))


def structure_without_place(graph: Graph, relu: Node, matmul: Node) -> None:
    graph.structure = (Port(1), None)


def argument_without_operand(graph: Graph, relu: Node, matmul: Node) -> None:
    relu.op, relu.attrs = "torch.f", {"args": (Port(0), {"x": [slice(Port(3), None)]})}


FAULTS: list[tuple[Callable[..., None], str]] = [
    (remove_definition, "%relu is dangling"),
    (two_definitions, "%relu is defined 2 times"),
    (computed_input, "the input %x is also computed"),
    (two_at_one_port, "MatMul has two values for its operand 0"),
    (gap_in_results, "the results of Relu are numbered 0, 2"),
    (no_result, "a MatMul has no result, at net.py:8"),
    (value_to_value, "an edge joins %relu and %mul"),
    (odd_port, "'left' in the place of a port"),
    (odd_vertex, "'conv' is neither a node nor a value"),
    (stranger, "%far belongs to another graph"),
    (lost_output, "the output %mul is not in the graph"),
    (input_twice, "stands twice"),
    (too_many_operands, "Relu reads at most 1 operands"),
    (missing_operand, "MatMul lacks its operand A"),
    (unknown_operator, "did you mean 'Relu'"),
    (unknown_attribute, "Relu has no attribute 'slope'"),
    (default_attribute, "not as `add` keeps them: none"),
    (too_many_results, "Relu has 2 results"),
    (wrong_dtype, "%relu is typed f16[2,4] but Relu makes f32[2,4]"),
    (wrong_shape, "%mul is typed f32[2,5] but MatMul makes f32[2,4]"),
    (wrong_rank, "%relu is typed f32[2,4,1] but Relu makes f32[2,4]"),
    (number_for_tensor, "%relu is typed float but Relu makes f32[2,4]"),
    (operands_do_not_fit, "MatMul does not fit its operands"),
    (one_path_twice, "two weights are called w"),
    (structure_without_place, "the structure names the outputs"),
    (argument_without_operand, "an argument of torch.f is its operand 3, and it reads 1"),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS, ids=[damage.__name__ for damage, _ in FAULTS])
def test_each_fault_is_said(damage: Callable[[Graph, Node, Node], None], message: str) -> None:
    graph, relu, matmul = nodes()
    damage(graph, relu, matmul)
    assert message in complaint(graph)


def test_a_problem_shows_the_users_line_and_the_node(tmp_path: Path) -> None:
    source = tmp_path / "net.py"
    source.write_text("import torch\n        y = F.relu(x)\n")
    graph, relu, _ = nodes()
    relu.locs = (Loc(str(source), 2),)
    relu.result.type = TensorType("f16", (2, 4))
    said = complaint(graph)
    assert "2 |         y = F.relu(x)" in said
    assert "in: %relu = Relu %x: f32[2,4]" in said


def test_every_problem_is_listed() -> None:
    graph, relu, matmul = nodes()
    wrong_dtype(graph, relu, matmul)
    unknown_operator(graph, matmul, relu)
    assert "the graph has 2 problems" in complaint(graph)


def quantized(encoding: Encoding) -> Graph:
    graph = Graph()
    graph.outputs = graph.add("qir.Quantize", [graph.input("x", F32)], {"encoding": encoding}).results
    return graph


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        (Encoding("i8", axis=2), "axis 2 and the tensor 2 axes"),
        (Encoding("i8", axis=1).with_range(np.zeros(3), np.ones(3)), "3 scales for 4 channels"),
    ],
)
def test_an_encoding_fits_its_tensor(encoding: Encoding, message: str) -> None:
    assert message in complaint(quantized(encoding))


def linear(bias_input: Any = None) -> Graph:
    """x and weight on grids, and the bias on the product of the grids (of another input, when given)."""
    graph = Graph()
    grids = Encoding("u8"), Encoding("i8", True, 0)
    x = graph.input("x", F32)
    weight = graph.weight(Weight(np.ones((3, 4), np.float32), ("fc.weight",)))
    bias = graph.weight(Weight(np.ones(3, np.float32), ("fc.bias",)))
    product = ProductEncoding(input=bias_input or grids[0], weight=grids[1])
    on_grid: list[Value] = [
        graph.add("qir.Quantize", [value], {"encoding": encoding}).result
        for value, encoding in ((x, grids[0]), (weight, grids[1]), (bias, product))
    ]
    graph.outputs = graph.add("qir.Linear", on_grid).results
    return graph


def test_a_bias_lies_on_the_grid_of_its_accumulator() -> None:
    verify(linear())
    assert "the bias of qir.Linear lies on the grid of another" in complaint(linear(Encoding("u8")))
