"""The one error that qir raises, and source locations."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qir.graph import Node


@dataclass(frozen=True)
class Loc:
    """Where the user wrote an operation.

    `file` and `line` name the line in the user's forward; `scope` is the path of the module (or layer, or ONNX node)
    whose code that line is. A frontend without source lines fills in the scope alone.
    """

    file: str = ""
    line: int = 0
    scope: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else self.scope

    @property
    def source(self) -> str:
        """The text of the line, or nothing when the file can not be read."""
        try:
            return linecache.getline(self.file, self.line).rstrip() if self.file else ""
        except ValueError:  # no file can have that name
            return ""


class QirError(Exception):
    """One problem, said once: what is wrong, where the user wrote it, and what to do.

    `message` is one sentence in the user's words, `help` an action, `stage` the pass or reader that found it,
    `snippet` a piece of input with a caret below it.
    """

    def __init__(
        self,
        message: str,
        node: Node | None = None,
        *,
        help: str | None = None,
        stage: str | None = None,
        snippet: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.node = node
        self._seen = "" if node is None or node.erased else str(node)
        self.help = help
        self.stage = stage
        self.snippet = snippet

    def __str__(self) -> str:
        lines = [f"error[{self.stage}]: {self.message}" if self.stage else f"error: {self.message}"]
        if self.snippet is not None:
            lines += [f"  {line}" for line in self.snippet.splitlines()]
        if self.node is not None:
            lines += point_at(self.node.loc)
            lines.append(f"  in: {self._seen if self._seen and self.node.erased else self.node}")
        if self.help is not None:
            lines.append(f"help: {self.help}")
        return "\n".join(lines)


def point_at(loc: Loc | None) -> list[str]:
    """The lines that show a location to a reader: the place, and the text there when it can be read."""
    if loc is None or not str(loc):
        return []
    if not (source := loc.source):
        return [f"  --> {loc}"]
    gutter = " " * len(str(loc.line))
    return [f"{gutter}--> {loc}", f"{gutter} |", f"{loc.line} | {source}", f"{gutter} |"]


def caret(text: str, column: int, width: int = 1) -> str:
    """`text` with a line below it that underlines `width` characters from `column` (counted from 0)."""
    return f"{text}\n{' ' * column}{'^' * max(width, 1)}"


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
