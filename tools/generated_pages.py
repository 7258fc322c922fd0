"""The pages of the documentation site that are made from tables: operators, passes, targets, commands.

mkdocs calls `on_files` when it builds the site (see mkdocs.yml). Nothing of these pages is kept in the repository.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from typing import Any

from qir.__main__ import parser
from qir.pipeline import options
from qir.placement.targets import profile_data, target, target_names
from qir.registry import known_passes
from qir.testing import EXAMPLE
from tools.operator_table import rows

FACTS = "needs", "gives", "breaks"
HEADS = "operator", "traits", "from torch", "from Keras", "in torch", "in Keras", "in ONNX", "integers on"
OPERATORS = """
ONNX's operators have their ONNX meaning; an ONNX model is imported one node to one node. *From torch* and *from Keras*
are calls whose lowering makes the operator. *In torch*, an operator is emitted as a layer or function of torch's own,
as a function with ONNX's meaning where torch's does not take the node, by ONNX's own expansion, as modules of its
bodies, or runs in onnxruntime inside of the module. *In Keras*, simulators compute it with a function of `keras.ops`;
whole calls of Keras go back as they came. *Integers on* are the targets with an integer kernel, or that move
its integers.
"""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages to those that lie in docs/."""
    from mkdocs.structure.files import File

    for name, lines in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content="\n".join(lines) + "\n"))
    return files


def pages() -> dict[str, list[str]]:
    """The lines of every page, by name."""
    return {name: list(made()) for name, made in PAGES.items()}


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A Markdown table."""
    heads = list(heads)
    yield from ("", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|")
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def commands() -> Iterator[str]:
    """What `qir COMMAND --help` says, for every command."""
    top = parser()
    (found,) = (action for action in top._actions if action.choices and action.dest == "==SUPPRESS==")
    yield from ("# Command line", "", "```text", top.format_help().rstrip(), "```")
    for name, command in found.choices.items():
        yield from ("", f"## qir {name}", "", "```text", command.format_help().rstrip(), "```")


def passes() -> Iterator[str]:
    """Every pass: its docstring, with the graphs in it as blocks, its options, and the facts that it deals in."""
    yield from ("# Passes", "")
    for name, kind in known_passes().items():
        doc = inspect.getdoc(kind) or ""
        yield from (f"## {name}", "", EXAMPLE.sub(fenced, doc))
        facts = [(word, [fact.name for fact in getattr(kind, word)]) for word in FACTS]
        lines = [("options", [option.name for option in options(kind)]), *facts, ("numerics", [kind.numerics])]
        yield ""
        yield from (f"* {word}: {', '.join(f'`{name}`' for name in names)}" for word, names in lines if names)
        yield ""


def fenced(example: re.Match[str]) -> str:
    """The graphs before and after, as blocks of code."""
    before, step, after = (cleandoc(part) for part in example.groups())
    return f"```text\n{before}\n```\n\nbecomes{f', by `{step}`' if step else ''}\n\n```text\n{after}\n```"


def operators() -> Iterator[str]:
    """What reads and writes each operator."""
    yield from ("---", "hide: [toc]", "---", "# Operators", "", OPERATORS)
    kinds = (
        ("ONNX's operators", lambda operator: operator.schema is not None),
        ("Composites", lambda operator: operator.name.startswith("qir.")),
        ("Integer operators of onnxruntime", lambda operator: operator.name.startswith("com.microsoft.")),
    )
    for title, chosen in kinds:
        yield from (f"## {title}", "")
        yield from table(HEADS, rows(chosen))


def targets() -> Iterator[str]:
    """Every target profile as `qir targets show` prints it."""
    from qir.cli.targets import _lines

    yield from ("# Targets", "", "The profiles that come with qir, as `qir targets show NAME` prints them.")
    for name in target_names():
        yield from ("", f"## {name}", "", target(name).description, "", "```text", *_lines(profile_data(name)), "```")


PAGES = {"commands": commands, "passes": passes, "targets": targets, "operators": operators}
