"""Where benches find models: a folder with `zoo.py`, whose `ZOO` is a dictionary of entries by name.

An entry has `name`, `build()`, `inputs(offset)`, which are positional and keyword arguments, `tags` and `source`.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Chosen:
    """The entries that a command is about, and the file that its figures go to."""

    entries: tuple[Any, ...]
    json: Path | None

    def write(self, text: str) -> None:
        """Write the figures, where the command says where."""
        if self.json is not None:
            self.json.parent.mkdir(parents=True, exist_ok=True)
            self.json.write_text(text + "\n")


def chosen(parser: ArgumentParser, arguments: Sequence[str] | None, tags: frozenset[str] = frozenset()) -> Chosen:
    """Read a command line with `--zoo`, `--json` and the names of models; all with one of the tags unless named."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="names in the zoo (default: all)")
    parser.add_argument("--zoo", type=Path, default=Path("../shared/zoo"), help="its folder (default: ../shared/zoo)")
    parser.add_argument("--json", type=Path, help="where to write what the table shows")
    given = parser.parse_args(arguments)
    if not (given.zoo / "zoo.py").is_file():
        parser.error(f"there is no zoo.py in {given.zoo}")
    sys.path.insert(0, str(given.zoo))
    zoo = import_module("zoo").ZOO
    if unknown := set(given.models) - set(zoo):
        parser.error(f"no model is called {', '.join(sorted(unknown))}")
    names = given.models or [name for name, entry in zoo.items() if not tags or tags & set(entry.tags)]
    return Chosen(tuple(zoo[name] for name in names), given.json)
