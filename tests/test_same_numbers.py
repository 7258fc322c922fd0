"""The watcher SameNumbers: what a pass did to every tensor, by any evaluator, and which pass did not keep its word."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from qir import Graph, Pipeline, QirError, parse
from qir.__main__ import main
from qir.differences import largest_difference, signal_to_noise
from qir.execution import EVALUATORS, default_evaluator, values_of
from qir.pipeline import Pass
from qir.rewrite import Outcome, rewrite
from qir.same_numbers import SameNumbers, as_table

TEXT = """graph @net(%x: f32[4,8]) {
  %abs = Abs %x : f32[4,8] [abs] @ net.py:3
  %gate = Sigmoid %abs : f32[4,8] [gate] @ net.py:4
  %out = Mul %gate, %x : f32[4,8] [out] @ net.py:5
  return %out
}"""
X = [np.linspace(-3, 3, 32, dtype=np.float32).reshape(4, 8)]


@dataclass(frozen=True)
class Scale(Pass, name="test-scale"):
    """Puts an Abs and a product for every Abs: with another factor than 1, a wrong one."""

    by: float = 1.0

    def run(self, graph: Graph) -> Outcome:
        def scaled(node, graph):
            inner = graph.add("Abs", node.operands, like=node, module="again")
            factor = graph.constant(np.float32(self.by))
            return graph.add("Mul", [inner.result, factor], like=node, hint="scaled").result

        done = []
        return rewrite(graph, {"Abs": lambda n, g: done.append(n) or scaled(n, g) if not done else None})


@dataclass(frozen=True)
class Rough(Scale, name="test-rough"):
    """Says that it changes the numbers."""

    numerics = "changes"


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_an_exact_pass_that_is_exact_is_reported_so(evaluator: str) -> None:
    watcher = SameNumbers(X, evaluator=evaluator)
    Pipeline.of(Scale(), Scale()).run(parse(TEXT), [watcher])
    assert [(report.step, report.gap, report.values) for report in watcher.reports] == [("test-scale", 0.0, [])] * 2
    assert [report.compared for report in watcher.reports] == [3, 4]


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_the_first_tensor_that_differs_is_followed_through_rewrites(evaluator: str) -> None:
    with pytest.raises(QirError) as caught:
        Pipeline.of(Scale(), Scale(by=1.5)).run(parse(TEXT), [SameNumbers(X, evaluator=evaluator)])
    assert "test-scale claims to be 'exact' but an output differs by" in caught.value.message
    assert caught.value.help == "the first value that differs is %scaled"
    assert "net.py:3" in str(caught.value)


def test_a_lossy_pass_is_reported_tensor_by_tensor() -> None:
    watcher = SameNumbers(X)
    graph = Pipeline.of(Rough(by=1.01)).run(parse(TEXT), [watcher])
    (report,) = watcher.reports
    assert [(found.tensor, found.op, str(found.loc)) for found in report.values] == [
        ("scaled", "Mul", "net.py:3"), ("gate", "Sigmoid", "net.py:4"), ("out", "Mul", "net.py:5")]  # fmt: skip
    before, after = (values_of(g, X, g.outputs, default_evaluator())[0] for g in (parse(TEXT), graph))
    noise = (after.astype(np.float64) - before) ** 2
    assert report.lowest == pytest.approx(10 * np.log10(np.sum(before.astype(np.float64) ** 2) / np.sum(noise)))
    assert report.gap == np.max(np.sqrt(noise))
    assert report.first is report.values[0]
    assert report.values[0].signal_to_noise == pytest.approx(40, abs=0.1)
    lines = "\n".join(as_table(watcher.reports))
    assert "test-rough{by=1.01}: changes, outputs" in lines
    assert "3 of 3 tensors differ" in lines
    assert "%scaled = Mul  --> net.py:3" in lines


def test_a_graph_is_evaluated_once_between_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []

    def counted(*arguments):
        runs.append(1)
        return values_of(*arguments)

    monkeypatch.setattr("qir.same_numbers.values_of", counted)
    Pipeline.of(Scale(), Scale(), Scale()).run(parse(TEXT), [SameNumbers(X)])
    assert len(runs) == 4


def test_quantizers_without_a_scale_pass_on_what_they_read() -> None:
    text = TEXT.replace("%out = Mul %gate", "%q = qir.Quantize %gate {encoding=$q} : f32[4,8]\n  %out = Mul %q")
    graph = parse(text.replace("return %out\n", "return %out, %q\n  $q = u8 asymmetric\n"))
    for evaluator in EVALUATORS:
        out, q = values_of(graph, X, graph.outputs, evaluator)
        gate = 1 / (1 + np.exp(-np.abs(X[0])))
        np.testing.assert_allclose(q, gate, rtol=1e-6)
        np.testing.assert_allclose(out, gate * X[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("exact", "other", "largest", "ratio"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0, None),
        ([3.0, 4.0], [3.0, 4.5], 0.5, 20.0),
        ([np.nan, 1.0], [np.nan, 1.0], 0, None),
        ([np.inf, -np.inf], [np.inf, -np.inf], 0, None),
        ([np.nan, 1.0], [0.0, 1.0], np.inf, -np.inf),
        ([np.inf, 1.0], [1.0, 1.0], np.inf, -np.inf),
        ([1.0, 2.0], [1.0], np.inf, -np.inf),
        ([0.0], [1.0], 1, -3000.0),
        ([1, 2], [1, 4], 2, 10 * np.log10(5 / 4)),
        (["a"], ["a"], 0, None),
        (["a"], ["b"], np.inf, -np.inf),
    ],
)
def test_how_far_two_results_are_apart(exact: list, other: list, largest: float, ratio: float | None) -> None:
    assert largest_difference(np.array(exact), np.array(other)) == largest
    found = signal_to_noise(np.array(exact), np.array(other))
    assert found is ratio if ratio is None else found == pytest.approx(ratio)


def test_sequences_are_compared_part_by_part() -> None:
    parts = [np.ones((2, 3)), np.ones(4)]
    assert largest_difference(parts, [np.ones((2, 3)), np.ones(4)]) == 0
    assert largest_difference(parts, [np.ones((2, 3)), np.zeros(4)]) == 1
    assert largest_difference(parts, [np.ones((3, 2)), np.ones(4)]) == np.inf
    assert largest_difference(parts, parts[:1]) == np.inf


def test_an_evaluator_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QirError, match="there is no evaluator 'torhc'") as caught:
        values_of(parse(TEXT), X, parse(TEXT).outputs, "torhc")
    assert caught.value.help == "did you mean 'torch'?"
    monkeypatch.setattr("qir.execution.find_spec", lambda name: None)
    assert default_evaluator() == "reference"
    with pytest.raises(QirError, match="onnxruntime is not installed"):
        values_of(parse(TEXT), X, parse(TEXT).outputs, "onnxruntime")


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_on_the_command_line(
    evaluator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.qir").write_text(TEXT)
    np.savez("x.npz", x=X[0])
    passes = "test-scale,test-rough{by=1.01}"
    assert main(["opt", "net.qir", "-p", passes, "--same-numbers", "x.npz", "--evaluator", evaluator]) == 0
    printed = capsys.readouterr().err
    assert "test-scale: exact, outputs equal\n" in printed
    assert "test-rough{by=1.01}: changes, outputs" in printed
