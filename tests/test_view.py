"""What `qir view` says of graphs: stages, numbers, the page's data, pictures, the command and the server."""

from __future__ import annotations

import json
import re
import threading
import xml.etree.ElementTree as ElementTree
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import qir
from qir import Graph, Pipeline, QirError, Stages
from qir.__main__ import main
from qir.api.view import as_page
from qir.calibration.observers import Histogram
from qir.cli.view import server
from qir.evaluate import reference
from qir.pages.numbers import Encoding, bars, numbers_of
from qir.pages.stages import stages_of
from qir.pages.svg import notebook, svg
from qir.pages.view import FOLDER, SCRIPTS, as_data
from tests.strategies import graphs

NET = """graph @net(%x: f32[N,2]) {
  %fc.weight = weight fc.weight : f32[2,2] #00000000000000aa trainable
  %fc = MatMul %x, %fc.weight : f32[N,2] [fc] @ net.py:5
  %relu = Relu %fc : f32[N,2] @ net.py:6 (block)
  %capped = Clip %relu, 0.0, 6.0 : f32[N,2] [cap] @ net.py:7
  return %capped
}"""

QUANTIZED = """graph @net(%x: f32[N,2]) {
  %x_q = qir.Quantize %x {encoding=$x_q} : f32[N,2] [x_quantizer]
  %w_q = qir.Quantize f32[2,2](1.0, 0.5, 0.25, 2.0) {encoding=$w_q} : f32[2,2] [fc.weight_quantizer]
  %fc = MatMul %x_q, %w_q : f32[N,2] [fc]
  %act = Gelu %fc : f32[N,2] [act]
  return %act
  $x_q = u8 asymmetric scale=0.5 zero_point=2
  $w_q = i8 symmetric narrow axis=1 scale=[0.01, 0.02] zero_point=[0, 0]
}"""

HOSTILE = "</script><img src=x onerror=\"window.hacked=1\"> '{{data}}' ]]> \x00 \u2028 \ud800 ${window.hacked=1}"


