"""Target profiles: what they must hold, and what a mistake in one says."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import defs

from qir import Pipeline, QirError, parse
from qir.onnx_traits import TRAITS
from qir.passes.insert_quantizers import InsertQuantizers
from qir.placement.targets import FOLDER, target, target_names
from qir.quantizers import quantizers

ORT = (FOLDER / "ort-x86-vnni.toml").read_text()


@pytest.mark.parametrize("name", target_names())
def test_every_profile_reads(name: str) -> None:
    assert target(name).description


def test_an_unknown_profile_is_answered_with_a_near_one() -> None:
    with pytest.raises(QirError) as caught:
        target("ort-x86-vnny")
    assert caught.value.help == "did you mean 'ort-x86-vnni'?"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"Conv", "Gemm", "MatMul"', '"Convv", "Gemm", "MatMul"', "no operator is called 'Convv'"),
        ("opset = 21", "", "is not complete: 'opset'"),
        ('dtype = "u8"', 'dtype = "u77"', "'u77' is not an integer dtype"),
        ("opset = 21", "opset = [", "is not TOML"),
    ],
)
def test_a_mistake_in_a_profile_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in ORT
    path = tmp_path / "mine.toml"
    path.write_text(ORT.replace(old, new))
    with pytest.raises(QirError) as caught:
        target(str(path))
    assert said in caught.value.message


def test_a_profile_of_ones_own_decides_what_is_quantized(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ORT.replace('"Add", "Mul", "Concat",', '"Mul", "Concat",'))
    graph = parse("""graph @g(%x: f32[2]) {
      %y = Add %x, %x : f32[2] [add]
      %z = Mul %y, %y : f32[2] [mul]
      return %z
    }""")
    outcome = Pipeline.parse(f"insert-quantizers{{target={path}}}", given=graph).passes[0].run(graph)
    assert [(note.op, note.reason) for note in outcome.missed if note.tensor is None] == [
        ("Add", "mine has no integer kernel for Add")
    ]


def test_traits_are_declared_for_operators_that_there_are() -> None:
    known = {schema.name for schema in defs.get_all_schemas() if schema.domain == ""}
    assert set(TRAITS) <= known


def test_a_profile_extends_another(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('extends = "ort-x86-vnni"\n[weight]\ndtype = "i4"\n[operators]\nsame_grid = []\n')
    mine, base = target(str(path)), target("ort-x86-vnni")
    assert mine.weight.dtype == "i4"
    assert not mine.same_grid
    assert (mine.integer, mine.costs, mine.activation) == (base.integer, base.costs, base.activation)
    second = tmp_path / "second.toml"
    second.write_text('extends = "mine.toml"\ndescription = "second"')
    assert target(str(second)).weight.dtype == "i4"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extends = "mine.toml"', "extends itself"),
        ('extends = "ort-x86-vnny"', "there is no target profile 'ort-x86-vnny'"),
        ('extends = "ort-x86-vnni"\nopsett = 3', "an unknown key opsett"),
        ('extends = "ort-x86-vnni"\n[operators]\nintegers = []', "an unknown key operators.integers"),
        ('extends = "ort-x86-vnni"\n[bias]\ndtype = "i33"', "'i33' is not an integer dtype"),
        ('extends = "ort-x86-vnni"\n[costs.kernels.Conv]\nfast = 1', "is not complete"),
        ('extends = "ort-x86-vnni"\n[costs.kernels.Convv]\nfloat_element = 1', "no operator is called 'Convv'"),
        ('description = "mine"', "is not complete: 'operators'"),
    ],
)
def test_a_mistake_in_a_profile_that_extends_another_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(QirError) as caught:
        target(str(path))
    assert said in caught.value.message


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    for dtype in ("i4", "i6"):
        path.write_text(f'extends = "ort-x86-vnni"\n[weight]\ndtype = "{dtype}"')
        assert target(str(path)).weight.dtype == dtype


RESIDUAL = """graph @g(%x: f32[1,8,8,8]) {
  %w = weight a.weight : f32[8,8,1,1] #0000000000000000
  %b = weight a.bias : f32[8] #0000000000000001
  %v = weight b.weight : f32[8,8,1,1] #0000000000000002
  %a = Conv %x, %w, %b : f32[1,8,8,8] [a]
  %r = Relu %a : f32[1,8,8,8] [relu]
  %c = Conv %r, %v : f32[1,8,8,8] [b]
  %s = Add %c, %r : f32[1,8,8,8] [add]
  return %s
}"""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ort-x86-vnni", {"x": "u8", "w": "i8 narrow", "b": "i32", "r": "u8", "v": "i8 narrow", "c": "u8", "s": "u8"}),
        ("ort-x86-avx2", {"x": "u8", "w": "i7 narrow", "b": "i32", "r": "u8", "v": "i7 narrow", "c": "u8", "s": "u8"}),
        ("ort-arm", {"x": "i8", "w": "i8 narrow", "b": "i32", "r": "i8", "v": "i8 narrow", "c": "i8", "s": "i8"}),
        ("tensorrt", {"x": "i8 symmetric", "w": "i8 narrow", "r": "i8 symmetric", "v": "i8 narrow"}),
        ("qnn-htp", {"x": "u8", "w": "i8 symmetric", "b": "i32", "r": "u8", "v": "i8 symmetric", "c": "u8", "s": "u8"}),
        ("openvino", {"x": "u8", "w": "i8 narrow", "r": "u8", "v": "i8 narrow", "c": "u8"}),
    ],
)
def test_what_each_target_quantizes_of_a_residual_block(name: str, expected: dict[str, str]) -> None:
    graph = parse(RESIDUAL)
    InsertQuantizers(target=name).run(graph)
    found = {node.operands[0].hint: node.attrs["encoding"] for node in quantizers(graph)}
    said = {
        tensor: grid.dtype + (" narrow" if grid.narrow else " symmetric" if grid.symmetric else "")
        for tensor, grid in found.items()
    }
    assert said == expected
    assert found["w"].axis == 0


def test_a_width_that_the_target_has_no_kernel_for_is_refused() -> None:
    with pytest.raises(QirError) as caught:
        InsertQuantizers(target="ort-x86-vnni", output_bw=16)
    assert caught.value.message == "ort-x86-vnni has no kernel for tensors of u16"
    assert caught.value.help == "it has kernels for u8, i8"
    assert InsertQuantizers(target="qnn-htp", output_bw=16)


def test_weights_of_seven_bits_do_not_saturate_sums_of_two_products() -> None:
    encoding = target("ort-x86-avx2").weight.encoding()
    assert 2 * 255 * max(abs(encoding.low), encoding.high) <= 32767
    assert 2 * 255 * target("ort-x86-vnni").weight.encoding().high > 32767
