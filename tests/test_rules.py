"""Rules files: mixed precision and exceptions, over a target profile or an AIMET config."""

from __future__ import annotations

from pathlib import Path

import pytest

from qir import Graph, QirError, parse
from qir.passes.insert_quantizers import InsertQuantizers
from qir.rewrite import Outcome
from tests.test_aimet_config import of, quantized

NET = """graph @g(%x: f32[1,2,4,4]) {
  %w = weight body.0.weight : f32[2,2,1,1] #0000000000000000
  %b = weight body.0.bias : f32[2] #0000000000000001
  %v = weight head.weight : f32[2,2,1,1] #0000000000000002
  %first = Conv %x, %w, %b : f32[1,2,4,4] [body.0]
  %sum = Add %first, %x : f32[1,2,4,4] [body.add]
  %second = Conv %sum, %v : f32[1,2,4,4] [head]
  return %second
}"""


def ruled(tmp_path: Path, rules: str, **options: str) -> tuple[Graph, Outcome]:
    path = tmp_path / "mixed.toml"
    path.write_text(rules)
    graph = parse(NET)
    return graph, InsertQuantizers(rules=str(path), **options).run(graph)  # type: ignore[arg-type]


def test_a_layer_is_left_in_float_with_its_parameters(tmp_path: Path) -> None:
    graph, outcome = ruled(tmp_path, '[[rule]]\nlayer = "body.0"\nactivation = "float"')
    assert set(quantized(graph)) == {"x", "sum", "second", "v", "first"}
    assert of(outcome.missed, "w") == "a rule keeps it in float (mixed.toml: rule 1)"
    assert of(outcome.done, "first") == "u8: Add reads it quantized (ort-x86-vnni: operators.integer)"


@pytest.mark.parametrize("pattern", ["body.*", "*", "body.?"])
def test_layers_are_globs(tmp_path: Path, pattern: str) -> None:
    graph, _ = ruled(tmp_path, f'[[rule]]\nlayer = "{pattern}"\nweight = "i4"')
    assert quantized(graph)["w"] == "i4 symmetric narrow axis=0"
    assert quantized(graph)["v"].startswith("i4" if pattern == "*" else "i8")


def test_operators_get_grids_of_their_own(tmp_path: Path) -> None:
    rules = '[[rule]]\nop = ["Add", "Mul"]\nactivation = "u16"\n[[rule]]\nop = "Conv"\nper_channel = false'
    graph, _ = ruled(tmp_path, rules, config="default_config_per_channel")
    found = quantized(graph)
    assert found["sum"] == "u16 asymmetric"
    assert found["first"] == "u8 asymmetric"
    assert found["w"] == "i8 symmetric"


def test_later_rules_count_more(tmp_path: Path) -> None:
    rules = '[[rule]]\nop = "Conv"\nweight = "i4"\n[[rule]]\nlayer = "head"\nweight = "i6"'
    graph, _ = ruled(tmp_path, rules)
    assert quantized(graph)["w"].startswith("i4")
    assert quantized(graph)["v"].startswith("i6")


def test_weights_alone(tmp_path: Path) -> None:
    graph, _ = ruled(tmp_path, '[[rule]]\nop = ["Conv", "Add"]\nactivation = "float"\nweight = "i4"\nbias = "float"')
    assert set(quantized(graph)) == {"w", "v"}


def test_a_bias_can_be_left_in_float(tmp_path: Path) -> None:
    graph, _ = ruled(tmp_path, '[[rule]]\nop = "Conv"\nbias = "float"')
    assert set(quantized(graph)) == {"x", "w", "v", "first", "sum", "second"}


def test_one_tensor_by_name(tmp_path: Path) -> None:
    graph, outcome = ruled(tmp_path, '[[rule]]\ntensor = "sum"\nactivation = "float"')
    assert "sum" not in quantized(graph)
    assert of(outcome.missed, "sum") == "a rule keeps it in float (mixed.toml: rule 1)"
    graph, _ = ruled(tmp_path, '[[rule]]\ntensor = "s*"\nactivation = "u16"')
    assert quantized(graph)["sum"] == quantized(graph)["second"] == "u16 asymmetric"


def test_rules_that_match_nothing_are_reported(tmp_path: Path) -> None:
    _, outcome = ruled(
        tmp_path, '[[rule]]\nlayer = "tail.*"\nactivation = "float"\n[[rule]]\ntensor = "t"\nactivation = "u4"'
    )
    said = {note.node: note.reason for note in outcome.missed}
    assert said["mixed.toml: rule 1"] == said["mixed.toml: rule 2"] == "it matches nothing in this graph"


@pytest.mark.parametrize(
    ("rules", "said", "help"),
    [
        ("", "mixed.toml holds no rules", "each rule is a table [[rule]]"),
        ("rule = 3", "mixed.toml holds no rules", None),
        ("[[rule]", "mixed.toml is not TOML", None),
        ('[[rule]]\nop = "Conv"', "mixed.toml: rule 1 says nothing about what it matches", None),
        ('[[rule]]\nactivation = "u8"', "mixed.toml: rule 1 does not say what it is for", None),
        ('[[rule]]\nlayers = "a"\nactivation = "u8"', "there is no key 'layers'", "did you mean 'layer'?"),
        ('[[rule]]\nop = "Convv"\nactivation = "u8"', "no operator is called 'Convv'", "did you mean 'Conv'?"),
        ('[[rule]]\nop = "Conv"\nactivation = "u77"', "mixed.toml: rule 1: 'u77'", None),
        ('[[rule]]\nop = 3\nactivation = "u8"', "mixed.toml: rule 1: op is not 3", "op is list"),
        ('[[rule]]\ntensor = "x"\nweight = "i8"', "a tensor has an activation grid alone", None),
        ('[[rule]]\ntensor = "x"\nop = "Conv"\nactivation = "i8"', "a tensor has an activation grid alone", None),
    ],
)
def test_a_mistake_in_a_rule_is_named(tmp_path: Path, rules: str, said: str, help: str | None) -> None:
    with pytest.raises(QirError) as caught:
        ruled(tmp_path, rules)
    assert said in caught.value.message
    assert help in (None, caught.value.help)


def test_a_rules_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(QirError, match="can not read"):
        InsertQuantizers(rules="nowhere.toml")
