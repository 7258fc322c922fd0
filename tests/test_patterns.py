"""Patterns of operators: what matches, what almost does and where, and rules for them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qir import Graph, Node, Value, parse
from qir.passes.fold_batch_norm import FoldBatchNorm
from qir.patterns import Candidate, Constant, Input, Match, Op, Shared
from qir.rewrite import Miss, rewrite
from qir.traits import Clamps, Weighted
from qir.verify import verify
from tests.strategies import graphs

X, Y = Input(), Input()
GATE = Op("Sigmoid", X)
SWISH = Op("Mul", X, GATE)


def graph_of(*lines: str, inputs: str = "%x: f32[4], %y: f32[4]", returns: str = "%out") -> Graph:
    body = "".join(f"  {line}\n" for line in lines)
    return parse(f"graph @g({inputs}) {{\n{body}  return {returns}\n}}")


def named(graph: Graph, name: str) -> Node:
    return next(node for node in graph.nodes() if any(value.hint == name for value in node.results))


def reason(pattern: Op, graph: Graph, name: str = "out") -> str:
    miss = pattern.match(named(graph, name))
    assert isinstance(miss, Miss)
    return miss.reason


def matched(pattern: Op, graph: Graph, name: str = "out") -> Match:
    found = pattern.match(named(graph, name))
    assert isinstance(found, Match), found
    return found


@pytest.mark.parametrize("operands", ["%x, %gate", "%gate, %x"])
def test_operands_of_an_operator_that_commutes_match_in_any_order(operands: str):
    graph = graph_of("%gate = Sigmoid %x : f32[4]", f"%out = Mul {operands} : f32[4]")
    found = matched(SWISH, graph)
    assert found[X] is graph.inputs[0]
    assert found[GATE] is named(graph, "gate")
    assert found.nodes == [named(graph, "out"), named(graph, "gate")]


def test_operands_of_others_match_in_their_order():
    pattern = Op("Sub", X, Op("Sigmoid", X))
    graph = graph_of("%gate = Sigmoid %x : f32[4]", "%out = Sub %gate, %x : f32[4]")
    assert pattern.match(named(graph, "out")) is None


def test_every_order_of_many_operands_is_tried():
    pattern = Op("Sum", Op("Abs", X), Op("Neg", X), X)
    lines = "%neg = Neg %x : f32[4]", "%abs = Abs %x : f32[4]", "%out = Sum %x, %neg, %abs : f32[4]"
    assert matched(pattern, graph_of(*lines))[X].hint == "x"


def test_a_pattern_that_stands_twice_stands_for_one_value():
    graph = graph_of("%gate = Sigmoid %y : f32[4]", "%out = Mul %x, %gate : f32[4]")
    assert reason(SWISH, graph) == "operand X of Sigmoid is %y, not %x"


def test_a_diamond_is_one_node():
    top = Op("Relu", X)
    pattern = Op("Sub", Op("Abs", top), Op("Neg", top))
    lines = "%top = Relu %x : f32[4]", "%a = Abs %top : f32[4]", "%b = Neg %top : f32[4]", "%out = Sub %a, %b : f32[4]"
    assert matched(pattern, graph_of(*lines))[top].result.hint == "top"
    two = "%one = Relu %x : f32[4]", "%top = Relu %x : f32[4]", "%a = Abs %one : f32[4]", *lines[2:]
    assert reason(pattern, graph_of(*two)) == "operand X of Neg is %top, not %one"


def test_two_patterns_are_two_nodes():
    pattern = Op("Sub", Op("Relu", X), Op("Relu", Y))
    graph = graph_of("%top = Relu %x : f32[4]", "%out = Sub %top, %top : f32[4]")
    assert reason(pattern, graph) == "operand B of Sub is %top once more, where the pattern has another Relu"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("%gate = Tanh %x : f32[4]", "operand B of Mul is computed by Tanh, not by Sigmoid"),
        ("%gate = constant f32[4](1, 2, 3, 4)", "operand B of Mul is a constant, not computed by Sigmoid"),
    ],
)
def test_what_stands_in_the_place_of_an_operator_is_named(line: str, why: str):
    graph = graph_of(line, "%out = Mul %x, %gate : f32[4]")
    assert SWISH.match(named(graph, "out")) is None
    assert reason(Candidate("Mul", X, GATE), graph) == why


def test_of_several_ways_the_farthest_is_reported():
    graph = graph_of("%gate = Sigmoid %y : f32[4]", "%tanh = Tanh %x : f32[4]", "%out = Mul %gate, %tanh : f32[4]")
    assert reason(SWISH, graph) == "operand X of Sigmoid is %y, not %tanh"


def test_attributes_have_to_be_equal_defaults_too():
    pattern = Op("Softmax", X, axis=-1)
    given = "%out = Softmax %x{} : f32[4,4]"
    shape = {"inputs": "%x: f32[4,4]"}
    assert matched(pattern, graph_of(given.format(""), **shape))
    assert reason(pattern, graph_of(given.format(" {axis=0}"), **shape)) == "axis of Softmax is 0, not -1"


def test_a_constant_is_no_computed_value():
    pattern = Op("Mul", X, Constant())
    assert matched(pattern, graph_of("%out = Mul f32[4](1, 2, 3, 4), %x : f32[4]"))[X].hint == "x"
    assert reason(pattern, graph_of("%out = Mul %x, %y : f32[4]")) == "operand B of Mul is computed, not a constant"


def test_operands_are_counted_and_may_be_left_out():
    clip = graph_of("%out = Clip %x, _, 6.0 : f32[4]")
    assert matched(Op("Clip", X, None, Constant()), clip)
    assert matched(Op("Clip", X, ...), clip)
    assert reason(Op("Clip", X), clip) == "Clip reads 3 operands, not 1"
    assert reason(Op("Clip", X, Constant(), Constant()), clip) == "operand min of Clip is left out"
    assert reason(Op("Clip", X, None, None), clip) == "operand max of Clip is given"
    assert reason(Op("Relu", X, Y, ...), graph_of("%out = Relu %x : f32[4]")) == "operand 1 of Relu is left out"


def test_a_trait_stands_for_every_operator_that_has_it():
    inner = Op(Clamps, X, ...)
    pattern = Op(Clamps, inner, ...)
    graph = graph_of("%in = Relu %x : f32[4]", "%out = Clip %in, 0.0, 6.0 : f32[4]")
    assert matched(pattern, graph)[inner].op == "Relu"
    other = graph_of("%in = Abs %x : f32[4]", "%out = Clip %in, 0.0, 6.0 : f32[4]")
    wanted = "operand input of Clip is computed by Abs, not by an operator with the trait Clamps"
    assert reason(Candidate(Clamps, inner, ...), other) == wanted
    assert pattern.match(named(other, "in")) is None


SPLIT = Op("Split", X, Constant(), axis=-1)
GLU = Op("Mul", SPLIT, Op("Sigmoid", SPLIT[1]))


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_results_are_told_apart(first: str, second: str):
    lines = "%a, %b = Split %x, i64[2](2, 2) {axis=-1} : f32[2], f32[2]", f"%gate = Sigmoid %{second} : f32[2]"
    graph = graph_of(*lines, f"%out = Mul %{first}, %gate : f32[2]")
    if first == "a":
        assert matched(GLU, graph)[SPLIT].results == [named(graph, "a").result, named(graph, "b").results[1]]
    else:
        assert reason(GLU, graph) == "operand A of Mul is result 1 of Split, not result 0"


def test_nothing_else_reads_the_inside_of_a_match():
    lines = "%gate = Sigmoid %x : f32[4]", "%out = Mul %x, %gate : f32[4]"
    assert reason(SWISH, graph_of(*lines, returns="%out, %gate")) == "%gate is an output of the graph"
    read = graph_of(*lines, "%abs = Abs %gate : f32[4]", returns="%out, %abs")
    assert reason(SWISH, read) == "Abs reads %gate too"
    assert matched(Op("Mul", X, Shared("Sigmoid", X)), read)


def swish(found: Match, graph: Graph) -> Value:
    return graph.add("Swish", [found[X]], like=found.nodes).result


def test_a_rule_for_a_pattern_rewrites_and_explains():
    graph = graph_of(
        "%gate = Sigmoid %x : f32[4] [gate] @ net.py:3",
        "%act = Mul %gate, %x : f32[4] [act] @ net.py:4",
        "%near = Sigmoid %y : f32[4]",
        "%out = Mul %act, %near : f32[4]",
    )
    outcome = rewrite(graph, {SWISH: swish})
    assert [note.reason for note in outcome.done] == ["becomes Swish"]
    assert [note.reason for note in outcome.missed] == ["operand X of Sigmoid is %y, not %act"]
    assert str(named(graph, "act")).endswith("[act]")
    assert {str(loc) for loc in named(graph, "act").locs} == {"net.py:3", "net.py:4"}
    verify(graph)


def test_rules_for_one_operator_are_tried_in_order():
    rules = {
        "Mul": lambda node, graph: Miss("the first has a reason"),
        SWISH: swish,
        Clamps: lambda node, graph: node.operands[0],
    }
    graph = graph_of("%relu = Relu %x : f32[4]", "%gate = Sigmoid %relu : f32[4]", "%out = Mul %relu, %gate : f32[4]")
    outcome = rewrite(graph, rules)
    assert [node.op for node in graph.nodes()] == ["Swish"]
    assert not outcome.missed
    other = graph_of("%out = Mul %x, %y : f32[4]")
    assert [note.reason for note in rewrite(other, rules).missed] == ["the first has a reason"]


def side_by_side(node: Node, graph: Graph) -> dict[Value, Value] | None:
    """One product for all that read the same matrix, cut into theirs."""
    products = [use.node for use in node.operands[0].uses if use.node.op == "MatMul" and use.port == 0]
    if len(products) < 2:
        return None
    weights = graph.add("Concat", [product.operands[1] for product in products], {"axis": 1}).result
    whole = graph.add("MatMul", [node.operands[0], weights], like=products).result
    sizes = graph.constant([product.result.type.static[-1] for product in products])
    parts = graph.add("Split", [whole, sizes], {"axis": 1}, results=len(products)).results
    return {product.result: part for product, part in zip(products, parts, strict=True)}


def test_a_rule_may_replace_results_of_several_nodes():
    lines = [
        f"%{name} = MatMul %x, f32[2,{n}]({', '.join('1' * 2 * n)}) : f32[4,{n}]" for n, name in ((1, "a"), (2, "b"))
    ]
    graph = graph_of(*lines, "%r = Relu %b : f32[4,2]", inputs="%x: f32[4,2]", returns="%a, %r")
    outcome = rewrite(graph, {"MatMul": side_by_side})
    verify(graph)
    assert sorted(node.op for node in graph.nodes()) == ["Concat", "MatMul", "Relu", "Split"]
    assert len(outcome.done) == 1
    assert [str(value.type) for value in graph.outputs] == ["f32[4,1]", "f32[4,2]"]


def test_a_weighted_layer_is_found_by_its_trait():
    layer = Op(Weighted, ...)
    graph = graph_of("%mm = MatMul %x, f32[4,1](1, 2, 3, 4) : f32[1]", "%out = Relu %mm : f32[1]")
    assert matched(Op("Relu", layer), graph)[layer].op == "MatMul"


@settings(max_examples=50, deadline=None)
@given(st.permutations(range(4)), st.lists(st.booleans(), min_size=3, max_size=3))
def test_a_chain_of_sums_matches_however_it_is_written(order: list[int], turned: list[bool]):
    """One node of each kind, added in any association order from the left, with operands swapped at will."""
    kinds = ["Abs", "Neg", "Exp", "Sin"]
    pattern = Op(kinds[order[0]], X)
    for number in order[1:]:
        pattern = Op("Add", pattern, Op(kinds[number], X))
    lines = [f"%{kind} = {kind} %x : f32[4]" for kind in kinds]
    total = kinds[order[0]]
    for step, (number, turn) in enumerate(zip(order[1:], turned, strict=True)):
        pair = [f"%{total}", f"%{kinds[number]}"]
        lines.append(f"%sum{step} = Add {', '.join(reversed(pair) if turn else pair)} : f32[4]")
        total = f"sum{step}"
    graph = graph_of(*lines, returns=f"%{total}")
    assert len(matched(pattern, graph, total).nodes) == 7


def pattern_of(node: Node, depth: int, known: dict[Node | Value, Op | Input]) -> Op:
    """The pattern that the graph around the node is, `depth` operators deep; what is read twice is one pattern."""
    operands: list[Any] = []
    for value in node.operands:
        before = None if value is None else value.node
        if before in known or (before is not None and depth > 1 and len(before.results) == 1):
            operands.append(known[before] if before in known else pattern_of(before, depth - 1, known))
        else:
            operands.append(None if value is None else known.setdefault(value, Input()))
    known[node] = Shared(node.op, *operands)
    return known[node]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs(), st.integers(1, 4))
def test_the_pattern_that_a_graph_is_matches_it(graph: Graph, depth: int):
    for node in graph.nodes():
        if node.definition.schema is not None:
            known: dict[Node | Value, Op | Input] = {}
            found = pattern_of(node, depth, known).match(node)
            assert isinstance(found, Match), found
            assert len(found.nodes) == sum(isinstance(place, Node) for place in known)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["%in = Relu %x : f32[1,1,2,2]"], "is computed by Relu, not by an operator with the trait Weighted"),
        ([], "operand X of BatchNormalization is an input of the graph, not computed by an operator with the trait"),
        (["%in = Conv %x, f32[1,1,1,1](3.0) : f32[1,1,2,2]", "%r = Relu %in : f32[1,1,2,2]"], "Relu reads %in too"),
    ],
)
def test_fold_batch_norm_says_at_which_operand_it_fails(lines: list[str], why: str):
    ones = ", ".join(["f32[1](1)"] * 4)
    norm = f"%out = BatchNormalization {'%in' if lines else '%x'}, {ones} : f32[1,1,2,2]"
    returns = "%out, %r" if len(lines) == 2 else "%out"
    graph = graph_of(*lines, norm, inputs="%x: f32[1,1,2,2]", returns=returns)
    (note,) = FoldBatchNorm().run(graph).missed
    assert why in note.reason
