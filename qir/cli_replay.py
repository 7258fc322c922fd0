"""What the command `replay` does."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from qir.api import fed, graph_to_quantize
from qir.batches import peeked
from qir.cli_files import check_writable, read_graph, write_graph
from qir.cli_quantize import batches_for, model_of
from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pipeline
from qir.recording import Log
from qir.replay import replay, summary


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
    graph, pipeline = _begun(log, arguments)
    replay(log, pipeline, graph, arguments.to)
    if output is not None:
        write_graph(graph, output)
    elif arguments.to is not None:
        print(graph)
    else:
        print(f"{arguments.log}: {len(log.steps)} steps, each as in the log")


def _begun(log: Log, arguments: Namespace) -> tuple[Graph, Pipeline]:
    """The graph that the recorded run began with, and its pipeline."""
    name, data = (getattr(arguments, key) or log.header.get(key) for key in ("model", "data"))
    if name is None:
        raise QirError("the log does not say of which model it is", help="give it: --model MODEL")
    if data is None:
        graph = read_graph(name)
        return graph, Pipeline.parse(log.pipeline, given=graph)
    model = model_of(name)
    first, batches = peeked(batches_for(model, data))
    graph = graph_to_quantize(model, None, first)
    return graph, fed(Pipeline.parse(log.pipeline, given=graph), batches)
