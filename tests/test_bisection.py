"""`qir.bisect` names the planted step, whatever pass it is in, and counts what that cost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qir
from qir import Graph, Loc, Node, QirError, Value
from qir.__main__ import main
from qir.api.graph_files import write_graph
from qir.differences import signal_to_noise
from qir.evaluate import Runner
from qir.execution import EVALUATORS, values_of
from qir.pipeline import Pass, Pipeline
from qir.rewrite import Outcome, rewrite
from qir.runs import bisection
from qir.runs.bisection import Compared, Culprit
from qir.runs.course import Course, Position
from qir.types import TensorType
from qir.weights import Weight
from tests.models import SMALL, TORCHVISION

LAYERS = 6
X = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)


def network() -> Graph:
    """Layers of a product, a sum and a Relu, one behind the other, each on its lines."""
    random = np.random.default_rng(1)
    graph = Graph("net")
    value = graph.input("x", TensorType("f32", (2, 8)))
    for layer in range(LAYERS):
        for port, (op, shape) in enumerate((("MatMul", (8, 8)), ("Add", (8,)), ("Relu", ()))):
            data = random.standard_normal(shape).astype(np.float32) / 2
            more = [graph.weight(Weight(data, (f"{op}{layer}.w",)))] if shape else []
            name, line = f"{op.lower()}{layer}", Loc("net.py", 10 * layer + port)
            value = graph.add(op, [value, *more], module=name, locs=(line,), hint=name).result
    graph.outputs = [value]
    return graph


@dataclass(frozen=True)
class Respell(Pass, name="test-bisect-respell"):
    """Puts a Clip for every Relu, and for every Clip one like it; number `at` (from 1) clips at 0.1."""

    at: int = 0

    def run(self, graph: Graph) -> Outcome:
        done: list[str | None] = []

        def relu(node: Node, graph: Graph) -> Value | None:
            if node.module in done:
                return None
            done.append(node.module)
            low = graph.constant(np.float32(0.1 if len(done) == self.at else 0))
            kept = node.operands[1:] if len(done) != self.at else []
            return graph.add("Clip", [node.operands[0], *(kept or [low])], like=node).result

        return rewrite(graph, {"Relu": relu, "Clip": relu})


@dataclass(frozen=True)
class MoveWeight(Pass, name="test-bisect-move-weight"):
    """Changes the sum of a layer beside any rewrite."""

    layer: int = 3

    def run(self, graph: Graph) -> Outcome:
        (node,) = (node for node in graph.nodes() if node.module == f"add{self.layer}")
        weight = node.operands[1].weight
        graph.set_operand(node, 1, graph.weight(replace(weight, data=weight.array * 1.1)))
        return Outcome()


PASSES = 8


def planted(position: int, at: int) -> Pipeline:
    """Eight passes that rewrite all activations, pass `position` (from 1) number `at` wrongly."""
    return Pipeline.of(*(Respell(at if number == position else 0) for number in range(1, PASSES + 1)))


def named(culprit: Culprit | None) -> tuple[int, int | None]:
    assert culprit is not None
    return culprit.position, culprit.rewrite


@pytest.mark.parametrize("position", range(1, PASSES + 1))
@pytest.mark.parametrize("at", [1, 4, LAYERS])
def test_a_planted_rewrite_is_named_in_four_evaluations(position: int, at: int) -> None:
    culprit = qir.bisect(network(), planted(position, at), X)
    assert named(culprit) == (position, at)
    assert culprit is not None
    assert (culprit.line, culprit.tensor) == (f"net.py:{10 * at - 8}", f"relu{at - 1}")
    assert (culprit.before, culprit.rewrites) == (float("inf"), LAYERS)
    assert culprit.after < 60
    assert culprit.step.rule == "relu"
    assert culprit.step.number == (position - 1) * (LAYERS + 1) + at
    assert culprit.evaluations <= 4
    assert culprit.parts <= PASSES


@pytest.mark.parametrize("position", [1, 4, 8])
@pytest.mark.parametrize("at", [1, 5, LAYERS])
def test_a_search_by_halves_names_the_same(position: int, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Compared, "suspect", lambda self: None)
    culprit = qir.bisect(network(), planted(position, at), X)
    assert named(culprit) == (position, at)
    assert culprit is not None
    assert culprit.evaluations <= 2 + 3 + 3


def test_a_wrong_guess_costs_two_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    for guess in (Position(1, 2), Position(6, 5), Position(8)):
        monkeypatch.setattr(Compared, "suspect", lambda self, guess=guess: guess)
        culprit = qir.bisect(network(), planted(4, 3), X)
        assert named(culprit) == (4, 3)
        assert culprit is not None
        assert culprit.evaluations <= 2 + 3 + 3 + 2


def test_an_evaluation_is_counted_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    wholes = []
    real = bisection.values_of

    def counted(graph: Graph, inputs: Any, wanted: Sequence[Value], evaluator: str) -> Any:
        wholes.append(sum(node.op == "MatMul" for node in graph.nodes()) == LAYERS)
        return real(graph, inputs, wanted, evaluator)

    monkeypatch.setattr(bisection, "values_of", counted)
    culprit = qir.bisect(network(), planted(5, 2), X)
    assert culprit is not None
    assert (culprit.evaluations, culprit.parts) == (wholes.count(True), wholes.count(False))


@pytest.mark.parametrize("evaluator", EVALUATORS)
def test_every_evaluator_names_it(evaluator: str) -> None:
    assert named(qir.bisect(network(), planted(3, 2), X, evaluator=evaluator)) == (3, 2)


def test_what_a_pass_does_beside_rewrites_is_one_step() -> None:
    pipeline = Pipeline.of(Respell(), MoveWeight(), Respell())
    culprit = qir.bisect(network(), pipeline, X)
    assert named(culprit) == (2, None)
    assert culprit is not None
    assert culprit.step.rule is None
    assert culprit.step.number == LAYERS + 2
    assert (culprit.tensor, culprit.line) == ("add3", "net.py:31")
    assert culprit.evaluations <= 4


@dataclass(frozen=True)
class RespellThenMove(Pass, name="test-bisect-both"):
    """Rewrites all activations, then changes a weight beside any rewrite."""

    def run(self, graph: Graph) -> Outcome:
        outcome = Respell().run(graph)
        outcome.add(MoveWeight().run(graph))
        return outcome


def test_the_rest_of_a_pass_with_rewrites_is_a_step_too() -> None:
    culprit = qir.bisect(network(), Pipeline.of(Respell(), RespellThenMove(), Respell()), X)
    assert culprit is not None
    assert (culprit.position, culprit.rewrite, culprit.rewrites) == (2, None, LAYERS)
    assert culprit.step.number == 2 * (LAYERS + 1)


def test_a_threshold_lets_rounding_pass() -> None:
    pipeline = Pipeline.of(*planted(6, 2).passes, MoveWeight())
    found = qir.bisect(network(), pipeline, X, metric="sqnr", threshold=60)
    assert named(found) == (6, 2)
    assert found is not None
    assert found.after < 60 <= found.before
    assert qir.bisect(network(), pipeline, X, metric="sqnr", threshold=-20) is None


def results(graph: Graph, evaluator: str = "reference") -> np.ndarray:
    (found,) = values_of(graph, [X], graph.outputs, evaluator)
    return np.asarray(found)


def test_noise_that_adds_up_is_found_where_it_crosses() -> None:
    """No tensor alone is beyond the threshold, so there is no suspect."""
    pipeline = Pipeline.of(*(MoveWeight(layer) for layer in range(LAYERS)))
    stages = Course.of(network(), pipeline).stages
    end = signal_to_noise(results(stages[0].graph), results(stages[-1].graph))
    assert end is not None
    found = qir.bisect(network(), pipeline, X, metric="sqnr", threshold=end + 0.01, evaluator="reference")
    assert found is not None
    assert found.after < end + 0.01 <= found.before
    around = [stages[found.position - 1].graph, stages[found.position].graph]
    assert signal_to_noise(results(stages[0].graph), results(around[1])) == pytest.approx(found.after)


def test_a_function_is_a_metric() -> None:
    calls, exact = [], results(network(), "torch")

    def nearness(run: Runner) -> float:
        calls.append(1)
        return -float(np.abs(run([X])[0] - exact).max())

    culprit = qir.bisect(network(), planted(4, 3), X, metric=nearness, threshold=-1e-3, evaluator="torch")
    assert named(culprit) == (4, 3)
    assert culprit is not None
    assert culprit.evaluations == len(calls) <= 8
    assert culprit.line == "net.py:22"
    assert qir.bisect(network(), planted(4, 3), X, metric=nearness, threshold=-100) is None


def test_the_graph_that_is_given_stays_as_it_is() -> None:
    graph = network()
    before = str(graph)
    qir.bisect(graph, planted(2, 2), X)
    assert str(graph) == before
    assert graph.watchers == ()


def test_a_run_is_kept_position_by_position() -> None:
    course = Course.of(network(), Pipeline.of(Respell(), MoveWeight(), Respell(2)))
    assert course.rewrites == [LAYERS, 0, LAYERS]
    assert course.previous(Position(3)) == Position(2, LAYERS)
    assert course.previous(Position(2)) == Position(1)
    assert course.previous(Position(2, 1)) == Position(2)
    assert course.middle(Position(0), Position(3)) == Position(1)
    assert course.middle(Position(2), Position(3)) == Position(2, 3)
    assert sum(node.op == "Clip" for node in course.graph(Position(0, 4)).nodes()) == 4
    clipped = [node.operands[1].literal for node in course.graph(Position(2, 2)).nodes() if node.op == "Clip"]
    assert [low > 0 for low in clipped] == [False, True, *[False] * (LAYERS - 2)]


def test_every_middle_lies_between() -> None:
    course = Course.of(network(), Pipeline.of(Respell(), MoveWeight(), Respell(), Respell()))
    positions = [
        Position(number, rewrite)
        for number, count in enumerate([*course.rewrites, 0])
        for rewrite in range(count + 1)
    ]  # fmt: skip
    assert [course.previous(position) for position in positions[1:]] == positions[:-1]
    for low in range(len(positions)):
        for high in range(low + 2, len(positions)):
            assert positions[low] < course.middle(positions[low], positions[high]) < positions[high]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metric": "sqnr"}, "this metric needs a threshold"),
        ({"metric": "equal", "threshold": 3.0}, "equal results know no threshold"),
        ({"metric": "snr", "threshold": 3.0}, "there is no metric 'snr'"),
        ({"evaluator": "jax"}, "there is no evaluator 'jax'"),
        ({"metric": lambda run: 0.5, "threshold": 0.6}, "beyond the threshold before the first pass"),
        ({"metric": lambda run: 1 / 0, "threshold": 0.6}, "the score fails: ZeroDivisionError"),
    ],
)
def test_what_can_not_be_searched_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(QirError, match=said):
        qir.bisect(network(), planted(2, 2), X, **options)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_score", raising=False)
    write_graph(network(), tmp_path / "net.qir")
    np.savez("x.npz", x=X)
    Path("my_score.py").write_text(SCORE)
    return tmp_path


SCORE = """import numpy as np
def score(run):
    return len(run([np.load("x.npz")["x"]]))
