"""The encodings of a graph: complete, named as its float ONNX model, and bit-equal when they come back from a file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import qir
from qir.api.preparation import PREPARE
from qir.backends.onnx_qdq import emit_onnx, session
from qir.encodings.apply import apply_encodings, encodings_of, remove, save_encodings, torch_encodings
from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding, ProductEncoding
from qir.encodings.file import VERSIONS, encodings_document
from qir.encodings.tensor_names import float_model, quantizers_by_layer
from qir.errors import QirError
from qir.facts import is_quantizer
from qir.graph import Graph, Node
from qir.paths import Paths
from qir.quantizers import quantizers, replace_encodings
from qir.traits import Weighted
from qir.types import TensorType
from tests.model_table import Example
from tests.models import SMALL


def quantized_everywhere(example: Example) -> Graph:
    """The prepared model, composites and all, with every float tensor quantized."""
    graph = qir.import_model(example.model(), example.inputs())
    return quantize_floats(qir.Pipeline.parse(PREPARE).run(graph))


def quantize_floats(graph: Graph) -> Graph:
    """The graph, with a calibrated quantizer on every float tensor but for buffers."""
    random = np.random.default_rng(0)
    values = [*graph.inputs, *graph.weights(), *(value for node in graph.nodes() for value in node.results)]
    weights = {node.operands[trait.weight] for node in graph.nodes() if (trait := node.definition.trait(Weighted))}
    for number, value in enumerate(values):
        typed = isinstance(value.type, TensorType) and value.type.dtype == "f32" and value.type.rank is not None
        buffer = value.weight is not None and bool(value.weight.paths) and not value.weight.trainable
        if not typed or buffer or not (value.uses or value.is_output):
            continue
        quantize(graph, value, grid(random, number, value in weights and value.weight is not None, value.type.static))
    return graph


def grid(random: np.random.Generator, number: int, is_weight: bool, shape: tuple[int, ...] | None) -> Encoding:
    if is_weight and shape:
        made = Encoding(f"i{2 + number % 15}", True, number % len(shape), bool(number % 2))
    else:
        made = [Encoding("u8"), Encoding("i8"), Encoding("i16", True), Encoding("u4"), FloatEncoding("f16")][number % 5]
    size = () if made.axis is None or shape is None else (shape[made.axis],)
    return made.with_range(-random.random(size), random.random(size))


def quantize(graph: Graph, value: Any, encoding: Encoding) -> Node:
    attrs, hint = {"encoding": encoding}, f"{value.hint}_q"
    made = graph.add("qir.Quantize", [value], attrs, hint=hint, module=Paths(graph).new("", hint))
    for use in value.uses:
        if use.node is not made:
            graph.set_operand(use.node, use.port, made.result)
    graph.outputs[:] = [made.result if output is value else output for output in graph.outputs]
    return made


def uncalibrated(graph: Graph) -> Graph:
    twin = graph.copy()
    fresh = {node.attrs["encoding"]: replace(node.attrs["encoding"], scale=None, zero_point=None)
             for node in quantizers(twin) if not isinstance(node.attrs["encoding"], ProductEncoding)}  # fmt: skip
    replace_encodings(twin, fresh)
    return twin


@pytest.fixture(scope="module", params=sorted(SMALL))
def everywhere(request: pytest.FixtureRequest) -> Graph:
    return quantized_everywhere(SMALL[request.param])


def test_every_quantizer_has_a_name_in_the_onnx_file(everywhere: Graph) -> None:
    made = float_model(everywhere)
    assert not any(is_quantizer(node) for node in made.graph.nodes())
    assert set(made.names) == set(quantizers(everywhere))
    assert len(set(made.names.values())) == len({node.attrs["encoding"] for node in made.names})
    try:
        model = emit_onnx(made.graph)
    except QirError as error:
        pytest.skip(f"the model has no place in ONNX: {error.message}")
    present = {value.name for value in (*model.graph.input, *model.graph.initializer)}
    present |= {name for node in model.graph.node for name in node.output}
    assert set(made.names.values()) <= present


@pytest.mark.parametrize("version", VERSIONS)
def test_a_graph_gets_its_encodings_back(everywhere: Graph, version: str, tmp_path: Path) -> None:
    path = tmp_path / "x.encodings"
    save_encodings(everywhere, path, version)
    twin = uncalibrated(everywhere)
    assert twin != everywhere
    applied = apply_encodings(twin, path)
    assert not applied.missing
    assert not applied.surplus
    assert str(twin) == str(everywhere)


def test_a_graph_gets_its_encodings_back_by_layer(everywhere: Graph) -> None:
    twin = uncalibrated(everywhere)
    apply_encodings(twin, json.loads(json.dumps(torch_encodings(everywhere))))
    assert str(twin) == str(everywhere)


def test_the_float_onnx_model_computes_the_float_model() -> None:
    for name in ("activations", "tied_head", "nested"):
        example = SMALL[name]
        graph = quantized_everywhere(example)
        running = session(emit_onnx(float_model(graph).graph))
        inputs = example.inputs()
        feeds = {entry.name: x.numpy() for entry, x in zip(running.get_inputs(), inputs, strict=True)}
        expected = example.model()(*inputs)
        for given, wanted in zip(
            running.run(None, feeds), [expected] if torch.is_tensor(expected) else expected, strict=True
        ):
            np.testing.assert_allclose(given, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)


TEXT = """graph @g(%x: f32[1,8], %y: f32[1,8]) {
  %w = weight fc.weight, head.weight : f32[8,8] #0000000000000000
  %b = weight fc.bias : f32[8] #00000000000000bb
  %x_q = qir.Quantize %x {encoding=$x_q} : f32[1,8] [x_quantizer]
  %y_q = qir.Quantize %y {encoding=$x_q} : f32[1,8] [y_quantizer]
  %w_q = qir.Quantize %w {encoding=$w_q} : f32[8,8] [fc.weight_quantizer]
  %b_q = qir.Quantize %b {encoding=$b_q} : f32[8] [fc.bias_quantizer]
  %sum = Add %x_q, %y_q : f32[1,8] [add]
  %fc = Gemm %sum, %w_q, %b_q {transB=1} : f32[1,8] [fc]
  %fc_q = qir.Quantize %fc {encoding=$fc_q} : f32[1,8] [fc.output_quantizer]
  return %fc_q
  $x_q = u8 asymmetric scale=0.5 zero_point=3
  $w_q = i8 symmetric scale=0.25 zero_point=0
  $fc_q = u8 asymmetric scale=2.0 zero_point=7
  $b_q = i32 product $x_q $w_q
}"""


def entry(name: str, scale: float = 0.125, offset: int = -1, symmetric: bool = False, count: int = 1) -> dict[str, Any]:
    kind = "PER_TENSOR" if count == 1 else "PER_CHANNEL"
    return {"name": name, "bw": 8, "dtype": "INT", "enc_type": kind, "is_sym": symmetric, "offset": [offset] * count,
            "scale": [scale] * count}  # fmt: skip


def file_of(*activations: dict[str, Any], parameters: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"version": "1.0.0", "activation_encodings": list(activations), "param_encodings": list(parameters)}


def scale_of(graph: Graph, name: str) -> float:
    return float(next(n.attrs["encoding"].scale for n in quantizers(graph) if n.operands[0].hint == name))


def test_shared_grids_stay_shared_and_products_follow() -> None:
    graph = qir.parse(TEXT)
    applied = apply_encodings(graph, file_of(entry("x"), parameters=(entry("head.weight", 0.5, -128, True),)))
    assert [node.operands[0].hint for node in applied.taken] == ["x", "y", "w"]
    assert [node.operands[0].hint for node in applied.missing] == ["fc"]
    assert scale_of(graph, "x") == scale_of(graph, "y") == 0.125
    assert scale_of(graph, "b") == 0.125 * 0.5
    first, second = (node.attrs["encoding"] for node in quantizers(graph)[:2])
    assert first is second


def test_names_are_those_of_tensors_layers_and_states() -> None:
    graph = qir.parse(TEXT)
    assert list(float_model(graph).names.values()) == ["x", "y", "w", "b", "fc"]
    layers = {"fc.weight", "head.weight", "fc.bias", "add:input:0", "add:input:1", "fc:output:0"}
    assert set(quantizers_by_layer(graph)) == layers


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (file_of(entry("z")), ["names 1 tensors", "z", "strict=False"]),
        (file_of(entry("x"), entry("y", 0.25)), ["$.activation_encodings[1]", "shares its grid with x"]),
        (file_of(parameters=(entry("w", 1.0, -128, True, 8),)), ["$.param_encodings[0]", "per channel in the file"]),
        (file_of(parameters=(entry("w", 1.0, -3),)), ["asymmetric in the file and symmetric in the graph"]),
        (file_of(parameters=(entry("w", 1.0, -128, True, 7),)), ["7 scales", "should have 8"]),
        (file_of(parameters=(entry("b", 1.0, -128, True),)), ["$.param_encodings[0]", "product"]),
        (file_of(), ["no encodings"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_graph_is_refused_and_changes_nothing(file: dict[str, Any], words: list[str]) -> None:
    graph = qir.parse(TEXT)
    with pytest.raises(QirError) as caught:
        apply_encodings(graph, file)
    for word in words:
        assert word in str(caught.value)
    assert str(graph) == str(qir.parse(TEXT))


def test_what_is_not_strict_takes_the_files_word() -> None:
    graph = qir.parse(TEXT)
    file = file_of(
        entry("z"), entry("fc", 0.5, -128, True), parameters=(entry("w", 1.0, -128, True, 8), entry("b", 9.0))
    )
    applied = apply_encodings(graph, file, strict=False)
    assert applied.surplus == ["z"]
    made = {node.operands[0].hint: node.attrs["encoding"] for node in quantizers(graph)}
    assert made["w"].axis == 0
    assert made["fc"].symmetric
    assert made["b"].scale.tolist() == [0.5] * 8


def test_frozen_quantizers_keep_their_grid() -> None:
    graph = qir.parse(TEXT)
    frozen = [node for node in quantizers(graph) if node.operands[0].hint == "y"]
    applied = apply_encodings(graph, file_of(entry("x"), entry("fc")), frozen=frozen)
    assert [node.operands[0].hint for node in applied.taken] == ["fc"]
    assert scale_of(graph, "x") == 0.5


def test_a_removed_factor_takes_the_bias_with_it() -> None:
    graph = qir.parse(TEXT)
    remove(graph, [node for node in quantizers(graph) if node.operands[0].hint == "w"])
    assert [node.operands[0].hint for node in quantizers(graph)] == ["x", "y", "fc"]


def test_layers_are_found_where_the_model_has_no_place_in_onnx() -> None:
    graph = qir.parse(
        """graph @g(%x: f32[...]) {
  %x_q = qir.Quantize %x {encoding=$x_q} : f32[...] [x_quantizer]
  %y = qir.Unfold %x_q {kernel_size=(2, 2)} : f32[...] [unfold]
  return %y
  $x_q = u8 asymmetric scale=0.5 zero_point=3
}"""
    )
    with pytest.raises(QirError, match="rank"):
        encodings_of(graph)
    file = torch_encodings(graph)
    file["activation_encodings"]["unfold"]["input"]["0"]["scale"] = 0.25
    apply_encodings(graph, file)
    assert scale_of(graph, "x") == 0.25


def test_two_grids_on_one_tensor_are_two_tensors_in_the_onnx_file() -> None:
    graph = qir.parse(
        """graph @g(%x: f32[4]) {
  %a = qir.Quantize %x {encoding=$a} : f32[4] [a]
  %b = qir.Quantize %x {encoding=$b} : f32[4] [b]
  %relu = Relu %a : f32[4] [relu]
  %abs = Abs %b : f32[4] [abs]
  return %relu, %abs
  $a = u8 asymmetric scale=0.5 zero_point=3
  $b = u4 asymmetric scale=0.25 zero_point=0
}"""
    )
    model = emit_onnx(float_model(graph).graph)
    assert [node.op_type for node in model.graph.node] == ["Relu", "Identity", "Abs"]
    assert list(encodings_of(graph).activations) == ["x", "x_1"]
    assert set(torch_encodings(graph)["activation_encodings"]) == {"relu", "abs"}


def test_quantizers_around_what_inference_removes_keep_their_tensors() -> None:
    lines = ["graph @g(%x: f32[4]) {", "  %q0 = qir.Quantize %x {encoding=$q0} : f32[4] [q0]"]
    for number in range(1, 4):
        lines.append(f"  %d{number} = Dropout %q{number - 1}, 0.5, True : f32[4] [d{number}] !{number}")
        lines.append(f"  %q{number} = qir.Quantize %d{number} {{encoding=$q{number}}} : f32[4] [q{number}]")
    lines.append("  return %q3")
    lines += [f"  $q{number} = u8 asymmetric scale={number + 1}.0 zero_point={number}" for number in range(4)]
    graph = qir.parse("\n".join([*lines, "}"]).replace(", 0.5, True", ""))
    found = encodings_of(graph).activations
    assert list(found) == ["x", "x_1", "x_2", "x_3"]
    assert [float(encoding.scale) for encoding in found.values() if encoding.scale is not None] == [1.0, 2.0, 3.0, 4.0]
    assert [node.op for node in float_model(graph).graph.nodes()] == ["Identity"] * 3


def test_blocks_and_low_power_grids_come_back() -> None:
    graph = qir.parse(TEXT)
    low, high = -np.random.default_rng(0).random((8, 4)), np.random.default_rng(1).random((8, 4))
    blocks: list[Encoding] = [Encoding("i4", True, 0, block_axis=1, block_size=2),
                              LowPowerEncoding("i4", True, 0, block_axis=1, block_size=2)]  # fmt: skip
    for block in blocks:
        remove(graph, [node for node in quantizers(graph) if node.operands[0].hint == "b"])
        weight = next(node for node in quantizers(graph) if node.operands[0].hint == "w")
        weight.attrs["encoding"] = block.with_range(low, high)
        for version in VERSIONS[1:]:
            twin = uncalibrated(graph)
            apply_encodings(twin, json.loads(json.dumps(encodings_document(encodings_of(graph), version))))
            assert str(twin) == str(graph)
        twin, document = uncalibrated(graph), json.loads(json.dumps(torch_encodings(graph)))
        apply_encodings(twin, document)
        assert str(twin) == str(graph)
        document["param_encodings"]["fc.weight"]["axis"] = "x"
        with pytest.raises(QirError, match=r"\$.param_encodings"):
            apply_encodings(twin, document)


def test_a_quantized_model_comes_back_bit_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)).eval()
    x = torch.randn(4, 3, 8, 8)
    quantized = qir.quantize(model, data=[x])
    for version in VERSIONS:
        save_encodings(quantized.graph, tmp_path / "x.encodings", version)
        twin = uncalibrated(quantized.graph)
        qir.Pipeline.parse(f"load-encodings{{file={tmp_path / 'x.encodings'}}}", twin).run(twin)
        again = replace(quantized, graph=twin)
        assert torch.equal(again.simulator()(x), quantized.simulator()(x))
        assert again.onnx().SerializeToString(deterministic=True) == quantized.onnx().SerializeToString(
            deterministic=True
        )


def test_an_uncalibrated_graph_has_no_file(tmp_path: Path) -> None:
    graph = uncalibrated(qir.parse(TEXT))
    for attempt in (lambda: save_encodings(graph, tmp_path / "x", "1.0.0"), lambda: torch_encodings(graph)):
        with pytest.raises(QirError, match="not calibrated"):
            attempt()
    assert not list(tmp_path.iterdir())
