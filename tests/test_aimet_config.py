"""AIMET configs: what each section means, which counts more, and what a mistake says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qir import Graph, QirError, parse
from qir.facts import is_quantizer
from qir.passes.calibrate import Calibrate
from qir.passes.insert_quantizers import InsertQuantizers
from qir.placement.aimet_config import operators
from qir.placement.aimet_files import config_names
from qir.placement.options import placement_of
from qir.quantizers import quantizer_of, quantizers
from qir.rewrite import Note, Outcome

CHAIN = """graph @g(%x: f32[1,2,4,4]) {
  %w = weight conv.weight : f32[2,2,1,1] #0000000000000000
  %b = weight conv.bias : f32[2] #0000000000000001
  %conv = Conv %x, %w, %b : f32[1,2,4,4] [conv]
  %relu = Relu %conv : f32[1,2,4,4] [relu]
  %mul = Mul %relu, %relu : f32[1,2,4,4] [mul]
  return %mul
}"""

EMPTY: dict[str, Any] = {
    "defaults": {}, "params": {}, "op_type": {}, "supergroups": [], "model_input": {}, "model_output": {},
}  # fmt: skip
OUTPUTS = {"ops": {"is_output_quantized": "True"}}


class Writer:
    """Writes a config over an empty one, and runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0

    def __call__(self, **sections: Any) -> str:
        self.count += 1
        path = self.folder / f"config{self.count}.json"
        path.write_text(json.dumps({**EMPTY, **sections}))
        return str(path)

    def run(self, graph: str = CHAIN, options: dict[str, Any] | None = None, **sections: Any) -> tuple[Graph, Outcome]:
        made = parse(graph)
        return made, InsertQuantizers(config=self(**sections), **(options or {})).run(made)


