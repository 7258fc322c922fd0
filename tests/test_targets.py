"""Target profiles: what they must hold, and what a mistake in one says."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import defs

from qir import Pipeline, QirError, parse
from qir.onnx_traits import TRAITS
from qir.targets import FOLDER, target, target_names

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
