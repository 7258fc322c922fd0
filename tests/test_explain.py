"""Every pass says what it did and why it left the rest, as text and as data."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import qir
from qir.__main__ import main
from qir.api.quantize import graph_to_quantize, quantization
from qir.errors import QirError
from qir.pipeline import Pipeline
from qir.registry import known_passes
from qir.text.printing import value_names
from tests.models import SMALL
from tests.quantizing import quantized

ROOT = Path(__file__).parent.parent
EMPTY = "graph @g(%x: f32[4]) {\n  return %x\n}"


class Case(NamedTuple):
    """A graph, the pass with its options, and what it says: of what it did, and of what it left."""

    graph: str
    step: str = ""
    done: str = ""
    left: str = ""


def body(lines: str, inputs: str = "%x: f32[4]", result: str = "%y", encodings: str = "") -> str:
    return f"graph @g({inputs}) {{\n{lines}\n  return {result}\n{encodings}\n}}"


CLIPS = "%a = Relu %x : f32[4] [a]\n %b = Clip %a, 0.0, 6.0 : f32[4] [b]"
POOLED = """
 %p = qir.Quantize %x {encoding=$p} : f32[1,1,4,4]
 %q = MaxPool %p {kernel_shape=(2, 2)} : f32[1,1,3,3] [pool]
 %y = qir.Quantize %q {encoding=$q} : f32[1,1,3,3]"""
IMAGE = "%x: f32[1,1,4,4]"
ROUNDED = "%y = qir.Quantize %x {encoding=$e} : f32[4] [x_quantizer]"
U8 = "$e = u8 asymmetric scale=0.1 zero_point=101"
OPAQUE = "%y = torch.Tensor.frobnicate %x {args=(%0,)} : f32[4] [odd]"
GEMM = """
 %w = constant f32[2,2](1.0, 2.0, 3.0, 4.0)
 %b = constant f32[2](1.0, 2.0)
 %q = qir.Quantize %x {encoding=$e} : f32[1,2]
 %v = qir.Quantize %w {encoding=$v} : f32[2,2]
 %c = qir.Quantize %b {encoding=$c} : f32[2]
 %y = Gemm %q, %v, %c : f32[1,2] [fc]"""
GEMM_GRIDS = (
    "$e = u8 asymmetric scale=0.1 zero_point=101\n $v = i8 symmetric scale=0.1 zero_point=0\n $c = i32 product $e $v"
)
QDQ = """
 %p = QuantizeLinear %x, f32[](0.5), u8[](7) : u8[4]
 %q = DequantizeLinear %p, f32[](0.5), u8[](7) : f32[4]"""
INTEGERS = """
 %x = DequantizeLinear %a, f32[](0.5), u8[](0) : f32[4]
 %y = DequantizeLinear %b, f32[](0.25), u8[](0) : f32[4]
 %s = Add %x, %y : f32[4]"""
ATTENTION = "%y = qir.ScaledDotProductAttention %q, %k, %v : f32[1,2,4,16] [attend]"
QKV = "%q: f32[1,2,4,16], %k: f32[1,2,4,16], %v: f32[1,2,4,16]"
SUMS = "%a = Add %x, %x : f32[1,8,2] [add]\n %y = {after} : f32[1,8,2] [norm]"
NORM = "LayerNormalization %a, f32[2](1, 1)"
MEAN = "%y = ReduceMean %x, i64[{n}]({axes}) {{keepdims=0}} : f32[1,{out}] [mean]"
STATISTICS = "f32[1](2.0), f32[1](1.0), {mean}, f32[1](4.0)"
NORMED = f"%y = BatchNormalization {{x}}, {STATISTICS} : f32[1,1,2,2] [bn]"
BACK = "{perm=(0, 2, 3, 1)} : f32[1,8,8,3]"
MOVED = "ReduceMean %y, i64[2](1, 2) {keepdims=0} : f32[1,3] [mean]"
CONV = "%a = Conv %x, f32[1,1,1,1](3.0) : f32[1,1,2,2] [conv]\n "
SMALL_IMAGE = "%x: f32[1,1,2,2]"

PADDED = ("%p = Pad %x, i64[4](1, 1, 1, 1), {value}, i64[2](2, 3) : f32[1,1,4,4]\n "
          "%y = Conv %p, f32[1,1,1,1](2.0) : f32[1,1,4,4]")  # fmt: skip
CASES: dict[str, list[Case]] = {
    "calibrate": [
        Case(body(GEMM, "%x: f32[1,2]", encodings="$e = u8 asymmetric\n $v = i8 symmetric\n $c = i32 product $e $v"),
             "calibrate{file=x.npz}", "has the scale", "its scale is the product of those of its input and its weight"),
        Case(body("%h = qir.Quantize %x {encoding=$h} : f32[1,2]\n %y = qir.Quantize %h {encoding=$e} : f32[1,2]",
                  "%x: f32[1,2]", encodings="$h = bf16\n $e = u8 asymmetric"),
             "calibrate{file=x.npz}", "has the scale", "bf16 needs no scale"),
    ],
    "decompose": [
        Case(body(ATTENTION, QKV), "decompose", "is written in 6 parts: "),
        Case(body(ATTENTION, QKV), "decompose{families=[einsum]}", "", "the family 'attention' is not asked for"),
    ],
    "expand-opaque": [
        Case(body("%y = Relu %x : f32[4]\n %z = other.Call %y {args=(%0,)} : f32[4] [odd]", result="%z"),
             left="nothing here writes calls of its framework in ONNX"),
    ],
    "fold-batch-norm": [
        Case(body(CONV + NORMED.format(x="%a", mean="f32[1](5.0)"), SMALL_IMAGE), done="becomes Conv"),
        Case(body(NORMED.format(x="%x", mean="f32[1](5.0)"), SMALL_IMAGE), left="is an input of the graph"),
        Case(body(CONV + NORMED.format(x="%a", mean="f32[1](5.0)") + "\n %z = Add %a, %y : f32[1,1,2,2]",
                  SMALL_IMAGE, "%z"), left="Add reads %a too"),
    ],
    "fold-constants": [
        Case(body("%s = Mul f32[](2.0), f32[](3.0) : f32[] [scale]\n %z = Mul %x, %s : f32[4] [product]",
                  result="%z"), done="becomes a constant"),
        Case(body("%s = Expand f32[](1.0), i64[2](30000, 4) : f32[30000,4]\n %z = Add %x, %s : f32[30000,4] [sum]",
                  result="%z"), left="it has 480,000 bytes, and is made of fewer"),
        Case(body("%s = other.Call f32[](1.0) {args=(%0,)} : f32[4] [odd]\n %z = Add %x, %s : f32[4] [sum]",
                  result="%z"), left="it is opaque, and may compute something else the next time"),
    ],
    "fold-padding": [
        Case(body(PADDED.format(value="0.0"), SMALL_IMAGE), done="becomes Conv"),
        Case(body(PADDED.format(value="2.0"), SMALL_IMAGE), left="padded with something else"),
    ],
    "fold-qdq": [
        Case(body(QDQ, result="%q"), done="is a quantizer"),
        Case(body(QDQ, result="%q, %p"), left="the integers are read by others"),
    ],
    "fuse-integer": [
        Case(body(INTEGERS + "\n %q = QuantizeLinear %s, f32[](0.5), u8[](0) : u8[4]", "%a: u8[4], %b: u8[4]", "%q"),
             done="becomes com.microsoft.QLinearAdd"),
        Case(body(INTEGERS, "%a: u8[4], %b: u8[4]", "%s"), left="its result has 1 readers"),
    ],
    "gather-integers": [
        Case(body("%t = DequantizeLinear i8[3,2](1, 2, 3, 4, 5, 6), f32[](0.5) : f32[3,2] [t]\n"
                  "%y = Gather %t, %i : f32[2,2] [rows]", "%i: i64[2]"), done="becomes Gather + DequantizeLinear"),
        Case(body("%t = DequantizeLinear i8[3,2](1, 2, 3, 4, 5, 6), f32[3](0.5, 1.0, 2.0) {axis=0} : f32[3,2] [t]\n"
                  "%y = Gather %t, %i : f32[2,2] [rows]", "%i: i64[2]"), left="its table has a scale for each row"),
    ],
    "infer-shapes": [
        Case(body("%a = Relu %x : f32[?,?]", "%x: f32[n,4]", "%a"), done="is f32[n,4]"),
        Case(body("%a = NonZero %x : i64[1,?]", result="%a"), left="its sizes do not follow from those of the inputs"),
    ],
    "insert-quantizers": [
        Case(body("%y = HardSwish %x : f32[4] [act]\n %z = Gemm %m, f32[2,2](1, 2, 3, 4) : f32[1,2] [fc]",
                  "%x: f32[4], %m: f32[1,2]", "%y, %z"), "insert-quantizers{target=ort-x86-vnni}",
             "integer", "has no integer kernel for HardSwish"),
    ],
    "keep-sums-apart": [
        Case(body(SUMS.format(after=NORM), "%x: f32[1,8,2]"), done="becomes Sum"),
        Case(body(SUMS.format(after="Relu %a"), "%x: f32[1,8,2]"), left="fuses it with nothing slower"),
        Case(body(f"%a = Add %x, 1.0 : f32[1,8,2] [add]\n %y = {NORM} : f32[1,8,2] [norm]", "%x: f32[1,8,2]"),
             left="it adds a number"),
    ],
    "legalize-onnx": [
        Case(body("%y = Swish %x : f32[4] [act]"), done="becomes Sigmoid + Mul"),
        Case(body(ROUNDED, encodings=U8), done="becomes QuantizeLinear + DequantizeLinear"),
        Case(body(ROUNDED, encodings="$e = u8 asymmetric"), left="the quantizer is not calibrated"),
        Case(body(OPAQUE), left="it is opaque: nothing lowers it yet"),
        Case(body("%y = Add %x, %n : f32[4] [sum]", "%x: f32[4], %n: int"), done="reads %n through a Cast"),
    ],
    "lift-functionals": [
        Case(body("%y = Relu %x : f32[4] @ (block)"), done="is the layer block.module_y now"),
        Case(body("%y = Reshape %x, i64[2](2, 2) : f32[2,2]"), left="moves data or computes with shapes"),
    ],
    "load-encodings": [
        Case(body("%w = weight fc.weight : f32[2,2] #0000000000000000\n %q = qir.Quantize %x {encoding=$e} : f32[1,2]\n"
                  " %v = qir.Quantize %w {encoding=$v} : f32[2,2]\n %y = MatMul %q, %v : f32[1,2] [fc]",
                  "%x: f32[1,2]", encodings="$e = u8 asymmetric\n $v = i8 symmetric"),
             f"load-encodings{{file={ROOT / 'docs' / 'example.encodings'}}}",
             "takes the encoding of the file", "the file does not name its tensor"),
    ],
    "move-transposes": [
        Case(body(f"%a = Transpose %x {BACK}\n %y = Relu %a : f32[1,8,8,3] [relu]\n %z = {MOVED}",
                  "%x: f32[1,3,8,8]", "%z"), done="has its axes in the order"),
        Case(body(f"%y = Transpose %x {BACK}", "%x: f32[1,3,8,8]"), left="have axes in these orders"),
    ],
    "propagate-encodings": [
        Case(body(POOLED, IMAGE, encodings="$p = u8 asymmetric\n $q = u8 asymmetric"),
             done="puts 2 tensors on one grid"),
        Case(body(POOLED.replace("$q", "$p"), IMAGE, encodings="$p = u8 asymmetric"),
             left="its tensors lie on one grid already"),
        Case(body(POOLED.replace("%y = qir.Quantize %q {encoding=$q} : f32[1,1,3,3]", "%y = Relu %q : f32[1,1,3,3]"),
                  IMAGE, encodings="$p = u8 asymmetric"), left="nothing quantizes what it writes"),
        Case(body(POOLED, IMAGE, encodings="$p = u8 asymmetric\n $q = i8 symmetric"),
             left="its tensors have grids of different kinds"),
    ],
    "reduce-mean-to-pool": [
        Case(body(MEAN.format(n=2, axes="2, 3", out=8), "%x: f32[1,8,4,4]"),
             done="becomes GlobalAveragePool + Flatten"),
        Case(body(MEAN.format(n=2, axes="1, 3", out=4), "%x: f32[1,8,4,4]"),
             left="it does not average over exactly the spatial axes"),
    ],
    "snap-scales": [
        Case(body(GEMM, "%x: f32[1,2]", encodings=GEMM_GRIDS), done="has a power of two as its scale",
             left="its scale follows those of its input and its weight"),
        Case(body(ROUNDED, encodings="$e = bf16"), left="its scales are not free"),
    ],
    "spell-batch-norm": [
        Case(body(NORMED.format(x="%x", mean="f32[1](5.0)"), SMALL_IMAGE), done="becomes Mul + Add"),
        Case(body(NORMED.format(x="%x", mean="%m"), f"{SMALL_IMAGE}, %m: f32[1]"), left="is computed, not a constant"),
    ],
    "strip-quantizers": [Case(body(ROUNDED, encodings=U8), done="is removed")],
    "unroll-modules": [
        Case(body("%a = Relu %x : f32[4] [act]\n %y = Relu %a : f32[4] [act]"), done="call 2 of act"),
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    np.savez(tmp_path / "x.npz", x=np.array([[1.0, -2.0]], np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_pass_has_cases() -> None:
    built_in = {name for name, kind in known_passes().items() if kind.__module__.startswith("qir.passes.")}
    assert set(CASES) == built_in


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases])
def test_a_pass_says_why(name: str, case: Case, folder: Path) -> None:
    graph = qir.parse(case.graph)
    found = qir.explain(graph, case.step or name)
    assert str(graph) == str(qir.parse(case.graph))
    for wanted, done in ((case.done, True), (case.left, False)):
        said = [reason.reason for reason in found if reason.done is done]
        assert any(wanted in reason for reason in said) if wanted else not said, said
    assert all(reason.step.startswith(name) and reason.node for reason in found)


@pytest.mark.parametrize("name", CASES)
def test_a_pass_that_finds_nothing_says_what_it_is_for(name: str, folder: Path) -> None:
    options = {"calibrate": "{file=x.npz}", "load-encodings": f"{{file={ROOT / 'docs' / 'example.encodings'}}}"}
    try:
        (reason,) = qir.explain(qir.parse(EMPTY), name + options.get(name, ""))
    except QirError as error:
        assert error.help or error.snippet  # noqa: PT017  (insert-quantizers and load-encodings refuse)
        assert name in ("insert-quantizers", "load-encodings")
    else:
        assert not reason.done
        assert reason.reason.startswith("nothing in this graph is for it (")


# -- data ------------------------------------------------------------------------------------------------------------


def test_reasons_are_found_by_tensor_result_and_layer() -> None:
    graph = qir.parse(body('%"a b" = HardSwish %x : f32[1,2] [block.act]\n %y = Gemm %"a b", f32[2,2](1, 2, 3, 4) '
                           ": f32[1,2] [fc] @ net.py:7", "%x: f32[1,2]"))  # fmt: skip
    found = qir.explain(graph, "insert-quantizers")
    assert {reason.op for reason in qir.explain(graph, "insert-quantizers", "block.*")} == {"HardSwish"}
    assert qir.explain(graph, "insert-quantizers", "%a b") == [r for r in found if "a b" in (r.tensor, *r.values)]
    assert [r.line for r in qir.explain(graph, "insert-quantizers", "fc")] == ["net.py:7"]
    assert all(reason.tensor for reason in qir.explain(graph, "insert-quantizers", "x"))
    assert qir.explain(graph, "insert-quantizers", "nothing") == []
    with pytest.raises(QirError, match="there is no pass to explain"):
        qir.explain(graph, "")


@pytest.mark.parametrize("name", ["activations", "arithmetic", "digits_net", "fire", "nested", "tied_head"])
def test_every_tensor_of_floats_has_its_reason(name: str) -> None:
    example, passes = SMALL[name], quantization(data=[]).passes
    here = [step.name for step in passes].index("insert-quantizers")
    graph = Pipeline(passes[:here]).run(graph_to_quantize(example.model(), None, example.inputs(batch=4)))
    names = value_names(graph)
    read = [value for node in graph.nodes() for value in (*node.operands, *node.results) if value is not None]
    floats = {names[value] for value in read if value.type.dtype == "f32" and value.literal is None}
    said = [
        reason.tensor for reason in qir.explain(graph, Pipeline(passes[here : here + 1])) if reason.tensor is not None
    ]
    assert floats
    assert floats <= set(said)
    assert len(said) == len(set(said))


def test_every_tensor_and_operator_of_a_quantized_model_has_its_reason() -> None:
    given = quantized(SMALL["activations"])
    found = given.why()
    tensors = {reason.tensor for reason in found if reason.tensor is not None}
    assert {value.hint for value in given.graph.inputs} <= tensors
    left = {reason.layer for reason in found if not reason.done and reason.step == "fuse-integer"}
    assert left == {note.module for note in given.float_operators()}
    (tanh,) = (reason for reason in given.why("tanh") if reason.step == "fuse-integer")
    assert "has no integer kernel for Tanh" in tanh.reason
    assert tanh.line.startswith("tests/small_models.py:")
    assert given.why("tanh") == [reason for reason in found if reason.concerns("tanh")]


def test_an_opaque_call_has_the_reason_of_its_frontend() -> None:
    import torch
    from torch import nn

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            odd: torch.Tensor = torch.linalg.matrix_exp(self.fc(x))
            return odd

    graph = qir.import_model(Model().eval(), [torch.eye(4)])
    (reason,) = (r for r in qir.explain(graph, "legalize-onnx") if "opaque" in r.reason)
    assert reason.line.startswith("tests/test_explain.py:")
    assert reason.help
    assert len(reason.reason) > len("it is opaque: ")


def test_the_command_prints_the_same_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = body("%y = HardSwish %x : f32[1,2] [act]\n %z = Gemm %y, f32[2,2](1, 2, 3, 4) : f32[1,2] [fc]",
                "%x: f32[1,2]", "%z")  # fmt: skip
    (folder / "net.qir").write_text(text)
    assert main(["explain", "insert-quantizers", "net.qir", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    found = [asdict(reason) for reason in qir.explain(qir.parse(text), "insert-quantizers")]
    assert rows == json.loads(json.dumps(found))
    assert main(["explain", "insert-quantizers", "net.qir", "--json", "--tensor", "x"]) == 0
    assert [row["tensor"] for row in json.loads(capsys.readouterr().out)] == ["x"]
    assert main(["explain", "fold-batch-norm", "net.qir"]) == 0
    out = capsys.readouterr().out
    assert out == (
        "fold-batch-norm: 0 done, 0 left\nnothing in this graph is for it (Fold every batch norm (with its running "
        "statistics) into the layer before it)\n"
    )
