"""The command line: what works, and that everything else is exit code 2, one message, and no file."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

import qir
from qir.__main__ import main
from qir.frontends.onnx_model import import_onnx
from qir.graph import Graph, Node, Value
from qir.pipeline import Pass
from qir.rewrite import Miss, Outcome, rewrite
from qir.weights_file import attach_weights, save_weights

MODEL = """
<ir_version: 8, opset_import: ["": 17]>
net (float[1,3] x) => (float[1,3] z) <float[3,3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9}>
{ [first] a = Abs(x) [second] y = MatMul(a, w) [third] z = Abs(y) }
"""
TEXT = "graph @g(%x: f32[2]) {\n  %y = Abs %x : f32[2] [abs] @ net.py:7\n  return %y\n}\n"


@dataclass(frozen=True)
class SpellAbs(Pass, name="test-spell-abs"):
    """Write the absolute value of an input as the larger of x and -x.

    Only inputs are worth it.

        graph @g(%x: f32[2]) {
          %y = Abs %x : f32[2] [abs]
          return %y
        }
        -->
        graph @g(%x: f32[2]) {
          %y = Neg %x : f32[2] [abs]
          %y_1 = Max %x, %y : f32[2] [abs]
          return %y_1
        }
    """

    deep: bool = True
    wrong: bool = False

    def run(self, graph: Graph) -> Outcome:
        """Rewrite every Abs of an input, if `deep`."""

        def spell(node: Node, graph: Graph) -> Value | Miss:
            if node.operands[0].node is not None:
                return Miss("it does not read an input")
            minus = graph.add("Neg", node.operands, like=node)
            return graph.add("Min" if self.wrong else "Max", [*node.operands, minus.result], like=node).result

        return rewrite(graph, {"Abs": spell}) if self.deep else Outcome()


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "net.onnx"
    onnx.save(parser.parse_model(MODEL), path)
    return str(path)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "net.qir"
    path.write_text(TEXT)
    return str(path)


def run(*arguments: str) -> int:
    return main(arguments)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The message of a command that must fail, print nothing else, and leave no file behind."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error")
    assert "Traceback" not in printed.err
    return printed.err


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


# -- what works ----------------------------------------------------------------------------------------------------


def test_show_prints_the_text_of_an_onnx_model(model: str, capsys: pytest.CaptureFixture[str]):
    assert run("show", model) == 0
    assert capsys.readouterr().out == f"{import_onnx(model)}\n"


def test_show_counts(model: str, capsys: pytest.CaptureFixture[str]):
    assert run("show", model, "--summary") == 0
    printed = capsys.readouterr().out
    for part in ("3 operations", "input   %x: f32[1,3]", "output  %z: f32[1,3]", "weights 1, 36 bytes", "2  Abs"):
        assert part in printed


def test_files_are_told_apart_by_content(tmp_path: Path, model: str, text: str):
    for source in (model, text):
        plain = tmp_path / "plain"
        plain.write_bytes(Path(source).read_bytes())
        assert run("verify", str(plain)) == 0


def test_standard_input_is_graph_text(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(TEXT.encode())))
    assert run("show", "-") == 0
    assert capsys.readouterr().out == TEXT


def test_opt_without_output_prints_the_graph(text: str, capsys: pytest.CaptureFixture[str]):
    assert run("opt", text, "-p", "test-spell-abs") == 0
    assert "= Max %x, %y" in capsys.readouterr().out


def test_text_and_weights_are_written_side_by_side_and_read_back(tmp_path: Path, model: str):
    written = tmp_path / "deep" / "out.qir"
    assert run("opt", model, "-o", str(written)) == 0
    assert files(written.parent) == {"out.qir", "out.safetensors"}
    back = tmp_path / "back.onnx"
    assert run("opt", str(written), "-o", str(back)) == 0
    original, again = import_onnx(model), import_onnx(back)
    assert [value.weight.digest for value in again.weights()] == [value.weight.digest for value in original.weights()]
    assert str(qir.parse(written.read_text())) == str(original)


def test_onnx_output_computes_the_same(tmp_path: Path, model: str):
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "out.onnx"
    assert run("opt", model, "-p", "test-spell-abs", "-o", str(out)) == 0
    x = {"x": np.array([[1, -2, 3]], np.float32)}
    expected, got = (runtime.InferenceSession(str(path)).run(None, x)[0] for path in (model, out))
    np.testing.assert_array_equal(got, expected)


def test_a_file_has_the_lowest_opset_that_takes_it_and_what_onnx_lacks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "new.qir", tmp_path / "out.onnx"
    path.write_text("graph @g(%x: f32[2]) {\n  %y = Swish %x : f32[2] [s]\n  return %y\n}\n")
    assert run("opt", str(path), "-o", str(out)) == 0
    assert onnx.load(out).opset_import[0].version == 24
    out.unlink()
    path.write_text("graph @g(%x: f32[2]) {\n  %y = torch.fft.fft %x : c64[2] @ net.py:9\n  return %y\n}\n")
    message = refused(capsys, "opt", str(path), "-o", str(out))
    assert "torch.fft.fft at net.py:9" in message
    assert "legalize-onnx" in message
    assert not out.exists()


def test_operators_of_the_runtime_are_written_in_their_own_domain(tmp_path: Path):
    path, out = tmp_path / "gelu.qir", tmp_path / "out.onnx"
    path.write_text("graph @g(%x: f32[2]) {\n  %y = com.microsoft.Gelu %x : f32[2] [g]\n  return %y\n}\n")
    assert run("opt", str(path), "-o", str(out)) == 0
    assert [node.domain for node in onnx.load(out).graph.node] == ["com.microsoft"]


def test_print_after_timing_and_stop_go_to_stderr(text: str, capsys: pytest.CaptureFixture[str]):
    pipeline = "test-spell-abs{deep=false},test-spell-abs"
    assert run("opt", text, "-p", pipeline, "--print-after", "all", "--timing", "--stop-after", "1") == 0
    printed = capsys.readouterr()
    assert printed.out == TEXT
    assert printed.err.count("// after") == 1
    assert "ms  test-spell-abs{deep=false}" in printed.err


def test_same_numbers_names_the_pass_that_lied(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]):
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, x=np.array([1, -2], np.float32))
    assert run("opt", text, "-p", "test-spell-abs", "--same-numbers", str(inputs)) == 0
    capsys.readouterr()
    message = refused(capsys, "opt", text, "-p", "test-spell-abs{wrong=true}", "--same-numbers", str(inputs))
    assert "test-spell-abs claims to be 'exact'" in message


def test_explain_prints_what_was_done_and_why_the_rest_was_not(model: str, capsys: pytest.CaptureFixture[str]):
    assert run("explain", "test-spell-abs", model) == 0
    printed = capsys.readouterr().out
    assert "1 done" in printed
    assert "left: it does not read an input" in printed
    assert "--> third" in printed


def test_explain_runs_the_passes_before_the_last(text: str, capsys: pytest.CaptureFixture[str]):
    assert run("explain", "test-spell-abs,test-spell-abs{deep=false}", text) == 0
    assert "test-spell-abs{deep=false}: 0 done, 0 left" in capsys.readouterr().out


def test_passes_shows_options_with_types_and_defaults(capsys: pytest.CaptureFixture[str]):
    assert run("passes") == 0
    printed = capsys.readouterr().out
    assert "test-spell-abs          Write the absolute value of an input as the larger of x and -x." in printed
    assert "options             deep: bool = true, wrong: bool = false" in printed
    assert "fold-batch-norm" in printed
    assert run("passes", "test-spell-abs") == 0
    assert "Only inputs are worth it." in capsys.readouterr().out


@pytest.mark.parametrize("command", [(), ("opt",), ("passes",), ("explain",), ("show",), ("verify",)])
def test_every_command_has_help_with_examples(command: Sequence[str], capsys: pytest.CaptureFixture[str]):
    assert run(*command, "--help") == 0
    assert "  qir " in capsys.readouterr().out


def test_the_module_runs_as_a_program(text: str):
    done = subprocess.run([sys.executable, "-m", "qir", "show", text], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, TEXT, "")
    done = subprocess.run(
        [sys.executable, "-m", "qir", "show", "none.qir"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error(tmp_path: Path):
    path = tmp_path / "long.qir"
    lines = [f"  %y{i} = Abs %x : f32[2]" for i in range(4000)]
    path.write_text("\n".join(["graph @g(%x: f32[2]) {", *lines, "  return %y0", "}"]))
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-m", "qir", "show", str(path)], stdout=writing, stderr=subprocess.PIPE)
    os.close(reading)
    os.close(writing)
    assert process.communicate()[1] == b""
    assert process.returncode == 141


def test_an_interrupt_ends_with_130(text: str, monkeypatch: pytest.MonkeyPatch):
    def interrupted(graph: Graph) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qir.cli.graph_commands.verify", interrupted)
    assert run("verify", text) == 130


# -- what the user can mend ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pipeline", "said"),
    [
        ("test-spell-ab", ["no such pass", "^^^^^^^^^^^^^", "did you mean 'test-spell-abs'?"]),
        ("test-spell-abs{dep=true}", ["has no option 'dep'", "^^^", "it has: deep, wrong"]),
        ("test-spell-abs{deep=maybe}", ["expected true or false", "^^^^^"]),
        ("test-spell-abs{deep=true", ["expected 'option=value' or '}'"]),
        ("test-spell-abs,,", ["expected the name of a pass"]),
    ],
)
def test_a_wrong_pipeline_is_underlined(text: str, capsys: pytest.CaptureFixture[str], pipeline: str, said: list[str]):
    for arguments in (("opt", text, "-p", pipeline), ("explain", pipeline, text)):
        message = refused(capsys, *arguments)
        for part in said:
            assert part in message


def test_passes_in_the_wrong_order_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "functional.qir"
    path.write_text(TEXT.replace(" [abs]", ""))
    message = refused(capsys, "opt", str(path), "-p", "insert-quantizers")
    assert "needs 'functionals-lifted'" in message
    assert "put 'lift-functionals' before it" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--print-after", "test-spel"], "no pass 'test-spel'"),
        (["--stop-after", "fold"], "no pass 'fold'"),
        (["--stop-after", "2"], "can not stop after pass 2 of 1"),
        (["--same-numbers", "none.npz"], "can not read none.npz"),
        (["-o", "out.txt"], "no format for 'out.txt'"),
    ],
)
def test_wrong_options_of_opt_are_refused(
    text: str, capsys: pytest.CaptureFixture[str], options: list[str], said: str, tmp_path: Path
):
    before = files(tmp_path)
    assert said in refused(capsys, "opt", text, "-p", "test-spell-abs", *options)
    assert files(tmp_path) == before


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]):
    for arguments in ([], ["optt"], ["opt"], ["show", "a", "b"], ["opt", "a", "--verfy"]):
        assert run(*arguments) == 2
        assert "usage: qir" in capsys.readouterr().err


def test_malformed_text_is_named_with_line_and_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "bad.qir"
    path.write_text(TEXT.replace("Abs %x", "Abs %z"))
    message = refused(capsys, "verify", str(path))
    assert f"error[{path}:2:12]: %z is not defined yet" in message
    assert "^^" in message


def malformed(folder: Path, body: str) -> str:
    path = folder / "bad.onnx"
    head = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (float[2] y) '
    path.write_bytes(parser.parse_model(head + body).SerializeToString())
    return str(path)


def test_cyclic_and_dangling_models_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cyclic = malformed(tmp_path, "{ [p] y = Add(x, z) [q] z = Relu(y) }")
    assert "these nodes read what they compute" in refused(capsys, "show", cyclic)
    dangling = malformed(tmp_path, "{ [p] y = Add(x, z) }")
    assert "reads 'z', which nothing computes" in refused(capsys, "opt", dangling, "-o", str(tmp_path / "o.qir"))
    assert files(tmp_path) == {"bad.onnx"}


@pytest.mark.parametrize("name", ["out.qir", "out.onnx"])
def test_an_output_below_a_file_is_refused(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str], name: str):
    before = files(tmp_path)
    assert "can not write" in refused(capsys, "opt", model, "-o", f"{model}/{name}")
    assert files(tmp_path) == before


@pytest.mark.parametrize("command", [("show",), ("verify",), ("opt",), ("explain", "test-spell-abs")])
def test_files_that_can_not_be_read_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: Sequence[str]
):
    for name in ("none.qir", "none.onnx", "none"):
        assert f"can not read {tmp_path / name}" in refused(capsys, *command, str(tmp_path / name))
    assert f"can not read {tmp_path}" in refused(capsys, *command, str(tmp_path))


@pytest.mark.parametrize("name", ["garbage", "garbage.onnx", "garbage.qir"])
def test_binary_garbage_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str):
    path = tmp_path / name
    path.write_bytes(bytes(range(256)) * 8)
    out = tmp_path / "o.qir"
    assert name in refused(capsys, "opt", str(path), "-o", str(out))
    assert files(tmp_path) == {name}


# -- weights beside text -------------------------------------------------------------------------------------------


def bare(graph: Graph) -> Graph:
    return qir.parse(str(graph))


def many_dtypes() -> Graph:
    graph = Graph("g")
    for dtype in sorted(set(qir.types.NUMPY) - {"str"}):
        array = np.arange(24).reshape(4, 6).astype(np.float32) % 2
        weight = qir.weights.Weight(array.astype(qir.types.NUMPY[dtype]), (f"layer.{dtype}",))
        graph.outputs.append(graph.weight(weight))
    graph.outputs.append(graph.constant(np.arange(40, dtype=np.float32)))
    graph.outputs.append(graph.weight(qir.weights.Weight(np.zeros((0, 3), np.float32), ("empty",))))
    return graph


def test_weights_of_every_dtype_come_back_equal(tmp_path: Path):
    graph = many_dtypes()
    save_weights(graph, tmp_path / "w.safetensors")
    again = bare(graph)
    attach_weights(again, tmp_path / "w.safetensors")
    assert str(again) == str(graph)
    for value, other in zip(graph.weights(), again.weights(), strict=True):
        assert other.weight.array.dtype == value.weight.array.dtype
        assert other.weight.array.tobytes() == value.weight.array.tobytes()


def test_the_weights_file_is_what_safetensors_reads(tmp_path: Path):
    safetensors = pytest.importorskip("safetensors")
    graph = many_dtypes()
    save_weights(graph, tmp_path / "w.safetensors")
    with safetensors.safe_open(tmp_path / "w.safetensors", "np") as file:
        assert {f"layer.{dtype}" for dtype in ("f32", "bf16", "i4")} <= set(file.keys())
        np.testing.assert_array_equal(file.get_tensor("layer.f32"), graph.weights()[0].weight.array * 0 + [[0, 1] * 3])


def test_weights_of_another_state_are_refused(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "out.qir"
    assert run("opt", model, "-o", str(out)) == 0
    beside = tmp_path / "out.safetensors"
    content = beside.read_bytes()
    beside.write_bytes(content[:-1] + b"\x01")
    assert "is not the weight that the graph names" in refused(capsys, "show", str(out))
    beside.write_bytes(content[:-1])
    assert "is no safetensors file, or is cut short" in refused(capsys, "show", str(out))
    beside.write_bytes(content.replace(b'"F32"', b'"I32"'))
    assert "as I32[3, 3] and the graph reads f32[3,3]" in refused(capsys, "show", str(out))
    beside.write_bytes(content.replace(b'"w"', b'"v"'))
    assert "does not hold 1 weights" in refused(capsys, "show", str(out))
    for garbage in (b"", b"\x00" * 8, b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]", b'\x0a\0\0\0\0\0\0\0{"w": "x"}'):
        beside.write_bytes(garbage)
        refused(capsys, "show", str(out))
