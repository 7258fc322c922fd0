"""What the commands do that turn a model into an integer model, and judge one: quantize, lint, certify."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict

from qir.cli_files import read_graph
from qir.errors import point_at
from qir.lint import Verdict, lint


def lint_model(arguments: Namespace) -> None:
    """Say what the target computes with integers and why not the rest; exit code 1 when something is left or wrong."""
    verdicts = lint(read_graph(arguments.file), arguments.target)
    bad = [verdict for verdict in verdicts if verdict.wrong or not verdict.integer]
    if arguments.json:
        rows = [
            {**asdict(v.note), "loc": str(v.note.loc or ""), "integer": v.integer, "wrong": v.wrong} for v in verdicts
        ]
        print(json.dumps(rows, indent=1))
    else:
        integer = sum(verdict.integer for verdict in verdicts)
        print(f"{arguments.file} on {arguments.target}: {integer} of {len(verdicts)} operators compute with integers")
        for verdict in verdicts if arguments.all else bad:
            print("\n".join(_verdict(verdict)))
    if bad:
        sys.exit(1)


def _verdict(verdict: Verdict) -> Iterator[str]:
    title = "wrong" if verdict.wrong else "integer" if verdict.integer else "float"
    yield f"\n{title}: {verdict.note.reason}"
    yield f"  {verdict.note.node}"
    yield from (f"  {line}" for line in point_at(verdict.note.loc))
    if verdict.note.help:
        yield f"  help: {verdict.note.help}"
