"""What the parsers of all commands share."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter, _SubParsersAction
from collections.abc import Callable
from typing import TypeAlias

from qir.placement.options import DEFAULT_TARGET

FILE = "graph text (.qir, or - for standard input) or an ONNX model"
PASSES = 'passes with their options: "fold-batch-norm,insert-quantizers{scheme=minmax}"'
RECORD = "write every rewrite to this file, for qir replay"
EVALUATOR = "what runs the graph (default: the first of these that is installed)"
TARGET = f"the name or the file of a target profile (default: {DEFAULT_TARGET})"

Commands: TypeAlias = "_SubParsersAction[ArgumentParser]"


def command(found: Commands, name: str, run: Callable[[Namespace], None], help: str, examples: str) -> ArgumentParser:
    """The parser of a new command. `help` is one sentence, `examples` are arguments, a line each."""
    made: ArgumentParser = found.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  qir {name} {example}" for example in examples.splitlines()),
        formatter_class=RawDescriptionHelpFormatter,
    )
    made.set_defaults(run=run)
    return made