@pytest.fixture
def config(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def quantized(graph: Graph) -> dict[str, str]:
    """The name of every quantized tensor, and its grid."""
    found = {}
    for node in quantizers(graph):
        encoding = node.attrs["encoding"]
        words = [encoding.dtype, "symmetric" if encoding.symmetric else "asymmetric"]
        words += ["narrow"] * encoding.narrow + ["unsigned"] * encoding.unsigned
        words += [] if encoding.axis is None else [f"axis={encoding.axis}"]
        found[node.operands[0].hint] = " ".join(words)
    return found


def of(notes: list[Note], tensor: str) -> str:
    """The one reason that is given for a tensor."""
    (reason,) = [note.reason for note in notes if note.tensor == tensor]
    return reason


# -- sections ----------------------------------------------------------------------------------------------------------


def test_defaults_quantize_results_and_parameters(config: Writer) -> None:
    graph, _ = config.run(defaults={**OUTPUTS, "params": {"is_quantized": "True", "is_symmetric": "True"}})
    assert quantized(graph) == {
        "conv": "u8 asymmetric", "relu": "u8 asymmetric", "mul": "u8 asymmetric", "w": "i8 symmetric",
        "b": "i8 symmetric",
    }  # fmt: skip


@pytest.mark.parametrize("yes", ["True", True])
def test_flags_are_strings_or_booleans(config: Writer, yes: object) -> None:
    graph, _ = config.run(defaults={"ops": {"is_output_quantized": yes, "is_symmetric": yes}})
    assert quantized(graph)["mul"] == "i8 symmetric"


def test_strict_and_unsigned_symmetric_and_widths(config: Writer) -> None:
    defaults = {
        "ops": {"is_output_quantized": "True", "is_symmetric": "True"},
        "params": {"is_quantized": "True", "is_symmetric": "True"},
        "strict_symmetric": "True", "unsigned_symmetric": "True", "per_channel_quantization": "True",
    }  # fmt: skip
    graph, _ = config.run(options={"output_bw": 4, "param_bw": 6}, defaults=defaults)
    assert quantized(graph)["relu"] == "i4 symmetric narrow unsigned"
    assert quantized(graph)["w"] == "i6 symmetric narrow unsigned axis=0"


def test_float_formats(config: Writer) -> None:
    graph, _ = config.run(options={"data_type": "float", "output_bw": 16, "param_bw": 8}, defaults=OUTPUTS)
    assert {text.split()[0] for text in quantized(graph).values()} == {"f16"}


def test_a_width_of_32_leaves_tensors_in_float(config: Writer) -> None:
    defaults = {**OUTPUTS, "params": {"is_quantized": "True"}}
    inputs = {"is_input_quantized": "True"}
    graph, _ = config.run(options={"output_bw": 32}, defaults=defaults, model_input=inputs)
    assert set(quantized(graph)) == {"w", "b"}
    graph, _ = config.run(options={"param_bw": 32}, defaults=defaults, model_input=inputs)
    assert set(quantized(graph)) == {"x", "conv", "relu", "mul"}


def test_params_by_name_count_more_than_defaults_and_those_of_an_operator_more_than_both(config: Writer) -> None:
    defaults = {"params": {"is_quantized": "True"}}
    graph, outcome = config.run(defaults=defaults, params={"bias": {"is_quantized": "False"}})
    assert set(quantized(graph)) == {"w"}
    assert of(outcome.missed, "b") == "bias of Conv stays in float (config1.json: params.bias)"
    conv = {"Conv": {"params": {"bias": {"is_quantized": "True", "is_symmetric": "True"}}}}
    graph, _ = config.run(defaults=defaults, params={"bias": {"is_quantized": "False"}}, op_type=conv)
    assert quantized(graph) == {"w": "u8 asymmetric", "b": "i8 symmetric"}


def test_op_type_turns_results_off_and_changes_their_grid(config: Writer) -> None:
    graph, outcome = config.run(
        defaults=OUTPUTS, op_type={"Conv": {"is_output_quantized": "False"}, "Relu": {"is_symmetric": "True"}}
    )
    assert quantized(graph) == {"relu": "i8 symmetric", "mul": "u8 asymmetric"}
    assert (
        of(outcome.missed, "conv") == "Conv computes in float: its result stays in float (config1.json: op_type.Conv)"
    )
    assert of(outcome.done, "relu") == "i8: Relu writes it (config1.json: defaults.ops)"


def test_an_input_is_quantized_where_its_producer_leaves_it_in_float(config: Writer) -> None:
    graph, _ = config.run(op_type={"Mul": {"is_input_quantized": "True"}})
    assert set(quantized(graph)) == {"relu"}


def test_refusing_an_input_turns_off_the_whole_edge(config: Writer) -> None:
    graph, outcome = config.run(defaults=OUTPUTS, op_type={"Mul": {"is_input_quantized": "False"}})
    assert set(quantized(graph)) == {"conv", "mul"}
    assert of(outcome.missed, "relu") == "Mul reads it in float (config1.json: op_type.Mul)"


def test_per_channel_of_an_operator(config: Writer) -> None:
    defaults = {"params": {"is_quantized": "True"}, "per_channel_quantization": "True"}
    graph, _ = config.run(defaults=defaults, op_type={"Conv": {"per_channel_quantization": "False"}})
    assert quantized(graph)["w"] == "u8 asymmetric"
    graph, _ = config.run(defaults=defaults)
    assert quantized(graph)["w"] == "u8 asymmetric axis=0"


def test_encoding_constraints_fix_the_range(config: Writer) -> None:
    limits = {"min": 0.0, "max": 2.55}
    graph, _ = config.run(defaults=OUTPUTS, op_type={"Mul": {"encoding_constraints": limits}})
    encoding = next(node for node in quantizers(graph) if node.operands[0].hint == "mul").attrs["encoding"]
    assert encoding.calibrated
    assert (encoding.scale * 255).item() == pytest.approx(2.55)
    assert encoding.zero_point == 0


def test_a_fixed_range_is_not_calibrated(config: Writer) -> None:
    text = """graph @g(%x: f32[4]) {
      %relu = Relu %x : f32[4] [relu]
      %mul = Mul %relu, %relu : f32[4] [mul]
      return %mul
    }"""
    limits = {"min": -1.0, "max": 1.0}
    graph, _ = config.run(text, defaults=OUTPUTS, op_type={"Relu": {"encoding_constraints": limits}})
    Calibrate(data=[np.full(4, 9, np.float32)]).run(graph)
    by_name = {node.operands[0].hint: node.attrs["encoding"] for node in quantizers(graph)}
    assert by_name["relu"].scale * 255 == pytest.approx(2.0)
    assert by_name["mul"].calibrated
    assert parse(str(graph)) == graph


def test_model_input_and_output(config: Writer) -> None:
    graph, _ = config.run(model_input={"is_input_quantized": "True"})
    assert set(quantized(graph)) == {"x"}
    off = {"Mul": {"is_output_quantized": "False"}}
    graph, _ = config.run(defaults=OUTPUTS, op_type=off, model_output={"is_output_quantized": "True"})
    assert set(quantized(graph)) == {"conv", "relu", "mul"}
    assert is_quantizer(graph.outputs[0].node)  # type: ignore[arg-type]


def test_model_input_quantizes_constants_that_an_operator_reads(config: Writer) -> None:
    text = """graph @g(%x: f32[2]) {
      %c = constant f32[2](1.0, 2.0)
      %y = Add %x, %c : f32[2] [add]
      %z = Clip %y, f32[](0.0), f32[](6.0) : f32[2] [clip]
      return %z
    }"""
    graph, _ = config.run(text, defaults=OUTPUTS, model_input={"is_input_quantized": "True"})
    assert set(quantized(graph)) == {"x", "c", "y", "z"}


def test_kernels_of_an_operator_count_last(config: Writer) -> None:
    kernel = {"activation": {"bitwidth": 16, "dtype": "int"}, "param": {"bitwidth": 8, "dtype": "int"}}
    defaults = {**OUTPUTS, "params": {"is_quantized": "True"}}
    graph, _ = config.run(options={"param_bw": 4}, defaults=defaults, op_type={"Conv": {"supported_kernels": [kernel]}})
    assert quantized(graph)["conv"] == "u16 asymmetric"
    assert quantized(graph)["w"] == "u8 asymmetric"
    assert quantized(graph)["relu"] == "u8 asymmetric"


def test_kernels_that_fit_change_nothing(config: Writer) -> None:
    first = {"activation": {"bitwidth": 16, "dtype": "int"}}
    second = {"activation": {"bitwidth": 8, "dtype": "int"}, "param": {"bitwidth": 8, "dtype": "int"}}
    graph, _ = config.run(defaults=OUTPUTS, op_type={"Conv": {"supported_kernels": [first, second]}})
    assert quantized(graph)["conv"] == "u8 asymmetric"


def test_a_float_kernel_holds_only_where_the_neighbours_have_it_too(config: Writer) -> None:
    half = {"supported_kernels": [{"activation": {"bitwidth": 16, "dtype": "float"}}]}
    graph, _ = config.run(defaults=OUTPUTS, op_type={"Relu": half})
    assert quantized(graph)["relu"] == "u8 asymmetric"
    graph, _ = config.run(defaults=OUTPUTS, op_type={"Relu": half, "Conv": half, "Mul": half})
    assert quantized(graph)["relu"].startswith("f16")


# -- groups ------------------------------------------------------------------------------------------------------------


def test_nothing_inside_of_a_supergroup_is_quantized(config: Writer) -> None:
    graph, outcome = config.run(defaults=OUTPUTS, supergroups=[{"op_list": ["Conv", "Relu"]}])
    assert set(quantized(graph)) == {"relu", "mul"}
    assert of(outcome.missed, "conv").endswith("which one kernel computes (config1.json: supergroups[0])")


def test_a_branch_breaks_a_supergroup_and_is_reported(config: Writer) -> None:
    text = CHAIN.replace("%mul = Mul %relu, %relu", "%mul = Mul %relu, %conv")
    graph, outcome = config.run(text, defaults=OUTPUTS, supergroups=[{"op_list": ["Conv", "Relu"]}])
    assert set(quantized(graph)) == {"conv", "relu", "mul"}
    reasons = [note.reason for note in outcome.missed]
    assert "is not one kernel Conv+Relu: Mul reads %conv too" in reasons


def test_an_output_of_the_graph_breaks_a_supergroup(config: Writer) -> None:
    text = CHAIN.replace("return %mul", "return %mul, %conv")
    graph, outcome = config.run(text, defaults=OUTPUTS, supergroups=[{"op_list": ["Conv", "Relu"]}])
    assert "conv" in quantized(graph)
    assert any("%conv is an output of the graph" in note.reason for note in outcome.missed)


def test_the_longest_supergroup_matches_first(config: Writer) -> None:
    groups = [{"op_list": ["Conv", "Relu"]}, {"op_list": ["Conv", "Relu", "Mul"]}]
    graph, _ = config.run(defaults=OUTPUTS, supergroups=groups)
    assert set(quantized(graph)) == {"mul"}


SILU = """graph @g(%x: f32[1,2,4,4]) {
  %w = weight conv.weight : f32[2,2,1,1] #0000000000000000
  %conv = Conv %x, %w : f32[1,2,4,4] [conv]
  %gate = Sigmoid %conv : f32[1,2,4,4] [gate]
  %silu = Mul %conv, %gate : f32[1,2,4,4] [mul]
  %sum = Add %silu, %x : f32[1,2,4,4] [add]
  return %sum
}"""


@pytest.mark.parametrize("swapped", [False, True])
def test_a_supergroup_with_edges_is_any_graph(config: Writer, swapped: bool) -> None:
    text = SILU.replace("Mul %conv, %gate", "Mul %gate, %conv") if swapped else SILU
    group = {"op_list": ["Conv", "Sigmoid", "Mul"], "edges": [[0, 1], [0, 2], [1, 2]]}
    graph, _ = config.run(text, defaults=OUTPUTS, supergroups=[group])
    assert set(quantized(graph)) == {"silu", "sum"}
    chain = {"op_list": ["Conv", "Sigmoid", "Mul"]}
    graph, _ = config.run(text, defaults=OUTPUTS, supergroups=[chain])
    assert set(quantized(graph)) == {"conv", "gate", "silu", "sum"}


def test_a_supergroup_may_join_two_branches(config: Writer) -> None:
    text = """graph @g(%x: f32[2], %y: f32[2]) {
      %a = Sigmoid %x : f32[2] [a]
      %b = Tanh %y : f32[2] [b]
      %c = Mul %a, %b : f32[2] [c]
      return %c
    }"""
    group = {"op_list": ["Sigmoid", "Tanh", "Mul"], "edges": [[0, 2], [1, 2]]}
    graph, _ = config.run(text, defaults=OUTPUTS, supergroups=[group])
    assert set(quantized(graph)) == {"c"}


NORM = """graph @g(%x: f32[1,2,4,4]) {
  %w = weight conv.weight : f32[2,2,1,1] #0000000000000000
  %s = weight norm.weight : f32[2] #0000000000000001
  %b = weight norm.bias : f32[2] #0000000000000002
  %m = weight norm.running_mean : f32[2] #0000000000000003
  %v = weight norm.running_var : f32[2] #0000000000000004
  %conv = Conv %x, %w : f32[1,2,4,4] [conv]
  %norm = BatchNormalization %conv, %s, %b, %m, %v : f32[1,2,4,4] [norm]
  %relu = Relu %norm : f32[1,2,4,4] [relu]
  return %relu
}"""
PARAMETERS = {**OUTPUTS, "params": {"is_quantized": "True"}}


@pytest.mark.parametrize("steps", [["Conv", "Relu"], ["Conv", "BatchNormalization", "Relu"]])
def test_a_batch_norm_that_folds_is_looked_through(config: Writer, steps: list[str]) -> None:
    graph, _ = config.run(NORM, defaults=PARAMETERS, supergroups=[{"op_list": steps}])
    assert set(quantized(graph)) == {"w", "relu"}


def test_a_batch_norm_that_folds_writes_what_its_layer_would(config: Writer) -> None:
    graph, _ = config.run(NORM, defaults=PARAMETERS)
    assert set(quantized(graph)) == {"w", "norm", "relu"}
    graph, _ = config.run(NORM, defaults=PARAMETERS, op_type={"Conv": {"is_output_quantized": "False"}})
    assert set(quantized(graph)) == {"w", "relu"}


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_of_operators_are_those_that_aimet_uses() -> None:
    assert operators("Mean") == {"ReduceMean"}
    assert "qir.Linear" in operators("Gemm")
    assert "qir.HardTanh" in operators("Clip")
    assert operators("Sigmoid") == {"Sigmoid"}
    assert not operators("NoSuchThing")


def test_mean_matches_a_reduction(config: Writer) -> None:
    text = """graph @g(%x: f32[1,2,4,4]) {
      %y = ReduceMean %x, i64[2](2, 3) : f32[1,2,1,1] [mean]
      %z = Relu %y : f32[1,2,1,1] [relu]
      return %z
    }"""
    graph, _ = config.run(text, defaults=OUTPUTS, op_type={"Mean": {"is_output_quantized": "False"}})
    assert set(quantized(graph)) == {"z"}


def test_rules_that_match_nothing_are_reported(config: Writer) -> None:
    _, outcome = config.run(
        defaults=OUTPUTS,
        op_type={"Softmax": {"is_output_quantized": "False"}, "Sofmax": {"is_symmetric": "True"}},
        params={"gamma": {"is_quantized": "True"}},
        supergroups=[{"op_list": ["Gemm", "Relu"]}],
    )
    said = {note.node: note.reason for note in outcome.missed if not note.op and note.tensor is None}
    nothing = "it matches nothing in this graph"
    assert said["config1.json: op_type.Softmax"] == nothing
    assert said["config1.json: params.gamma"] == nothing
    assert said["config1.json: supergroups[0]"] == nothing
    assert said["config1.json: op_type.Sofmax"] == "there is no operator of this name"


def test_data_movement_has_no_quantizer_of_its_own(config: Writer) -> None:
    text = CHAIN.replace(
        "%mul = Mul %relu, %relu : f32[1,2,4,4] [mul]", "%mul = Transpose %relu {perm=(0, 2, 3, 1)} : f32[1,4,4,2]"
    )
    graph, outcome = config.run(text, defaults=OUTPUTS)
    assert set(quantized(graph)) == {"conv", "relu"}
    assert "its result lies on the grid of what it reads" in of(outcome.missed, "mul")


# -- hardware ----------------------------------------------------------------------------------------------------------

PRODUCT = """graph @g(%x: f32[1,2,4,4], %y: f32[1,2,4,4]) {
  %a = Relu %x : f32[1,2,4,4] [a]
  %b = Sigmoid %y : f32[1,2,4,4] [b]
  %t = Transpose %b {perm=(0, 1, 3, 2)} : f32[1,2,4,4]
  %c = MatMul %a, %t : f32[1,2,4,4] [product]
  return %c
}"""


@pytest.mark.parametrize("version", ["V66", "V68", "V69"])
def test_the_second_factor_has_8_bits_and_is_symmetric(config: Writer, version: str) -> None:
    defaults = {**OUTPUTS, "hw_version": version}
    graph, _ = config.run(PRODUCT, {"output_bw": 16}, defaults=defaults)
    assert quantized(graph) == {"a": "u16 asymmetric", "b": "i8 symmetric", "c": "u16 asymmetric"}


@pytest.mark.parametrize("version", ["V73", "V75", "V79"])
def test_a_second_factor_of_16_bits_makes_the_first_one_as_wide(config: Writer, version: str) -> None:
    defaults = {**OUTPUTS, "hw_version": version}
    wide = {"Sigmoid": {"supported_kernels": [{"activation": {"bitwidth": 16, "dtype": "int"}}]}}
    graph, _ = config.run(PRODUCT, defaults=defaults, op_type=wide)
    assert quantized(graph) == {"a": "u16 asymmetric", "b": "i16 symmetric", "c": "u8 asymmetric"}
    graph, _ = config.run(PRODUCT, defaults=defaults)
    assert quantized(graph) == {"a": "u8 asymmetric", "b": "u8 asymmetric", "c": "u8 asymmetric"}


def test_a_constant_second_factor_keeps_its_grid(config: Writer) -> None:
    text = """graph @g(%x: f32[4,4]) {
      %w = weight fc.weight : f32[4,4] #0000000000000001
      %y = MatMul %x, %w : f32[4,4] [fc]
      return %y
    }"""
    defaults = {**OUTPUTS, "params": {"is_quantized": "True"}, "hw_version": "V66"}
    graph, _ = config.run(text, {"param_bw": 4}, defaults=defaults)
    assert quantized(graph)["w"] == "u4 asymmetric"


def test_a_second_factor_without_a_quantizer_is_reported(config: Writer) -> None:
    off = {"Sigmoid": {"is_output_quantized": "False"}}
    _, outcome = config.run(PRODUCT, defaults={**OUTPUTS, "hw_version": "V66"}, op_type=off)
    reasons = [note.reason for note in outcome.missed if note.op == "MatMul"]
    assert reasons == ["operand 1 is to have another grid (hw_version V66), and nothing quantizes it"]


def test_parameters_of_a_group_norm_are_as_wide_as_its_result(config: Writer) -> None:
    text = """graph @g(%x: f32[1,2,4]) {
      %s = weight norm.weight : f32[2] #0000000000000001
      %b = weight norm.bias : f32[2] #0000000000000002
      %y = GroupNormalization %x, %s, %b {num_groups=1} : f32[1,2,4] [norm]
      return %y
    }"""
    defaults = {**OUTPUTS, "params": {"is_quantized": "True", "is_symmetric": "True"}, "hw_version": "V75"}
    graph, _ = config.run(text, {"output_bw": 16}, defaults=defaults)
    assert quantized(graph) == {"y": "u16 asymmetric", "s": "u16 asymmetric", "b": "u16 asymmetric"}


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", config_names())
def test_every_config_that_comes_along_reads(name: str) -> None:
    assert placement_of(None, name, None, None, None, None, None).rules


def test_the_default_config_is_aimets() -> None:
    graph = parse(NORM)
    InsertQuantizers(config="default_config").run(graph)
    assert quantized(graph) == {"x": "u8 asymmetric", "w": "i8 symmetric", "relu": "u8 asymmetric"}
    graph = parse(NORM)
    InsertQuantizers(config="default_config_per_channel").run(graph)
    assert quantized(graph)["w"] == "i8 symmetric axis=0"


def test_a_config_extends_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"extends": "default_config", "op_type": {"Relu": {"is_symmetric": true}}}')
    graph = parse(CHAIN)
    outcome = InsertQuantizers(config=str(path)).run(graph)
    assert quantized(graph)["relu"] == "i8 symmetric"
    assert not [note for note in outcome.missed if "matches nothing" in note.reason]


