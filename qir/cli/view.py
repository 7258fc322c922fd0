"""`qir view`: a model as one HTML page, or as a picture; or the page on this machine, for a browser."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from qir.api.quantize import import_model, quantize
from qir.api.view import as_page, view
from qir.batches import Batch, peeked
from qir.errors import QirError
from qir.graph import Graph
from qir.pages.stages import Stages
from qir.pipeline import Pass, Pipeline
from qir.rewrite import Outcome
from qir.runs.inputs import batch_size, batches, model_of
from qir.watch import Outcomes


def view_model(arguments: Namespace) -> None:
    """Run the passes, then write the page or picture, or serve the page until interrupted."""
    if arguments.output is None and arguments.serve is None:
        raise QirError("there is nowhere to show it", help="give -o page.html, -o picture.svg or --serve")
    model = model_of(arguments.model)
    stages = _stages(model, arguments)
    data = _data(model, arguments)
    if arguments.output is not None:
        given = {"data": data, "target": arguments.target, "analysis": arguments.analysis}
        view(stages, arguments.output, title=Path(arguments.model).name, **given)
        print(f"written to {arguments.output}")
    if arguments.serve is not None:
        title, data = Path(arguments.model).name, _data(model, arguments)
        serve(as_page(stages, title, data=data, target=arguments.target, analysis=arguments.analysis), arguments.serve)


def _data(model: Any, arguments: Namespace) -> Iterable[Batch]:
    """The batches, from the first on; none where no data is given."""
    return batches(arguments.data, batch_size(model)) if arguments.data else ()


def _stages(model: Any, arguments: Namespace) -> Stages:
    """The graph, and what passes make of it: the named ones, or those of `quantize` where all stages are wanted."""
    stages = Stages()
    if arguments.stages and arguments.passes is None:
        if not arguments.data:
            raise QirError("quantization has no data", help="give --data, or other passes with -p")
        quantize(model, data=_data(model, arguments), target=arguments.target, watch=[stages])
        return stages
    graph = model if isinstance(model, Graph) else import_model(model, _example(model, arguments))
    pipeline = _with_data(Pipeline.parse(arguments.passes or "", given=graph), model, arguments)
    if arguments.stages:
        pipeline.run(graph, [stages])
        return stages
    stages.add("as imported", graph)
    if pipeline.passes:
        outcomes, total = Outcomes(), Outcome()
        pipeline.run(graph, [outcomes])
        for outcome in outcomes.kept:
            total.add(outcome)
        stages.add(str(pipeline), graph, total)
    return stages


def _example(model: Any, arguments: Namespace) -> list[Any] | None:
    """The positional arguments that a torch module is imported with: those of the first batch."""
    import torch

    if not arguments.data:
        return None
    first, _ = peeked(_data(model, arguments))
    parts = [first] if hasattr(first, "shape") else list(first.values() if isinstance(first, Mapping) else first)
    return [torch.as_tensor(part) for part in parts]


def _with_data(pipeline: Pipeline, model: Any, arguments: Namespace) -> Pipeline:
    """The pipeline, in which a `calibrate` without data has the data."""
    from qir.passes.calibrate import Calibrate

    def filled(step: Pass) -> Pass:
        lacks = isinstance(step, Calibrate) and step.data is None and step.file is None
        return replace(step, data=_data(model, arguments)) if lacks and arguments.data else step  # type: ignore[call-arg]

    return Pipeline(tuple(map(filled, pipeline.passes)))


# -- on this machine -------------------------------------------------------------------------------------------------


def server(page: str, port: int = 0) -> ThreadingHTTPServer:
    """A server of the page to browsers on this machine, at `port` or a free one. Raises QirError when it is taken.

    It answers to the names of this machine only, so that no other site can read the model through a browser.
    """
    content = page.encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            found = self.path == "/" and host in ("127.0.0.1", "localhost")
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()
            if found:
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise QirError(f"can not serve at port {port}: {error.strerror}", help="give another port, or none") from None


def serve(page: str, port: int) -> None:
    """Serve the page until interrupted."""
    with server(page, port) as running:
        print(f"http://127.0.0.1:{running.server_address[1]}/ (Ctrl+C ends it)", flush=True)
        running.serve_forever()
