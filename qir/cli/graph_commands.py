"""What the commands do that show graphs and rewrite them: opt, passes, explain, show, verify."""

from __future__ import annotations

import inspect
import json
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, asdict
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qir.api.graph_files import check_writable, read_graph, write_graph
from qir.cli.arrays import read_inputs
from qir.errors import QirError, point_at
from qir.execution import default_evaluator
from qir.facts import is_quantizer
from qir.graph import Graph
from qir.pipeline import Pass, Pipeline, options
from qir.reasons import Reasons, nothing_to_do, reasons
from qir.registry import known_passes, pass_named
from qir.rewrite import Note, Outcome
from qir.runs.recording import recorded
from qir.same_numbers import SameNumbers, as_table
from qir.verify import verify
from qir.watch import PrintAfter, StopAfter, Timing, Verify, Watcher


def to_stderr(text: str) -> None:
    """Print where it does not mix with the graph."""
    print(text, file=sys.stderr)


# -- opt -------------------------------------------------------------------------------------------------------------


def opt(arguments: Namespace) -> None:
    """Run a pipeline, then write the graph or print it."""
    output = Path(arguments.output) if arguments.output else None
    if output is not None:
        check_writable(output)
    graph = read_graph(arguments.file)
    pipeline = Pipeline.parse(arguments.passes, given=graph)
    watch = _watchers(arguments, graph, pipeline)
    with recorded(arguments.record, {"model": arguments.file, "pipeline": str(pipeline)}) as record:
        pipeline.run(graph, [*record, *watch])
    for watcher in watch:
        if isinstance(watcher, Timing):
            to_stderr(_table([f"{seconds * 1e3:10.2f} ms", step] for step, seconds in watcher.seconds))
        elif isinstance(watcher, SameNumbers):
            to_stderr("\n".join(as_table(watcher.reports)))
    if output is None:
        print(graph)
    else:
        write_graph(graph, output)


def _watchers(arguments: Namespace, graph: Graph, pipeline: Pipeline) -> list[Watcher]:
    """The watchers asked for; the one that may end the run comes last, so that the others see its pass."""
    names = [step.name for step in pipeline.passes]
    watch: list[Watcher] = []
    if arguments.timing:
        watch.append(Timing())
    if arguments.verify_each:
        watch.append(Verify())
    if arguments.same_numbers:
        evaluator = arguments.evaluator or default_evaluator()
        watch.append(SameNumbers(read_inputs(Path(arguments.same_numbers), graph), evaluator=evaluator))
    if arguments.print_after:
        chosen = [_one_of(name, names) for name in arguments.print_after if name != "all"]
        watch.append(PrintAfter(() if "all" in arguments.print_after else chosen, to_stderr))
    if arguments.stop_after:
        watch.append(StopAfter(_stop(arguments.stop_after, names)))
    return watch


def _stop(text: str, names: Sequence[str]) -> str | int:
    if not text.isdecimal():
        return _one_of(text, names)
    if not 1 <= int(text) <= len(names):
        raise QirError(f"can not stop after pass {text} of {len(names)}", help="passes are counted from 1")
    return int(text)


def _one_of(name: str, names: Sequence[str]) -> str:
    if name not in names:
        near = get_close_matches(name, names, 1)
        help = f"did you mean {near[0]!r}?" if near else f"the pipeline has: {', '.join(names) or 'no passes'}"
        raise QirError(f"the pipeline has no pass {name!r}", help=help)
    return name


# -- passes ----------------------------------------------------------------------------------------------------------


def passes(arguments: Namespace) -> None:
    """List the passes, or describe one."""
    if arguments.name is None:
        print("\n".join(_summary(kind) for kind in known_passes().values()))
        return
    kind = pass_named(arguments.name)
    if kind is None:
        near = get_close_matches(arguments.name, known_passes(), 1)
        raise QirError(
            f"no pass is called {arguments.name!r}",
            help=f"did you mean {near[0]!r}?" if near else "`qir passes` lists them",
        )
    print(f"{_summary(kind, headline='')}\n\n{inspect.getdoc(kind)}")


def _summary(kind: type[Pass], headline: str | None = None) -> str:
    """A pass in a few lines: what it does, its options, and the facts that it deals in."""
    doc = (inspect.getdoc(kind) or "").splitlines()
    rows = [["options", ", ".join(map(_option, options(kind)))]]
    rows += [[word, ", ".join(fact.name for fact in getattr(kind, word))] for word in ("needs", "gives", "breaks")]
    rows.append(["numerics", kind.numerics])
    first = f"{kind.name:24}{doc[0] if doc and headline is None else headline or ''}".rstrip()
    return "\n".join([first, *(f"    {word:20}{text}" for word, text in rows if text)])


