"""Pipelines: a list of passes and its text are one thing, and an order that can not work is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qir import Graph, Node, QirError, Value, parse
from qir.facts import FUNCTIONALS_LIFTED, Fact, held_by
from qir.pipeline import Pass, Pipeline
from qir.registry import BUILT_IN, known_passes, pass_named, pass_names
from qir.rewrite import Miss, Outcome, rewrite
from qir.same_numbers import SameNumbers
from qir.watch import PrintAfter, SaveAfter, Stop, StopAfter, Timing, Verify, Watcher

TEXT = """graph @g(%x: f32[2,4]) {
  %relu = Relu %x : f32[2,4] @ net.py:3
  %out = Sigmoid %relu : f32[2,4] @ net.py:4
  return %out
}"""


def _relus(graph: Graph) -> Iterator[Node]:
    return (node for node in graph.nodes() if node.op == "Relu")


NO_RELU = Fact("no-relu", "no Relu", _relus)


@dataclass(frozen=True)
class Options(Pass, name="test-options"):
    """Has an option of every kind."""

    count: int = 1
    share: float = 0.5
    per_channel: bool = False
    scheme: Literal["minmax", "mse"] = "minmax"
    title: str = "none"
    limit: int | None = None
    label: str | None = None
    layers: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (1,)
    place: Path = Path("here")
    data: tuple[float, ...] = field(default=(), metadata={"text": False})

    def run(self, graph: Graph) -> Outcome:
        return Outcome()


@dataclass(frozen=True)
class Drop(Pass, name="test-drop-relu"):
    """Puts Abs for Relu: other numbers for negative inputs."""

    gives = (NO_RELU,)
    to: str = "Abs"

    def run(self, graph: Graph) -> Outcome:
        return rewrite(graph, {"Relu": lambda node, graph: graph.add(self.to, node.operands, like=node).result})


@dataclass(frozen=True)
class Bring(Pass, name="test-bring-relu"):
    """Puts a Relu behind Sigmoid, which changes nothing."""

    breaks = (NO_RELU,)

    def run(self, graph: Graph) -> Outcome:
        old = graph.outputs[0]
        graph.outputs = graph.add("Relu", [old]).results
        return Outcome()


@dataclass(frozen=True)
class Needy(Pass, name="test-needy"):
    """Needs that there is no Relu."""

    needs = (NO_RELU,)

    def run(self, graph: Graph) -> Outcome:
        return rewrite(graph, {"Sigmoid": lambda node, graph: Miss("it is fine")})


@dataclass(frozen=True)
class Liar(Pass, name="test-liar"):
    """Says that it removes Relu, and does not."""

    gives = (NO_RELU,)

    def run(self, graph: Graph) -> Outcome:
        return Outcome()


@dataclass(frozen=True)
class Breaker(Pass, name="test-breaker"):
    """Leaves a type that is wrong."""

    def run(self, graph: Graph) -> Outcome:
        graph.outputs[0].type = parse("graph @g(%x: f16[1]) {\n  return %x\n}").inputs[0].type
        return Outcome()


@dataclass(frozen=True)
class Nested(Pass, name="test-nested"):
    """Runs two pipelines."""

    def run(self, graph: Graph) -> Outcome:
        Pipeline.of(Drop()).run(graph)
        Pipeline.of(Bring()).run(graph)
        return Outcome()


OPTIONS = st.builds(
    Options,
    count=st.integers(),
    share=st.floats(allow_nan=False),
    per_channel=st.booleans(),
    scheme=st.sampled_from(["minmax", "mse"]),
    title=st.text() | st.just("none"),
    limit=st.none() | st.integers(),
    label=st.none() | st.just("none") | st.text(),
    layers=st.lists(st.text() | st.sampled_from(["a.b", "[", "]", ",", '"', "\\", "none", " "])).map(tuple),
    sizes=st.lists(st.integers()).map(tuple),
    place=st.sampled_from([Path("here"), Path("a b/c,d"), Path("x{1}")]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(OPTIONS | st.builds(Drop) | st.builds(Bring), max_size=3))
def test_a_pipeline_reads_back_from_its_text(passes: list[Pass]) -> None:
    pipeline = Pipeline.of(*passes)
    assert Pipeline.parse(str(pipeline)) == pipeline


def test_options_that_have_their_default_are_not_written() -> None:
    assert str(Options()) == "test-options"
    assert str(Options(count=2, per_channel=True)) == "test-options{count=2 per_channel=true}"


@pytest.mark.parametrize("spelling", ["per-channel=true", "per_channel=true", " per-channel = true "])
def test_an_option_may_be_spelled_with_dashes_and_spaces(spelling: str) -> None:
    assert Pipeline.parse(f"test-options{{{spelling}}}").passes == (Options(per_channel=True),)


@pytest.mark.parametrize(
    ("text", "marked", "message"),
    [
        ("test-drop-relu,test-ned", "test-ned", "did you mean 'test-needy'"),
        ("test-options{cont=1}", "cont", "it has: count, share"),
        ("test-drop-relu{to=Abs to=Neg}", "to", "to is given twice"),
        ("test-bring-relu{x=1}", "x", "it has no options"),
        ("test-options{count=one}", "one", "expected int, not 'one'"),
        ("test-options{scheme=best}", "best", "expected one of minmax, mse"),
        ("test-options{per-channel=yes}", "yes", "expected true or false"),
        ("test-options{count=1", " ", "expected 'option=value' or '}'"),
        ("test-options,", ",", "a pass is missing after this comma"),
        ("test-options test-needy", "test-needy", "expected ',' between two passes"),
        ("{}", "{", "expected the name of a pass"),
        ("test-options{data=[1]}", "data", "has no option 'data'"),
    ],
)
def test_a_mistake_in_the_text_is_underlined(text: str, marked: str, message: str) -> None:
    with pytest.raises(QirError) as caught:
        Pipeline.parse(text)
    shown, below = str(caught.value.snippet).split("\n")
    assert shown == text
    assert message in str(caught.value)
    start, width = below.index("^"), below.count("^")
    assert f"{shown} "[start : start + width] == marked


def refusal(text: str) -> QirError:
    with pytest.raises(QirError) as caught:
        Pipeline.parse(text)
    return caught.value


def test_a_need_that_nothing_provides_is_refused_with_the_pass_that_does() -> None:
    error = refusal("test-options,test-needy")
    assert error.message == "'test-needy' needs 'no-relu', which nothing before it provides"
    assert str(error.snippet).endswith(" " * 13 + "^" * 10)
    assert error.help == "put 'test-drop-relu' before it"


def test_a_provider_that_comes_later_is_to_be_moved() -> None:
    error = refusal("test-needy,test-drop-relu")
    assert error.help == "move 'test-drop-relu' before 'test-needy'"


def test_what_broke_the_fact_is_named() -> None:
    error = refusal("test-drop-relu,test-bring-relu,test-needy")
    assert error.message == "'test-needy' needs 'no-relu', which 'test-bring-relu' breaks"


def test_a_fact_that_the_graph_holds_needs_no_pass() -> None:
    graph = parse(TEXT)
    Drop().run(graph)
    assert Pipeline.of(Needy(), given=[NO_RELU]) == Pipeline.parse("test-needy", given=[NO_RELU])
    assert NO_RELU in held_by(graph, [NO_RELU])
    assert FUNCTIONALS_LIFTED not in held_by(graph)


def test_a_pass_is_held_to_what_it_gives() -> None:
    with pytest.raises(QirError) as caught:
        Pipeline.of(Liar()).run(parse(TEXT))
    assert caught.value.stage == "test-liar"
    assert "did not leave the graph with 'no-relu'" in str(caught.value)
    assert "net.py:3" in str(caught.value)


def test_two_passes_can_not_share_a_name() -> None:
    with pytest.raises(QirError, match="'test-liar' is taken by"):

        @dataclass(frozen=True)
        class Other(Pass, name="test-liar"):
            pass

    assert pass_named("test-liar") is Liar


def test_every_pass_of_the_table_is_there_and_bears_its_name() -> None:
    assert set(BUILT_IN) <= set(pass_names())
    for name, kind in known_passes().items():
        assert kind.name == name
        assert kind.__doc__


def test_watchers_see_every_pass_and_change_nothing(tmp_path: Path) -> None:
    printed: list[str] = []
    timing = Timing()
    watch: list[Watcher] = [Verify(), PrintAfter(["test-needy"], printed.append), SaveAfter(tmp_path), timing]
    graph = Pipeline.of(Drop(), Needy()).run(parse(TEXT), watch)
    assert graph == Pipeline.of(Drop(), Needy()).run(parse(TEXT))
    assert [name for name, _ in timing.seconds] == ["test-drop-relu", "test-needy"]
    assert printed == [f"// after test-needy\n{graph}"]
    assert parse((tmp_path / "02_test-needy.qir").read_text()) == graph


def test_watchers_are_told_of_every_replacement_and_may_stop_after_one() -> None:
    told: list[tuple[str, str, list[str], bool]] = []

    class Told(Watcher):
        def replacing(self, rule: str, node: Node, new: Mapping[Value, Value], added: Sequence[Node]) -> None:
            self.node = node
            told.append((rule, node.op, [made.op for made in added], [*new] == node.results))

        def replaced(self) -> None:
            assert self.node.erased
            raise Stop

    graph = parse(TEXT)
    Pipeline.of(Drop(), Bring(), Drop()).run(graph, [Told()])
    assert told == [("<lambda>", "Relu", ["Abs"], True)]
    assert [node.op for node in graph.nodes()] == ["Abs", "Sigmoid"]
    assert graph.watchers == ()
    rewrite(graph, {"Abs": lambda node, graph: graph.add("Neg", node.operands, like=node).result})
    assert len(told) == 1


def test_a_pass_that_runs_a_pipeline_of_its_own_is_watched_and_stopped_as_well() -> None:
    class StopAtOnce(Watcher):
        def replaced(self) -> None:
            raise Stop

    graph = Pipeline.of(Nested()).run(parse(TEXT), [StopAtOnce()])
    assert [node.op for node in graph.nodes()] == ["Abs", "Sigmoid"]


@pytest.mark.parametrize("what", [1, "test-drop-relu"])
def test_a_pipeline_stops_after_the_pass_that_is_named_or_counted(what: str | int) -> None:
    graph = Pipeline.of(Drop(), Bring()).run(parse(TEXT), [StopAfter(what)])
    assert [node.op for node in graph.nodes()] == ["Abs", "Sigmoid"]


def test_the_pass_that_left_an_invalid_graph_is_named() -> None:
    with pytest.raises(QirError) as caught:
        Pipeline.of(Drop(), Breaker()).run(parse(TEXT), [Verify()])
    assert caught.value.stage == "verify after test-breaker"


def test_a_pass_that_claims_to_be_exact_is_held_to_it() -> None:
    inputs = [np.array([[-1, 0, 1, 2]] * 2, np.float32)]
    with pytest.raises(QirError) as caught:
        Pipeline.of(Bring(), Drop()).run(parse(TEXT), [SameNumbers(inputs)])
    assert "test-drop-relu claims to be 'exact'" in caught.value.message
    assert "%relu" in str(caught.value.help)
    watcher = SameNumbers([np.abs(inputs[0])])
    Pipeline.of(Bring(), Drop()).run(parse(TEXT), [watcher])
    assert watcher.differences == [("test-bring-relu", 0.0), ("test-drop-relu", 0.0)]
