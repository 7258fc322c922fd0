"""The graph: one record of connectivity, few verbs, an order that history does not change."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Recipe, graphs, recipes

from qir import Graph, Loc, Node, QirError, Value, parse
from qir.attributes import Port, Symbol
from qir.rewrite import Miss, rewrite
from qir.types import ScalarType, TensorType
from qir.weights import Weight

F32 = TensorType("f32", ("N", 4))


def small() -> tuple[Graph, Node, Node]:
    """x, Relu, Sigmoid."""
    graph = Graph("g")
    relu = graph.add("Relu", [graph.input("x", F32)])
    sigmoid = graph.add("Sigmoid", relu.results)
    graph.outputs = sigmoid.results
    return graph, relu, sigmoid


def shuffled(draw: st.DrawFn, recipe: Recipe) -> list[int]:
    """The steps of a recipe in another order that has operands first."""
    first = len(recipe.inputs) + len(recipe.leaves)
    maker = {}
    for number, step in enumerate(recipe.steps):
        maker |= dict.fromkeys(range(first, first := first + len(step.types)), number)
    needs = {n: {maker[v] for v in step.operands if v in maker} for n, step in enumerate(recipe.steps)}
    order: list[int] = []
    while len(order) < len(needs):
        ready = [n for n in needs if n not in order and needs[n] <= set(order)]
        order.append(draw(st.sampled_from(ready)))
    return order


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_the_order_of_nodes_does_not_depend_on_how_the_graph_was_built(data: st.DataObject) -> None:
    recipe = data.draw(recipes(distinct=True))
    leaves = data.draw(st.permutations(range(len(recipe.leaves))))
    assert str(recipe.build(leaves, shuffled(data.draw, recipe))) == str(recipe.build())


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_what_was_added_and_erased_leaves_no_trace(graph: Graph) -> None:
    before = str(graph)
    extra = graph.add("torch.extra", graph.inputs)
    last = graph.add("torch.more", [*extra.results, graph.constant(2.5)])
    graph.erase_dead(last)
    assert str(graph) == before


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_operands_come_before_their_readers(graph: Graph) -> None:
    position = {node: number for number, node in enumerate(graph.nodes())}
    assert len(position) == sum(isinstance(vertex, Node) for vertex in graph.nx)
    assert all(position[a] < position[b] for b in position for a in b.definitions)
    ranks = [node.order for node in position if node.order is not None]
    assert all(a <= b for a, b in pairwise(ranks))


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_every_operand_is_a_use_and_every_use_an_operand(graph: Graph) -> None:
    values = [vertex for vertex in graph.nx if isinstance(vertex, Value)]
    uses = {(value, use.node, use.port) for value in values for use in value.uses}
    reads = {(v, node, p) for node in graph.nodes() for p, v in enumerate(node.operands) if v is not None}
    assert uses == reads
    for node in graph.nodes():
        assert [(value.node, value.port) for value in node.results] == [(node, p) for p in range(len(node.results))]


@settings(max_examples=50, deadline=None)
@given(graphs())
def test_a_copy_is_equal_and_apart(graph: Graph) -> None:
    before = str(graph)
    twin, twins = graph.copy_with_map()
    assert twin == graph
    assert all(twins[vertex] in twin.nx and twins[vertex] is not vertex for vertex in graph.nx)
    twin.outputs, twin.structure = [twin.add("torch.late", twin.inputs).result], None
    assert (twin == graph, str(graph)) == (False, before)


def test_a_weight_that_two_nodes_read_is_one_value_in_a_copy() -> None:
    graph = Graph()
    data = np.ones((4, 4), np.float32)
    weight = graph.weight(Weight(data, ("a.weight", "b.weight")))
    first = graph.add("MatMul", [graph.input("x", F32), weight])
    graph.outputs = graph.add("MatMul", [first.result, weight]).results
    twin = graph.copy()
    (value,) = twin.weights()
    assert [use.port for use in value.uses] == [1, 1]
    assert value.weight is not None
    assert value.weight.data is data


def test_a_value_multiplied_with_itself_is_used_twice() -> None:
    graph = Graph()
    x = graph.input("x", F32)
    square = graph.add("Mul", [x, x])
    assert x.uses == [(square, 0), (square, 1)]
    other = graph.input("y", F32)
    graph.set_operand(square, 1, other)
    assert square.operands == [x, other]


def test_replace_moves_readers_and_outputs() -> None:
    graph, relu, sigmoid = small()
    graph.outputs = [relu.result, sigmoid.result]
    other = graph.add("Tanh", graph.inputs)
    graph.replace(relu.result, other.result)
    assert sigmoid.operands == graph.outputs[:1] == other.results
    graph.erase(relu)
    assert relu.erased


def test_erase_takes_the_weights_that_nothing_else_reads() -> None:
    graph = Graph()
    x = graph.input("x", F32)
    shared, own = (graph.weight(Weight(np.ones(4, np.float32), (name,))) for name in ("shared", "own"))
    graph.outputs = graph.add("Add", [x, shared]).results
    graph.erase(graph.add("Sum", [x, shared, own, own]))
    assert graph.weights() == [shared]


def test_a_weight_that_is_an_output_outlives_its_reader() -> None:
    graph = Graph()
    weight = graph.weight(Weight(np.ones(4, np.float32), ("w",)))
    reader = graph.add("Relu", [weight])
    graph.outputs = [weight]
    graph.erase(reader)
    assert graph.weights() == [weight]


def test_erase_refuses_what_is_read_or_returned_and_what_has_left() -> None:
    graph, relu, sigmoid = small()
    for node in (relu, sigmoid):
        with pytest.raises(QirError, match="is still used"):
            graph.erase(node)
    graph.outputs = relu.results
    graph.erase(sigmoid)
    with pytest.raises(QirError, match="has left the graph"):
        graph.erase(sigmoid)


def test_erase_dead_takes_what_only_it_kept_alive() -> None:
    graph, relu, sigmoid = small()
    graph.outputs = list(graph.inputs)
    graph.erase_dead(sigmoid)
    assert (relu.erased, sigmoid.erased) == (True, True)


def test_add_leaves_nothing_behind_when_the_operands_do_not_fit() -> None:
    graph = Graph()
    a, b = graph.input("a", TensorType("f32", (2, 3))), graph.input("b", TensorType("f32", (5, 4)))
    before = str(graph)
    with pytest.raises(QirError) as caught:
        graph.add("MatMul", [a, b], locs=(Loc("net.py", 7),))
    assert "%matmul = MatMul %a: f32[2,3], %b: f32[5,4]" in str(caught.value)
    assert "net.py:7" in str(caught.value)
    assert str(graph) == before


@pytest.mark.parametrize(
    ("op", "attrs", "operands", "message"),
    [
        ("Relue", {}, 1, "did you mean 'Relu'"),
        ("qir.Liner", {}, 2, "did you mean 'qir.Linear'"),
        ("Relu", {"alpha": 1.0}, 1, "Relu has no attribute 'alpha'"),
        ("LeakyRelu", {"alpha": "big"}, 1, "of kind FLOAT"),
        ("Concat", {}, 2, "needs the attribute 'axis'"),
        ("Relu", {}, 2, "at most 1 operands"),
        ("Add", {}, 1, "B is missing"),
    ],
)
def test_add_refuses_what_the_vocabulary_does_not_have(op: str, attrs: Any, operands: int, message: str) -> None:
    graph = Graph()
    x = graph.input("x", F32)
    with pytest.raises(QirError) as caught:
        graph.add(op, [x] * operands, attrs)
    assert message in str(caught.value)


def test_a_value_of_another_graph_can_not_be_read() -> None:
    graph, relu, _ = small()
    stranger = Graph().input("far", F32)
    for act in (
        lambda: graph.add("Relu", [stranger]),
        lambda: graph.set_operand(relu, 0, stranger),
        lambda: graph.replace(relu.result, stranger),
    ):
        with pytest.raises(QirError, match="%far belongs to another graph"):
            act()
    assert stranger not in graph.nx


def test_like_passes_on_place_path_and_name() -> None:
    graph = Graph()
    x = graph.input("x", F32)
    first = graph.add("Relu", [x], module="a", hint="one", locs=(Loc("net.py", 1),))
    second = graph.add("Relu", [x], module="b", locs=(Loc("net.py", 2),))
    fused = graph.add("Sigmoid", [x], like=[first, second])
    assert (fused.module, fused.result.hint, fused.locs) == ("a", "one", (Loc("net.py", 1), Loc("net.py", 2)))


def test_attributes_equal_to_their_default_are_not_kept() -> None:
    graph = Graph()
    node = graph.add("LeakyRelu", [graph.input("x", F32)], {"alpha": np.float32(0.01)})
    assert node.attrs == {} or node.attr("alpha") == pytest.approx(0.01)
    assert graph.add("LeakyRelu", graph.inputs, {"alpha": 0.01}).attrs == {}
    assert node.attr("alpha") == pytest.approx(0.01)


def test_arithmetic_on_python_numbers_makes_a_python_number() -> None:
    graph = Graph()
    size = graph.add("qir.AxisSize", [graph.input("x", F32)], {"axis": 0}).result
    assert graph.add("Mul", [size, graph.constant(2)]).result.type == ScalarType("int")
    assert graph.add("Add", [size, graph.constant(0.5)]).result.type == ScalarType("float")


def test_a_number_takes_the_dtype_of_the_tensor_that_it_meets() -> None:
    graph = Graph()
    half = graph.input("x", TensorType("f16", (2,)))
    assert graph.add("Mul", [half, graph.constant(2)]).result.type == half.type


def test_numpy_numbers_in_the_arguments_of_a_call_become_plain() -> None:
    graph = Graph()
    attrs = {"args": (np.float64(1.5), [np.int64(3)], {"a": np.bool_(True)}, Symbol("a.b"), Port(0))}
    node = graph.add("torch.f", [graph.input("x")], attrs)
    assert [type(item) for item in node.attrs["args"]] == [float, list, dict, Symbol, Port]
    assert type(node.attrs["args"][1][0]) is int
    assert type(node.attrs["args"][2]["a"]) is bool


def test_nodes_of_one_rank_follow_what_they_read() -> None:
    graph = Graph()
    x = graph.input("x", F32)
    late, early = graph.add("Relu", [x], hint="late"), graph.add("Relu", [x], hint="early")
    graph.set_operand(late, 0, early.result)
    late.order = early.order = 3
    graph.outputs = late.results
    assert graph.nodes() == [early, late]


def test_random_nodes_keep_their_order_whatever_reads_them() -> None:
    graph = Graph()
    x = graph.input("x", F32)
    first, second = (graph.add("Bernoulli", [x], hint=hint) for hint in ("first", "second"))
    first.order, second.order = 0, 1
    graph.outputs = graph.add("Sub", [second.result, first.result]).results
    assert graph.nodes()[:2] == [first, second]


def relu_to_two(node: Node, graph: Graph) -> Value:
    """Tanh(Neg(x)): the first is itself to be rewritten."""
    return graph.add("Tanh", graph.add("Neg", node.operands, like=node).results, like=node).result


def test_a_rewrite_also_visits_the_nodes_that_it_added() -> None:
    graph, _, _ = small()
    outcome = rewrite(graph, {"Relu": relu_to_two, "Neg": lambda n, g: g.add("Abs", n.operands, like=n).result})
    assert [node.op for node in graph.nodes()] == ["Abs", "Tanh", "Sigmoid"]
    assert [note.op for note in outcome.done] == ["Relu", "Neg"]


def single_reader(node: Node, graph: Graph) -> Value | Miss:
    (x,) = node.operands
    return Miss("read twice") if len(x.uses) > 1 else graph.add("Abs", [x], like=node).result


def test_a_rewrite_looks_again_when_the_other_reader_has_gone() -> None:
    graph = Graph()
    x = graph.add("Tanh", [graph.input("x", F32)]).result
    kept, gone = graph.add("Neg", [x]), graph.add("Relu", [x])
    graph.outputs = graph.add("Add", [kept.result, gone.result]).results
    outcome = rewrite(graph, {"Neg": single_reader, "Relu": lambda n, g: g.inputs[0]})
    assert "Neg" not in [node.op for node in graph.nodes()]
    assert outcome.missed == []


def test_rules_that_never_settle_are_named() -> None:
    def again(node: Node, graph: Graph) -> Value:
        return graph.add("Relu", node.operands, like=node).result

    graph, _, _ = small()
    with pytest.raises(QirError, match="again does not settle"):
        rewrite(graph, {"Relu": again})


def test_a_miss_says_why_and_where() -> None:
    graph, relu, _ = small()
    relu.locs = (Loc("net.py", 4),)
    outcome = rewrite(graph, {"Relu": lambda node, graph: Miss("it is pretty")})
    (note,) = outcome.missed
    assert (note.reason, note.loc, note.op) == ("it is pretty", Loc("net.py", 4), "Relu")
    assert outcome.done == []


class Counting(nx.MultiDiGraph):
    """Counts the edges that are written."""

    written = 0

    def add_edge(self, *args: Any, **rest: Any) -> Any:
        self.written += 1
        return super().add_edge(*args, **rest)

    def remove_edge(self, *args: Any, **rest: Any) -> Any:
        self.written += 1
        return super().remove_edge(*args, **rest)


def edge_writes(length: int) -> int:
    graph = Graph()
    graph.nx = Counting()
    value = graph.input("x", F32)
    for _ in range(length):
        left = graph.add("Relu", [value], types=[F32]).result
        value = graph.add("Add", [left, value], types=[F32]).result
    graph.outputs = [value]
    rewrite(graph, {"Relu": lambda n, g: g.add("Neg", n.operands, types=[F32]).result})
    assert parse(str(graph)) == graph
    return int(graph.nx.written)


def test_four_times_the_nodes_cost_four_times_the_edge_operations() -> None:
    assert edge_writes(400) <= 4.05 * edge_writes(100)