"""
PLANTED = "test-bisect-respell,test-bisect-respell{at=2}"


def test_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", "net.qir", "-p", PLANTED, "--inputs", "x.npz"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "pass 2 of 2, test-bisect-respell{at=2}: rewrite 2 of 6, relu (step 9)"
    assert lines[1] == "  --> net.py:12"
    assert lines[-3] == "the first tensor beyond the threshold is %relu1"
    assert lines[-2].startswith("before it equal, behind it ")
    assert lines[-1] == "4 evaluations of the model, and 2 of single tensors"
    sqnr = ["--metric", "sqnr", "--threshold", "-20"]
    assert main(["bisect", "net.qir", "-p", PLANTED, "--data", "x.npz", *sqnr]) == 0
    assert "within the threshold" in capsys.readouterr().out


def test_a_score_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score = ["--metric", "my_score:score", "--threshold", "1"]
    assert main(["bisect", "net.qir", "-p", PLANTED, "--inputs", "x.npz", *score]) == 0
    assert capsys.readouterr().out == "the end of the run is within the threshold: 1\n2 evaluations of the model\n"
    assert main(["bisect", "net.qir", "-p", PLANTED]) == 2
    assert "give --inputs FILE, or --data DATA" in capsys.readouterr().err


OTHERS = ("lift-functionals", "unroll-modules", "fold-batch-norm", "legalize-onnx", "infer-shapes",
          "reduce-mean-to-pool", "keep-sums-apart")  # fmt: skip


@dataclass(frozen=True)
class ClipRelu(Pass, name="test-bisect-clip-relu"):
    """Puts a Clip for every Relu; number `at` clips at 0.05."""

    at: int = 0

    def run(self, graph: Graph) -> Outcome:
        done: list[Node] = []

        def relu(node: Node, graph: Graph) -> Value:
            done.append(node)
            low = graph.constant(np.float32(0.05 if len(done) == self.at else 0))
            return graph.add("Clip", [node.operands[0], low], like=node).result

        return rewrite(graph, {"Relu": relu})


@dataclass(frozen=True)
class ScaleConv(Pass, name="test-bisect-scale-conv"):
    """Puts every convolution anew; number `at` has a first channel that is too large."""

    at: int = 0

    def run(self, graph: Graph) -> Outcome:
        done: list[str | None] = []

        def scaled(node: Node, graph: Graph) -> Value | None:
            if node.module in done:
                return None
            done.append(node.module)
            x, weight, *bias = node.operands
            data = weight.array.copy()
            data[0] *= 1.5 if len(done) == self.at else 1
            return graph.add("Conv", [x, graph.weight(with_data(weight, data)), *bias], node.attrs, like=node).result

        return rewrite(graph, {"Conv": scaled})


def with_data(old: Value, data: np.ndarray) -> Weight:
    assert old.weight is not None
    return replace(old.weight, data=data, read=np.asarray)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_tensor_that_a_later_pass_takes_away_hides_nothing(place: int) -> None:
    """The convolution that is wrong is folded into another one, so that its own result is not there in the end."""
    graph = SMALL["inverted_residual"]
    inputs = [tensor.numpy() for tensor in graph.inputs(batch=2)]
    passes = ["lift-functionals", "fold-batch-norm", "reduce-mean-to-pool"]
    passes.insert(place, "test-bisect-scale-conv{at=3}")
    culprit = qir.bisect(graph.model(), ",".join(passes), inputs, metric="sqnr", threshold=60)
    assert culprit is not None
    assert (culprit.position, culprit.rewrite) == (place + 1, 3)
    assert culprit.evaluations <= 4


@pytest.mark.slow
@pytest.mark.skipif("resnet50" not in TORCHVISION, reason="torchvision is not installed")
@pytest.mark.parametrize("planted", ["test-bisect-clip-relu{at=31}", "test-bisect-scale-conv{at=31}"])
@pytest.mark.parametrize("position", [1, 3, 8])
def test_a_planted_rewrite_in_resnet50_is_named_in_four_evaluations(position: int, planted: str) -> None:
    example = TORCHVISION["resnet50"]
    inputs = [tensor.numpy() for tensor in example.inputs(batch=1)]
    passes = [*OTHERS[: position - 1], planted, *OTHERS[position - 1 :]]
    culprit = qir.bisect(example.model(), ",".join(passes), inputs, metric="sqnr", threshold=60)
    assert culprit is not None
    assert (culprit.position, culprit.rewrite) == (position, 31)
    assert culprit.rewrites == (49 if "relu" in planted else 53)
    assert "resnet.py" in culprit.line
    assert culprit.evaluations <= 4
