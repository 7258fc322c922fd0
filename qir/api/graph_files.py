"""Graphs from files and into files: graph text with its weights, or ONNX models."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from qir.errors import QirError
from qir.files import write_all
from qir.graph import Graph
from qir.text.parsing import parse
from qir.weights_file import attach_weights, save_weights, stored, weights_path


def read_graph(name: str) -> Graph:
    """The graph in a file: graph text with the weights beside it, or an ONNX model; `-` is text on standard input.

    Files that are called neither .qir nor .onnx are told apart by their content.
    """
    if name == "-":
        return _parsed(sys.stdin.buffer.read(), "standard input")
    path = Path(name)
    if path.suffix != ".onnx":
        try:
            content = path.read_bytes()
        except OSError as error:
            raise QirError(f"can not read {path}: {error.strerror}", help="give graph text or an ONNX model") from None
        if path.suffix == ".qir" or _is_text(content):
            return _with_weights(_parsed(content, name), path)
    from qir.frontends.onnx_model import import_onnx

    return import_onnx(path)


def _is_text(content: bytes) -> bool:
    lines = (line.strip() for line in content.splitlines())
    first = next((line for line in lines if line and not line.startswith(b"//")), b"")
    return first.startswith(b"graph @")


def _parsed(content: bytes, name: str) -> Graph:
    try:
        return parse(content.decode())
    except UnicodeDecodeError:
        help = "write '-' for graph text only, or give the path of an ONNX model"
        raise QirError(f"{name} is no graph text: it is not UTF-8", help=help) from None
    except QirError as error:
        if error.stage is not None:
            error.stage = error.stage.replace("text:", f"{name}:", 1)
        raise


def _with_weights(graph: Graph, path: Path) -> Graph:
    beside = weights_path(path)
    if beside != path and beside.exists():
        attach_weights(graph, beside)
    return graph


def check_writable(path: Path) -> None:
    """Raise QirError unless graphs can be written in the format that the name of `path` asks for."""
    if path.suffix not in (".qir", ".onnx"):
        raise QirError(f"there is no format for {path.name!r}", help="let the name end in .qir or .onnx")


def write_graph(graph: Graph, path: Path) -> None:
    """Write `graph` as text with its weights beside it, or as an ONNX model; each file whole or not at all."""
    check_writable(path)
    if path.suffix == ".onnx":
        from qir.backends.onnx_emit import write_onnx

        write_onnx(graph, path)
        return
    write_all(graph_writers(graph, path))


def graph_writers(graph: Graph, path: Path) -> dict[Path, Callable[[Path], object]]:
    """What writes `graph` as text to `path`, and its weights beside it."""
    writers: dict[Path, Callable[[Path], object]] = {}
    if any(value.weight is not None and value.weight.data is not None for value in stored(graph)):
        writers[weights_path(path)] = lambda beside: save_weights(graph, beside)
    return {**writers, path: lambda beside: beside.write_text(f"{graph}\n")}
