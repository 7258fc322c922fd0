"""The log of a run: every step of it, the same for every run, readable up to where a run failed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qir import Graph, Loc, QirError, Value
from qir.pipeline import Pass, Pipeline
from qir.rewrite import Outcome, rewrite
from qir.runs.recording import Log, Record
from qir.types import TensorType
from qir.weights import Weight


def graph() -> Graph:
    made = Graph("g")
    x = made.input("x", TensorType("f32", (2, 4)))
    weight = made.weight(Weight(np.arange(4, dtype=np.float32), ("w",)))
    value: Value = x
    for op, line, more in (("Abs", 3, []), ("Add", 4, [weight]), ("Neg", 5, [])):
        value = made.add(op, [value, *more], module=op.lower(), locs=(Loc("net.py", line),)).result
    made.outputs = [value]
    return made


@dataclass(frozen=True)
class Respell(Pass, name="test-respell"):
    """Puts other operators for Abs and Neg, then fails if it is told to."""

    fails: bool = False

    def run(self, graph: Graph) -> Outcome:
        def spelled(node: Any, graph: Graph) -> Value:
            zero = graph.add("Relu", node.operands, like=node).result
            return graph.add("Relu", [zero], like=node).result

        outcome = rewrite(graph, {"Abs": spelled})
        if self.fails:
            raise QirError("enough")
        outcome.add(rewrite(graph, {"Neg": lambda node, graph: node.operands[0]}))
        return outcome


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_log_has_every_rewrite_and_every_pass(tmp_path: Path) -> None:
    path = tmp_path / "run.qirlog"
    with Record(path, {"model": "net.onnx"}) as record:
        Pipeline.of(Respell()).run(graph(), [record])
    header, first, second, passed, end = entries(path)
    assert (header["qirlog"], header["model"]) == (1, "net.onnx")
    assert first["rule"] == "spelled"
    assert first["line"] == "net.py:3"
    assert first["before"] == ["%abs = Abs %x : f32[2,4] [abs]"]
    assert first["after"] == [
        "%abs_1 = Relu %x : f32[2,4] [abs]",
        "%abs_2 = Relu %abs_1 : f32[2,4] [abs]",
        "%abs --> %abs_2",
    ]
    assert second["after"] == ["%neg --> %add"]
    assert (passed["pass"], passed["rule"], passed["nodes"]) == ("test-respell", None, 3)
    assert [note["loc"] for note in passed["done"]] == ["net.py:3", "net.py:5"]
    assert [entry["step"] for entry in (first, second, passed)] == [1, 2, 3]
    assert end == {"end": 3}
    assert all(entry["seconds"] >= 0 for entry in (first, second, passed))


def test_a_fragment_has_the_hashes_of_weights(tmp_path: Path) -> None:
    with Record(tmp_path / "log") as record:
        graph_of_it = graph()
        rewrite_adds = Pipeline.of(SwapSum())
        rewrite_adds.run(graph_of_it, [record])
    before = entries(tmp_path / "log")[1]["before"]
    digest = graph_of_it.weights()[0].weight.digest  # type: ignore[union-attr]
    assert before[0] == f"%w = weight w : f32[4] #{digest}"


@dataclass(frozen=True)
class SwapSum(Pass, name="test-swap-sum"):
    """Puts the operands of sums the other way round."""

    def run(self, graph: Graph) -> Outcome:
        swapped = []

        def swap(node: Any, graph: Graph) -> Value | None:
            if swapped:
                return None
            swapped.append(node)
            return graph.add("Add", node.operands[::-1], like=node).result

        return rewrite(graph, {"Add": swap})


def test_two_runs_write_the_same_but_for_the_times(tmp_path: Path) -> None:
    logs = []
    for name in ("a", "b"):
        with Record(tmp_path / name) as record:
            Pipeline.of(SwapSum(), Respell()).run(graph(), [record])
        logs.append([{**entry, "seconds": 0} for entry in entries(tmp_path / name)])
    assert logs[0] == logs[1]


def test_a_log_reads_back(tmp_path: Path) -> None:
    with Record(tmp_path / "log") as record:
        Pipeline.of(SwapSum(), Respell()).run(graph(), [record])
    log = Log.read(tmp_path / "log")
    assert log.complete
    assert [json.loads(json.dumps(step.document())) for step in log.steps] == entries(tmp_path / "log")[1:-1]
    assert log.step(2).within == "test-swap-sum"
    with pytest.raises(QirError, match="there is no step 6"):
        log.step(6)


def test_the_log_of_a_run_that_failed_ends_before_the_failure(tmp_path: Path) -> None:
    with pytest.raises(QirError, match="enough"), Record(tmp_path / "log") as record:
        Pipeline.of(Respell(fails=True)).run(graph(), [record])
    log = Log.read(tmp_path / "log")
    assert not log.complete
    assert [step.rule for step in log.steps] == ["spelled"]


def test_a_line_that_was_cut_off_is_not_read(tmp_path: Path) -> None:
    with Record(tmp_path / "log") as record:
        Pipeline.of(Respell()).run(graph(), [record])
    whole = (tmp_path / "log").read_text()
    (tmp_path / "log").write_text(whole[: whole.rindex('{"end"') - 20])
    log = Log.read(tmp_path / "log")
    assert (len(log.steps), log.complete) == (2, False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: ["{", *lines[1:]], "line 1 of .* is no JSON"),
        (lambda lines: ['{"qirlog": 2}', *lines[1:]], "is no header of format 1"),
        (lambda lines: [], "is no header of format 1"),
        (lambda lines: ["[]", *lines], "is no header"),
        (lambda lines: [lines[0], "{}", *lines[2:]], "line 2 of .* is no step: KeyError"),
        (lambda lines: [lines[0], "[]", *lines[2:]], "line 2 of .* is no step: TypeError"),
        (lambda lines: [lines[0], *lines[2:]], "line 2 of .* is step 2, where step 1 is due"),
    ],
)
def test_what_is_no_log_is_refused_with_the_line(tmp_path: Path, change: Any, said: str) -> None:
    with Record(tmp_path / "log") as record:
        Pipeline.of(Respell()).run(graph(), [record])
    lines = (tmp_path / "log").read_text().splitlines()
    (tmp_path / "log").write_text("".join(f"{line}\n" for line in change(lines)))
    with pytest.raises(QirError, match=said):
        Log.read(tmp_path / "log")


def test_a_log_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(QirError, match="can not write"), Record(tmp_path / "none" / "log") as record:
        Pipeline.of(Respell()).run(graph(), [record])
    with pytest.raises(QirError, match="can not read"):
        Log.read(tmp_path / "none")