def _option(option: Field[Any]) -> str:
    kind = option.type if isinstance(option.type, str) else getattr(option.type, "__name__", str(option.type))
    default = option.default_factory() if option.default_factory is not MISSING else option.default
    shown = str(default).lower() if default is None or isinstance(default, bool) else str(default)
    return f"{option.name}: {kind}" + ("" if default is MISSING else f" = {shown}")


# -- explain ---------------------------------------------------------------------------------------------------------


def explain(arguments: Namespace) -> None:
    """Say what a pass does to every node that it looks at, and why it leaves some; of `--tensor`, to those tensors."""
    graph = read_graph(arguments.file)
    pipeline = Pipeline.parse(arguments.passes, given=graph)
    if not pipeline.passes:
        raise QirError("there is no pass to explain", help="`qir passes` lists them")
    watch = Reasons()
    pipeline.run(graph, [watch])
    step, outcome = watch.steps[-1]
    done, missed = (_about(notes, arguments.tensor) for notes in (outcome.done, outcome.missed))
    if arguments.tensor is not None and not done and not missed:
        raise _nothing_about(arguments.tensor, step, outcome)
    if arguments.json:
        said = outcome if arguments.tensor is None else Outcome(done, missed)
        print(json.dumps([asdict(reason) for reason in reasons(step, said)], indent=1))
        return
    print(f"{step}: {len(done)} done, {len(missed)} left")
    if not outcome.done and not outcome.missed:
        print(nothing_to_do(step))
    for title, notes in (("done", done), ("left", missed)):
        for note in notes:
            print("\n".join(_note(title, note)))


def _nothing_about(tensor: str, step: Pass, outcome: Outcome) -> QirError:
    tensors = [note.tensor for note in [*outcome.done, *outcome.missed] if note.tensor is not None]
    near = get_close_matches(tensor, tensors, 1)
    help = f"did you mean {near[0]!r}?" if near else "`qir show` prints the names of tensors"
    return QirError(f"{step.name} says nothing about a tensor {tensor!r}", help=help)


def _about(notes: Sequence[Note], tensor: str | None) -> list[Note]:
    """The notes about the tensors that the glob `tensor` names; without it, those about nodes and rules."""
    if tensor is None:
        return [note for note in notes if note.tensor is None]
    return [note for note in notes if note.tensor is not None and fnmatchcase(note.tensor, tensor.removeprefix("%"))]


def _note(title: str, note: Note) -> Iterator[str]:
    yield f"\n{title}: {note.reason}"
    yield f"  {note.node}"
    yield from (f"  {line}" for line in point_at(note.loc))
    if note.help:
        yield f"  help: {note.help}"


# -- show, verify ----------------------------------------------------------------------------------------------------


def show(arguments: Namespace) -> None:
    """Print the graph, or what it is made of."""
    graph = read_graph(arguments.file)
    print("\n".join(_contents(graph)) if arguments.summary else graph)


def _contents(graph: Graph) -> Iterator[str]:
    nodes = graph.nodes()
    sizes = [value.type.static for value in graph.weights() if value.weight and value.weight.paths]
    arrays = [value.weight.array for value in graph.weights() if value.weight and value.weight.data is not None]
    quantizers = [node for node in nodes if is_quantizer(node)]
    calibrated = sum(node.attrs["encoding"].calibrated for node in quantizers)
    yield f"graph @{graph.name}: {len(nodes)} operations"
    yield from (f"  input   %{value.hint}: {value.type}" for value in graph.inputs)
    yield from (f"  output  %{value.hint}: {value.type}" for value in graph.outputs)
    yield f"  weights {len(sizes)}, {sum(array.nbytes for array in arrays):,} bytes here"
    yield f"  quantizers {len(quantizers)}, {calibrated} of them calibrated"
    counts = Counter(node.op for node in nodes)
    yield _table([f"  {count:6}", op] for op, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def check(arguments: Namespace) -> None:
    """Verify the graph."""
    graph = read_graph(arguments.file)
    verify(graph)
    print(f"{arguments.file}: {len(graph.nodes())} operations, nothing wrong")


def _table(rows: Iterator[list[str]]) -> str:
    return "\n".join("  ".join(row) for row in rows)
