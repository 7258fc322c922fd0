"""Which operators beside float operators are quantized, by cost."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qir import Graph, parse
from qir.passes.insert_quantizers import InsertQuantizers
from qir.placement.costs import Costs, KernelCost, products_for_each
from qir.placement.decisions import Decisions
from qir.placement.options import placement_of
from qir.rewrite import Outcome
from qir.verify import verify
from tests.test_aimet_config import quantized

ENCODER = """graph @encoder(%x: f32[1,64,128]) {
  %one = weight norm.weight : f32[128] #0000000000000004
  %wq = weight q.weight : f32[128,128] #0000000000000000
  %wk = weight k.weight : f32[128,128] #0000000000000001
  %w1 = weight fc1.weight : f32[128,512] #0000000000000002
  %w2 = weight fc2.weight : f32[512,128] #0000000000000003
  %norm = LayerNormalization %x, %one : f32[1,64,128] [norm]
  %q = MatMul %norm, %wq : f32[1,64,128] [q]
  %k = MatMul %norm, %wk : f32[1,64,128] [k]
  %t = Transpose %k {perm=(0, 2, 1)} : f32[1,128,64]
  %scores = MatMul %q, %t : f32[1,64,64] [scores]
  %weights = Softmax %scores : f32[1,64,64] [softmax]
  %mixed = MatMul %weights, %norm : f32[1,64,128] [mixed]
  %sum = Add %mixed, %x : f32[1,64,128] [add]
  %second = LayerNormalization %sum, %one : f32[1,64,128] [norm2]
  %fc1 = MatMul %second, %w1 : f32[1,64,512] [fc1]
  %act = Gelu %fc1 : f32[1,64,512] [act]
  %fc2 = MatMul %act, %w2 : f32[1,64,128] [fc2]
  %out = Add %fc2, %sum : f32[1,64,128] [add2]
  return %out
}"""


def inserted(text: str, **options: str) -> tuple[Graph, Outcome]:
    graph = parse(text)
    return graph, InsertQuantizers(**options).run(graph)  # type: ignore[arg-type]


def test_of_an_encoder_the_inputs_of_constant_linears_are_quantized_and_nothing_else() -> None:
    graph, outcome = inserted(ENCODER)
    assert set(quantized(graph)) == {"norm", "second", "act", "wq", "wk", "w1", "w2"}
    done = {note.module: note.reason for note in outcome.done if note.tensor is None}
    assert done == dict.fromkeys(["q", "k", "fc1", "fc2"], "writes float32: nothing that reads it is an integer kernel")
    left = {note.module: note.reason for note in outcome.missed if note.tensor is None}
    assert left["scores"].startswith("it is beside Softmax, which is in float")
    assert "µs on integers" in left["add2"]


@pytest.mark.parametrize("rows", ["N,64", "?,64", "1,?"])
def test_sizes_that_are_not_known_do_not_change_the_choice(rows: str) -> None:
    text = (
        ENCODER.replace("[1,64,", f"[{rows},").replace(f"[{rows},64]", f"[{rows},?]").replace("[1,128,64]", "[1,128,?]")
    )
    graph, _ = inserted(text)
    assert {"norm", "second", "act"} == {name for name in quantized(graph) if not name.startswith("w")}


def test_without_float_operators_everything_is_quantized() -> None:
    graph, outcome = inserted("""graph @g(%x: f32[1,8,16,16]) {
      %w = weight conv.weight : f32[8,8,3,3] #0000000000000000
      %c = Conv %x, %w {pads=(1, 1, 1, 1)} : f32[1,8,16,16] [conv]
      %p = AveragePool %c {kernel_shape=(2, 2), strides=(2, 2)} : f32[1,8,8,8] [pool]
      return %p
    }""")
    assert set(quantized(graph)) == {"x", "w", "c", "p"}
    assert not [note for note in outcome.missed if note.tensor is None]


def test_what_reads_integers_alone_stays_on_integers_though_its_kernel_is_slow() -> None:
    graph, _ = inserted("""graph @g(%x: f32[1,8,16,16]) {
      %w = weight conv.weight : f32[8,8,3,3] #0000000000000000
      %c = Conv %x, %w {pads=(1, 1, 1, 1)} : f32[1,8,16,16] [conv]
      %p = AveragePool %c {kernel_shape=(2, 2), strides=(2, 2)} : f32[1,8,8,8] [pool]
      %h = HardSwish %p : f32[1,8,8,8] [act]
      return %h
    }""")
    assert set(quantized(graph)) == {"x", "w", "c", "p"}


def test_where_nothing_would_pay_costs_have_no_say() -> None:
    graph, _ = inserted("""graph @g(%x: f32[4]) {
      %a = Tanh %x : f32[4] [a]
      %b = Add %a, %x : f32[4] [b]
      %c = Tanh %b : f32[4] [c]
      return %c
    }""")
    assert set(quantized(graph)) == {"a", "x", "b"}


def test_products_that_are_summed() -> None:
    graph = parse(ENCODER)
    found = {node.module: products_for_each(node) for node in graph.nodes()}
    assert (found["q"], found["fc2"], found["scores"], found["add"]) == (128, 512, 128, 0)


@given(
    chain=st.lists(
        st.sampled_from(["Relu", "Sigmoid", "Tanh", "Gelu", "LeakyRelu", "Mul", "Add"]), min_size=1, max_size=12
    ),
    back=st.lists(st.integers(0, 11), min_size=12, max_size=12),
    config=st.sampled_from([None, "default_config", "htp_quantsim_config_v73"]),
)
def test_any_graph_keeps_its_structure_and_every_tensor_has_one_answer(
    chain: list[str], back: list[int], config: str | None
) -> None:
    lines, names = [], ["x"]
    for number, op in enumerate(chain):
        other = names[back[number] % len(names)]
        operands = f"%{names[-1]}, %{other}" if op in ("Mul", "Add") else f"%{names[-1]}"
        lines.append(f"%v{number} = {op} {operands} : f32[2,64] [layer{number}]")
        names.append(f"v{number}")
    text = "graph @g(%x: f32[2,64]) {\n" + "\n".join(lines) + f"\nreturn %{names[-1]}\n}}"
    graph = parse(text)
    decisions = Decisions(graph, placement_of(None if config else "ort-x86-vnni", config, None, None, None, None, None))
    answers = Counter(tensor.value.hint for tensor in decisions.tensors())
    assert set(answers) == set(names)
    if any(tensor.grid is not None for tensor in decisions.tensors()):
        InsertQuantizers(config=config).run(graph)
        verify(graph)
        assert [node.op for node in graph.nodes() if node.op != "qir.Quantize"] == [
            node.op for node in parse(text).nodes()
        ]


def test_a_missing_cost_is_none() -> None:
    graph = parse(ENCODER)
    costs = Costs(1.0, 1.0, 1.0, {"Add": KernelCost(float_element=2.0, integer_element=1.0)})
    by_layer = {node.module: costs.of(node) for node in graph.nodes()}
    assert by_layer["add"] == (2.0 * 64 * 128, 1.0 * 64 * 128)
    assert by_layer["softmax"] == (0.0, 0.0)
