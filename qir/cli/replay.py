"""What the command `replay` does."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from qir.api.graph_files import check_writable, read_graph, write_graph
from qir.api.run import begin, seeded
from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pipeline
from qir.runs.recording import Log
from qir.runs.replay import replay, summary
from qir.runs.run import Run


def replay_log(arguments: Namespace) -> None:
    """Check a run against its log, end it at a step, or show what the log has."""
    log = Log.read(arguments.log)
    if arguments.list:
        print("\n".join(summary(log)))
        return
    if arguments.show is not None:
        print(log.step(arguments.show))
        return
    output = Path(arguments.output) if arguments.output else None
    if output is not None:
        check_writable(output)
    run, graph, pipeline = _begun(log, arguments)
    with seeded(run.seed):
        replay(log, pipeline, graph, arguments.to)
    if output is not None:
        write_graph(graph, output)
    elif arguments.to is not None:
        print(graph)
    else:
        print(f"{arguments.log}: {len(log.steps)} steps, each as in the log")


def _begun(log: Log, arguments: Namespace) -> tuple[Run, Graph, Pipeline]:
    """The run that was recorded, the graph that it began with, and its pipeline."""
    model, data = (getattr(arguments, key) or log.header.get(key) for key in ("model", "data"))
    if model is None:
        raise QirError("the log does not say of which model it is", help="give it: --model MODEL")
    if "run" in log.header:
        recorded = Run.parse(log.header["run"], "the run in the log")
        run = replace(recorded, model=model, data=data, hashes={})
        begun = begin(run)
        return run, begun.graph, begun.pipeline
    graph = read_graph(model)
    return Run(model), graph, Pipeline.parse(log.pipeline, given=graph)
