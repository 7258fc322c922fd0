"""What the command `encodings` does."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from qir.api.graph_files import read_graph
from qir.encodings.apply import encodings_of
from qir.encodings.file import document_text, encodings_document
from qir.errors import QirError
from qir.files import write_text
from qir.quantizers import quantizers


def encodings(arguments: Namespace) -> None:
    """Print the encodings of a graph's quantizers, or write them to a file."""
    graph = read_graph(arguments.file)
    if not quantizers(graph):
        raise QirError(f"{arguments.file} has no quantizers", help="run insert-quantizers and calibrate with qir opt")
    text = document_text(encodings_document(encodings_of(graph), arguments.version))
    if arguments.output is None:
        print(text, end="")
    else:
        write_text(Path(arguments.output), text)
