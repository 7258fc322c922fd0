"""The vocabulary: ONNX's own, and what qir or anybody else declares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import defs, helper

from qir import Graph, Node, QirError, Value
from qir.evaluate import evaluate
from qir.ops import COMPOSITES, VOCABULARY_OPSET, Attribute, OpDef, declare, definition
from qir.proto import attributes_of, node_proto
from qir.traits import Trait
from qir.types import TensorType

X = TensorType("f32", (2, 4))


@dataclass(frozen=True)
class Doubles(Trait):
    """It is linear in its operand, by this factor."""

    by: float


def expand_twice(graph: Graph, node: Node) -> Sequence[Value]:
    (x,) = node.operands
    return graph.add("Mul", [x, graph.constant(node.attr("factor"))], like=node).results


TWICE = OpDef(
    "lab.Twice", ("x",), 1, 1,
    attributes={"factor": Attribute("FLOAT", 2.0)}, traits=(Doubles(2.0),), expand=expand_twice,
)  # fmt: skip


@pytest.fixture
def vocabulary(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forgets afterwards what a test declares."""
    definition("qir.Linear")
    before = dict(COMPOSITES)
    yield
    COMPOSITES.clear()
    COMPOSITES.update(before)
    definition.cache_clear()


@pytest.mark.usefixtures("vocabulary")
def test_anybody_can_declare_an_operator_with_a_trait_of_their_own() -> None:
    assert definition("lab.Twice").opaque
    declare(TWICE)
    graph = Graph()
    graph.outputs = graph.add("lab.Twice", [graph.input("x", X)], {"factor": 3.0}).results
    (node,) = graph.nodes()
    assert node.definition.trait(Doubles) == Doubles(2.0)
    assert node.result.type == X
    np.testing.assert_array_equal(evaluate(graph, [np.ones((2, 4), np.float32)])[0], np.full((2, 4), 3.0))


@pytest.mark.usefixtures("vocabulary")
def test_a_declared_operator_without_an_emission_runs_in_torch_by_its_expansion() -> None:
    torch = pytest.importorskip("torch")
    from qir.backends.torch_module import emit_torch

    declare(TWICE)
    graph = Graph()
    graph.outputs = graph.add("lab.Twice", [graph.input("x", X)], {"factor": 3.0}, module="twice").results
    module = emit_torch(graph)
    x = torch.rand(2, 4)
    assert torch.equal(module(x), 3 * x)
    assert [name for name, _ in module.twice.named_children()] == ["Mul_0"]


@pytest.mark.usefixtures("vocabulary")
def test_the_same_name_twice_is_refused_with_who_has_it() -> None:
    declare(TWICE)
    with pytest.raises(QirError) as caught:
        declare(OpDef("lab.Twice"))
    assert f"already declared, by {__name__}" in caught.value.message
    assert definition("lab.Twice") is TWICE
    with pytest.raises(QirError, match=r"the domain 'qir' is that of qir itself"):
        declare(OpDef("qir.Linear"))


@pytest.mark.parametrize("name", ["Twice", "Conv", "qir.Twice"])
def test_a_name_in_no_domain_of_the_callers_is_refused_with_one_that_is(name: str) -> None:
    with pytest.raises(QirError) as caught:
        declare(OpDef(name))
    assert caught.value.help == f"call it {__name__.partition('.')[0]}.{name.removeprefix('qir.')}"


@pytest.mark.usefixtures("vocabulary")
def test_an_installed_package_can_list_its_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    from qir import ops

    def listed(group: str) -> list[EntryPoint]:
        return [EntryPoint("lost", "no_such_package.ops", group)] if group == ops.ENTRY_POINTS else []

    monkeypatch.setattr("importlib.metadata.entry_points", listed)
    ops._load_declarations.cache_clear()
    definition.cache_clear()
    with pytest.raises(QirError) as caught:
        definition("Relu")
    assert "no_such_package.ops, listed as 'lost' in 'qir.operators', can not be imported" in caught.value.message
    monkeypatch.undo()
    assert definition("Relu").name == "Relu"


def test_every_current_operator_of_onnx_has_a_definition() -> None:
    names = {schema.name for schema in defs.get_all_schemas() if schema.domain == "" and not schema.deprecated}
    assert len(names) > 150
    for name in names:
        known = definition(name)
        assert known.min_operands <= len(known.operands) or not known.operands
        assert not known.opaque


def test_float_attributes_are_the_decimals_that_people_write() -> None:
    proto = helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.2)
    assert attributes_of(proto) == {"alpha": 0.2}
    assert definition("BatchNormalization").default("epsilon") == 1e-5
    assert (
        definition("LeakyRelu").normalize(attributes_of(helper.make_node("LeakyRelu", ["x"], ["y"], alpha=0.01))) == {}
    )


ATTRIBUTES: list[tuple[str, dict[str, Any]]] = [
    ("Conv", {"kernel_shape": (3, 3), "auto_pad": "SAME_UPPER"}),
    ("LeakyRelu", {"alpha": 0.3}),
    ("ConstantOfShape", {"value": np.array([7], np.int64)}),
    ("RandomNormal", {"shape": (2, 3), "seed": 0.5}),
    ("StringSplit", {"delimiter": "ä"}),
]


@pytest.mark.parametrize(("op", "attrs"), ATTRIBUTES, ids=lambda item: str(item)[:12])
def test_attributes_survive_the_way_through_a_protobuf(op: str, attrs: dict[str, Any]) -> None:
    graph = Graph()
    operands = [graph.input(name) for name in definition(op).operands[: definition(op).min_operands]]
    node = graph.add(op, operands, attrs, types=[X])
    proto = node_proto(node, ["i"] * len(operands), ["o"])
    onnx.checker.check_attribute(proto.attribute[0])
    again = definition(op).normalize(attributes_of(onnx.NodeProto.FromString(proto.SerializeToString())))
    assert again.keys() == node.attrs.keys()
    assert all(np.array_equal(again[name], node.attrs[name]) for name in again)


def test_the_vocabulary_is_that_of_the_installed_onnx() -> None:
    assert defs.onnx_opset_version() == VOCABULARY_OPSET