def data_of(page: str) -> dict[str, Any]:
    """The data in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def named(stages: Stages, stage: int) -> dict[str, list[str]]:
    """What changed in a stage, by the names of values."""
    found = stages.stages[stage]
    return {found.leaves[leaf]["name"]: parts for leaf, parts in found.changed.items()}


def added(stages: Stages, stage: int) -> set[str]:
    before, after = stages.stages[stage - 1], stages.stages[stage]
    new = set(after.same_as) - set(before.same_as)
    return {leaf["name"] for leaf, number in zip(after.leaves, after.same_as, strict=True) if number in new}


def run(text: str, passes: str) -> Stages:
    graph, stages = qir.parse(text), Stages()
    Pipeline.parse(passes, graph).run(graph, [stages])
    return stages


# -- stages ----------------------------------------------------------------------------------------------------------


def test_every_pass_is_a_stage_that_says_what_changed() -> None:
    stages = run(NET, "lift-functionals,insert-quantizers")
    assert [stage.title for stage in stages.stages] == ["as imported", "lift-functionals", "insert-quantizers"]
    assert named(stages, 1) == {"relu": ["layer"]}
    assert added(stages, 2) == {"x_q", "fc.weight_q"}
    assert named(stages, 2) == {"fc": ["operands"]}
    assert {note["status"] for note in stages.stages[2].notes} == {"done", "left"}


def test_notes_find_the_operation_that_they_are_about() -> None:
    stage = run(NET, "lift-functionals,insert-quantizers").stages[-1]
    names = dict(zip(stage.same_as, (leaf["name"] for leaf in stage.leaves), strict=True))
    about = {(names.get(note["about"]), note["tensor"]) for note in stage.notes}
    assert {("fc", None), ("relu", None), ("x", "x"), ("capped", "capped")} <= about


def test_what_a_pass_replaces_under_its_name_is_the_same_operation() -> None:
    stages = stages_of({"before": qir.parse(NET), "after": qir.parse(NET.replace("Relu %fc", "Abs %fc"))})
    assert named(stages, 1) == {"relu": ["operator"]}
    assert not added(stages, 1)


def test_a_change_of_encoding_is_told() -> None:
    stages = stages_of({"a": qir.parse(QUANTIZED), "b": qir.parse(QUANTIZED.replace("scale=0.5", "scale=0.25"))})
    assert named(stages, 1) == {"x_q": ["encoding"]}


def test_an_output_that_gets_another_value_has_changed() -> None:
    graph, stages = qir.parse(NET), Stages()
    stages.add("before", graph)
    graph.outputs[0] = graph.outputs[0].node.operands[0]  # type: ignore[union-attr]
    stages.add("after", graph)
    assert "operands" in next(iter(stages.stages[1].changed.values()))


def test_kinds_say_where_integers_are() -> None:
    stage = stages_of({"g": qir.parse(QUANTIZED)}).stages[0]
    kinds = {leaf["name"]: leaf["kind"] for leaf in stage.leaves}
    assert kinds == {"x": "input", "x_q": "quantizer", "w_q": "quantizer", "fc": "integer", "act": "output"}
    assert [leaf["kind"] for leaf in stage.leaves if leaf["op"] == "Gelu"] == ["float"]


def test_a_conversion_between_floats_and_integers_is_a_quantizer() -> None:
    graph = qir.parse(QUANTIZED)
    Pipeline.parse("legalize-onnx", graph).run(graph)
    kinds = {leaf["op"]: leaf["kind"] for leaf in stages_of({"g": graph}).stages[0].leaves}
    assert kinds["QuantizeLinear"] == kinds["DequantizeLinear"] == "quantizer"
    assert kinds["Gelu"] == "float"
    ElementTree.fromstring(svg({"g": graph}))


# -- numbers ---------------------------------------------------------------------------------------------------------


def test_bars_hold_every_value_between_their_ends() -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    seen = Histogram(Encoding("i8"))
    seen.see(values)
    found = bars(seen)
    width = (found["high"] - found["low"]) / len(found["counts"])
    edges = found["low"] + width * np.arange(len(found["counts"]) + 1)
    expected = [int(np.sum((values > low) & (values <= high))) for low, high in pairwise(edges)]
    assert found["counts"] == expected
    assert sum(expected) == 5000
    assert len(expected) <= 96
    assert (found["least"], found["most"]) == (float(values.min()), float(values.max()))


def test_the_noise_of_a_tensor_is_measured_against_the_float_graph() -> None:
    graph, x = qir.parse(QUANTIZED), np.array([[0.3, 1.1], [-0.7, 2.0]], np.float32)
    found = {node.result.hint: numbers for node, numbers in numbers_of(graph, reference, [x]).items()}
    rounded = np.clip(np.rint(x / 0.5), -2, 253) * 0.5
    expected = 10 * np.log10(np.sum(x.astype(np.float64) ** 2) / np.sum((x - rounded) ** 2))
    assert found["x_q"]["sqnr"] == pytest.approx(expected, abs=0.01)
    weight = np.array([[1.0, 0.5], [0.25, 2.0]], np.float32)
    exact, noisy = x @ weight, rounded @ weight
    assert found["fc"]["sqnr"] == pytest.approx(
        10 * np.log10(np.sum(exact**2) / np.sum((exact - noisy) ** 2)), abs=0.01
    )
    assert found["w_q"]["sqnr"] is None or found["w_q"]["sqnr"] > 100
    assert "histogram" in found["x_q"]
    assert "histogram" not in found["fc"]


def test_without_data_weights_are_looked_at_alone() -> None:
    found = {node.result.hint for node in numbers_of(qir.parse(QUANTIZED), reference)}
    assert found == {"w_q"}


def test_quantizers_without_a_scale_are_not_run() -> None:
    graph = qir.parse(QUANTIZED.replace(" scale=0.5 zero_point=2", ""))
    assert {node.result.hint for node in numbers_of(graph, reference, [np.ones((1, 2), np.float32)])} == {"w_q"}


# -- the page --------------------------------------------------------------------------------------------------------


def test_the_page_holds_everything_that_is_known(tmp_path: Path) -> None:
    graph = qir.parse(QUANTIZED)
    qir.view(graph, tmp_path / "net.html", data=[np.ones((3, 2), np.float32)], target="ort-x86-vnni")
    data = data_of((tmp_path / "net.html").read_text())
    assert data["title"] == "net"
    stage = data["stages"][0]
    leaves = {data["records"][record]["name"]: data["records"][record] for record in stage["leaves"]}
    assert data["encodings"][leaves["x_q"]["encoding"]]["scales"] == [0.5]
    assert data["encodings"][leaves["x_q"]["encoding"]]["low"] == -1.0
    assert [row["op"] for row in data["floats"]["rows"]] == ["Gelu"]
    assert len(data["numbers"]) == 4


def test_a_stage_that_changes_nothing_costs_nothing() -> None:
    stages = run(NET, "lift-functionals,infer-shapes,infer-shapes")
    data = data_of(as_page(stages, "net"))
    assert len(data["drawings"]) == 1
    assert data["stages"][2]["leaves"] == data["stages"][3]["leaves"]


def test_the_analysis_is_shown_beside_what_it_is_about(tmp_path: Path) -> None:
    graph, data = qir.parse(QUANTIZED), [np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)]
    analysis = qir.analyze(graph, data=data)
    qir.view(graph, tmp_path / "net.html", analysis=analysis)
    found = data_of((tmp_path / "net.html").read_text())
    stage = found["stages"][0]
    paths = [found["records"][record]["path"] for record in stage["leaves"]]
    numbers = {path: found["numbers"].get(str(same), {}) for path, same in zip(paths, stage["same"], strict=True)}
    quantizer = next(one for one in analysis.quantizers if one.name == "x_quantizer")
    assert numbers["x_quantizer"]["analysis"]["own sqnr"] == quantizer.sqnr
    assert numbers["x_quantizer"]["analysis"]["alone sqnr"] == quantizer.alone.sqnr
    assert numbers["x_quantizer"]["histogram"]["counts"] == quantizer.histogram.counts
    assert numbers["act"]["analysis"]["own sqnr"] is None
    assert numbers["act"]["sqnr"] == next(one for one in analysis.layers if one.name == "act").sqnr


def test_models_and_simulators_are_shown_too(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    model, x = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()).eval(), torch.ones(4, 2)
    sim = qir.QuantizationSimModel(model, x)
    sim.compute_encodings([x])
    for name, what in (("model", model), ("sim", sim), ("quantized", qir.quantize(model, data=[x]))):
        qir.view(what, tmp_path / f"{name}.html")
        encodings = data_of((tmp_path / f"{name}.html").read_text())["encodings"]
        assert bool(encodings) == (name != "model")
        assert all(encoding["calibrated"] for encoding in encodings)


def test_data_can_not_end_the_element_that_it_stands_in() -> None:
    text = as_data({"a": HOSTILE})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["a"] == HOSTILE


def test_hostile_text_is_no_markup(tmp_path: Path) -> None:
    graph = Graph(HOSTILE)
    x = graph.input(HOSTILE)
    graph.outputs = [graph.add("Relu", [x], module=HOSTILE, hint=HOSTILE).result]
    page = as_page(graph, HOSTILE)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert data_of(page)["title"] == HOSTILE
    ElementTree.fromstring(svg({HOSTILE: graph}))
    ElementTree.fromstring(notebook(graph))


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_every_graph_has_a_page_and_a_picture(graph: Graph) -> None:
    stages = Stages()
    stages.add("g", graph)
    data = data_of(as_page(stages, "g"))
    assert len(data["stages"][0]["leaves"]) == len(graph.inputs) + len(graph.nodes()) + len(graph.outputs)
    ElementTree.fromstring(svg({"g": graph}))


def test_lines_are_shown_of_python_files_alone(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("y = relu(x)\n")
    (tmp_path / "secret.txt").write_text("secret\n")
    text = NET.replace("net.py:5", f"{tmp_path}/net.py:1").replace("net.py:6", f"{tmp_path}/secret.txt:1")
    lines = data_of(as_page(qir.parse(text), "g"))["lines"]
    assert [line["text"] for line in lines] == ["y = relu(x)", "", ""]


def test_a_name_that_no_file_can_have_has_no_source() -> None:
    assert [qir.Loc(name, 1).source for name in ("\ud800.py", "\0.py")] == ["", ""]


def test_long_texts_are_cut() -> None:
    text = NET.replace("Clip %relu, 0.0, 6.0", f'foo.bar %relu {{note="{"a" * 5000}"}}').replace(" [cap]", " [cap] !0")
    record = next(record for record in data_of(as_page(qir.parse(text), "g"))["records"] if record["op"] == "foo.bar")
    assert record["attrs"][0][1].endswith("a… (5,002 characters)")


def test_every_file_of_the_page_is_used_and_short() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {*SCRIPTS, "page.html", "page.css", "colors.css"}
    assert all(len((FOLDER / name).read_text().splitlines()) <= 300 for name in files)


def test_the_page_asks_for_nothing_outside_of_it() -> None:
    page = as_page(qir.parse(NET), "net")
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=[\"']?https?:|@import|url\(|\bfetch\(|XMLHttpRequest", page)


# -- pictures and notebooks ------------------------------------------------------------------------------------------


def test_a_picture_has_a_box_for_every_node_and_a_line_for_every_reader(tmp_path: Path) -> None:
    qir.view({"float": qir.parse(NET), "quantized": qir.parse(QUANTIZED)}, tmp_path / "both.svg")
    root = ElementTree.parse(tmp_path / "both.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}rect")) == 1 + 5 + 5 + 3
    assert len(root.findall(f"{space}path")) == 4 + 4
    words = [text.text for text in root.findall(f"{space}text")]
    assert {"float", "quantized", "MatMul", "fc  ·  weights i8"} <= set(words)


def test_a_graph_shows_itself_in_a_notebook() -> None:
    assert "<svg" in qir.parse(NET)._repr_html_()


def chain(count: int, path: str) -> Graph:
    graph = Graph("long")
    value = graph.input("x")
    for number in range(count):
        value = graph.add("Relu", [value], module=path.format(number=number)).result
    graph.outputs = [value]
    return graph


def test_a_large_graph_in_a_notebook_has_its_modules_closed_or_is_told_in_a_line() -> None:
    shown = notebook(chain(400, "block.{number}"))
    assert "400 nodes" in shown
    assert "<svg" in shown
    assert "too large to show here" in notebook(chain(400, "block{number}"))


# -- refusals, the command, the server -------------------------------------------------------------------------------


def test_what_can_not_be_shown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QirError, match=r"no picture format for 'net\.png'"):
        qir.view(qir.parse(NET), tmp_path / "net.png")
    with pytest.raises(QirError, match="reads no model of type list"):
        qir.view([], tmp_path / "net.html")  # type: ignore[arg-type]
    with pytest.raises(QirError, match="there is no stage to show"):
        qir.view(Stages(), tmp_path / "net.html")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(QirError):
        qir.view(qir.parse(NET), tmp_path / "net.html", analysis=tmp_path / "other.json")
    with pytest.raises(QirError, match="can not read"):
        qir.view(qir.parse(NET), tmp_path / "net.html", analysis=tmp_path / "none.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with net.qir and its weights, and data.npz."""
    from qir.weights import Weight
    from qir.weights_file import save_weights

    graph = qir.parse(NET)
    old = graph.nodes()[0].operands[1]
    graph.replace(old, graph.weight(Weight(np.eye(2, dtype=np.float32), ("fc.weight",), trainable=True)))
    graph.remove_weight(old)
    (tmp_path / "net.qir").write_text(f"{graph}\n")
    save_weights(graph, tmp_path / "net.safetensors")
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).standard_normal((8, 2)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def titles(folder: Path) -> list[str]:
    return [stage["title"].partition("{")[0] for stage in data_of((folder / "net.html").read_text())["stages"]]


def test_the_command_writes_a_page_of_the_graph(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "net.qir", "-o", "net.html"]) == 0
    assert capsys.readouterr().out == "written to net.html\n"
    assert titles(folder) == ["as imported"]