@pytest.mark.parametrize(
    ("sections", "said", "help"),
    [
        ({"op_type": {"Conv": {"is_quantised": "True"}}}, "$.op_type.Conv: unknown key 'is_quantised'", None),
        ({"op_types": {}}, "$: unknown key 'op_types'", "did you mean 'op_type'?"),
        ({"defaults": {"ops": {"is_symmetric": "yes"}}}, '$.defaults.ops.is_symmetric: "yes" is none of', None),
        ({"defaults": {"ops": {"is_symmetric": 1}}}, "$.defaults.ops.is_symmetric: 1 is none of", None),
        ({"supergroups": [{"op_list": ["Conv"]}]}, "$.supergroups[0].op_list", None),
        ({"supergroups": [{"op_list": ["A", "B"], "edges": [[1, 0]]}]}, "does not lead from a step to a later", None),
        ({"supergroups": [{"op_list": ["A", "B", "C"], "edges": [[0, 1]]}]}, "step 1 leads nowhere", None),
        ({"model_input": {"is_input_quantized": "False"}}, "$.model_input.is_input_quantized: it can only be", None),
        ({"op_type": {"Mul": {"encoding_constraints": {"min": 1, "max": 1}}}}, "min 1 is not below max 1", None),
        (
            {"op_type": {"Mean": {"is_output_quantized": "True"}, "ReduceMean": {"is_output_quantized": "False"}}},
            "$.op_type.ReduceMean.is_output_quantized: it contradicts $.op_type.Mean.is_output_quantized",
            "keep one of the two",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_named_by_its_place(config: Writer, sections: dict[str, Any], said: str, help: str | None) -> None:
    with pytest.raises(QirError) as caught:
        InsertQuantizers(config=config(**sections))
    assert said in caught.value.message
    assert help in (None, caught.value.help)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "this is no JSON"),
        ("[]", "a config is one JSON object"),
        ('{"defaults": {}, "defaults": {}}', "$..defaults: this key is given twice"),
        ('{"defaults": {}}', "is missing"),
        ("[" * 100_000, "this is no JSON"),
        ('{"extends": "nothing"}', "there is no AIMET config 'nothing'"),
        ('{"extends": "broken.json"}', "the config extends itself"),
    ],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(QirError) as caught:
        InsertQuantizers(config=str(path))
    assert said in caught.value.message


def test_rules_of_one_section_that_contradict_each_other_are_refused(config: Writer) -> None:
    op_type = {"Relu": {"is_output_quantized": "False"}, "Mul": {"is_input_quantized": "True"}}
    with pytest.raises(QirError) as caught:
        config.run(defaults=PARAMETERS, op_type=op_type)
    assert "config1.json: op_type.Mul and config1.json: op_type.Relu" in caught.value.message


def test_options_that_exclude_each_other_are_refused() -> None:
    with pytest.raises(QirError) as caught:
        InsertQuantizers(config="default_config", target="ort-x86-vnni")
    assert caught.value.help == "give one of them"
    with pytest.raises(QirError) as caught:
        InsertQuantizers(config="default_confg")
    assert caught.value.help == "did you mean 'default_config'?"
    with pytest.raises(QirError):
        InsertQuantizers(output_bw=1)
    with pytest.raises(QirError):
        InsertQuantizers(output_bw=12, data_type="float")


def test_every_tensor_has_an_answer(config: Writer) -> None:
    graph = parse(NORM)
    outcome = InsertQuantizers(config="default_config").run(graph)
    asked = {note.tensor for note in [*outcome.done, *outcome.missed]}
    assert {"x", "w", "s", "b", "m", "v", "conv", "norm", "relu"} <= asked
    for note in outcome.done:
        if note.tensor is not None:
            value = next(value for value in graph.nx if getattr(value, "hint", None) == note.tensor)
            assert any(is_quantizer(use.node) for use in value.uses) or quantizer_of(value)