def test_the_command_shows_passes_as_a_whole_or_each(folder: Path) -> None:
    passes = ["-p", "lift-functionals,infer-shapes"]
    assert main(["view", "net.qir", *passes, "-o", "net.html"]) == 0
    assert titles(folder) == ["as imported", "lift-functionals,infer-shapes"]
    assert main(["view", "net.qir", *passes, "--stages", "-o", "net.html"]) == 0
    assert titles(folder) == ["as imported", "lift-functionals", "infer-shapes"]


def test_the_command_shows_quantization_step_by_step(folder: Path) -> None:
    assert main(["view", "net.qir", "--data", "data.npz", "--stages", "-o", "net.html"]) == 0
    assert titles(folder)[0] == "as imported"
    assert titles(folder)[-1] == "calibrate"
    data = data_of((folder / "net.html").read_text())
    assert any("sqnr" in found for found in data["numbers"].values())
    passes = "lift-functionals,insert-quantizers,calibrate"
    assert main(["view", "net.qir", "-p", passes, "--data", "data.npz", "-o", "net.html"]) == 0
    assert any(encoding["calibrated"] for encoding in data_of((folder / "net.html").read_text())["encodings"])


def test_the_command_draws_a_picture(folder: Path) -> None:
    assert main(["view", "net.qir", "-o", "net.svg"]) == 0
    ElementTree.parse(folder / "net.svg")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.qir"], "there is nowhere to show it"),
        (["net.qir", "-o", "net.pdf"], "there is no picture format for 'net.pdf'"),
        (["net.qir", "--stages", "-o", "net.html"], "quantization has no data"),
        (["none.qir", "-o", "net.html"], "can not read none.qir"),
        (["net.qir", "-p", "fold", "-o", "net.html"], "no such pass"),
    ],
)
def test_the_command_says_what_is_missing(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["view", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not [path for path in folder.iterdir() if path.suffix in (".html", ".pdf")]


def test_the_server_answers_to_this_machine_alone() -> None:
    with server("<p>the page − here</p>") as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        port = running.server_address[1]

        def ask(path: str, host: str) -> tuple[int, bytes]:
            connection = HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read()

        assert ask("/", f"localhost:{port}") == (200, "<p>the page − here</p>".encode())
        assert ask("/", f"127.0.0.1:{port}")[0] == 200
        assert ask("/etc/passwd", f"127.0.0.1:{port}") == (404, b"")
        assert ask("/", f"evil.example:{port}") == (404, b"")
        with pytest.raises(QirError, match="can not serve at port"):
            server("", port)
        running.shutdown()
