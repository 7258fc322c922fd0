"""The words of graph text: names, numbers, strings, types. Every failure names line and column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from qir.errors import QirError, caret
from qir.types import Type, parse_type

QUOTED = r'"(?:[^"\\]|\\.)*"'
BARE = re.compile(r"[A-Za-z0-9_./\-]+")
NAME = re.compile(rf"{BARE.pattern}|{QUOTED}")
NUMBER = re.compile(r"[+-]?(?:inf\b|nan\b|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", re.ASCII)
INTEGER = re.compile(r"[+-]?\d{1,18}(?!\d)", re.ASCII)
TYPE = re.compile(rf"(?:\?|[a-z]\w*)\[(?:[^\]\"]|{QUOTED})*\]|\?|(?:int|float|bool)\b")
CONTAINERS = re.compile(r"(?:(?:seq|optional)\(\s*|map\(\s*[a-z]\w*,\s*)+")
STRING = re.compile(rf"{QUOTED}|'[^'\\]*'")
WORD = re.compile(r"[A-Za-z_][\w.]*")
OPERATOR = re.compile(r"[A-Za-z_][\w.:<>]*")
_CODE = re.compile(rf"(?:[^\"]|{QUOTED})*?(?=  //)")
DEEPEST = 100
"""How many brackets may stand inside each other."""


def quoted(name: str) -> str:
    """`name`, in quotes if it holds characters that a bare name may not."""
    return name if BARE.fullmatch(name) else json.dumps(name)


def word(name: str, kind: re.Pattern[str] = WORD) -> str:
    """`name`, in quotes unless it is a word of this kind."""
    return name if kind.fullmatch(name) else json.dumps(name)


@dataclass
class Line:
    """One line of text and a position in it."""

    text: str
    number: int
    at: int = 0
    depth: int = 0

    def fail(self, message: str, column: int | None = None, width: int = 1, help: str | None = None) -> NoReturn:
        """Raise QirError with a caret below `width` characters from `column`, the position unless told."""
        column = self.at if column is None else column
        place = f"text:{self.number}:{column + 1}"
        raise QirError(message, stage=place, snippet=caret(self.text, column, width), help=help)

    def skip(self) -> int:
        """Move to the next character that is no space; where that is."""
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1
        return self.at

    def take(self, pattern: re.Pattern[str]) -> str | None:
        """The text here that matches, then move behind it; None when none does."""
        match = pattern.match(self.text, self.skip())
        if match is None:
            return None
        self.at = match.end()
        return match[0]

    def accept(self, token: str) -> bool:
        """Whether `token` stands here; if so, move behind it."""
        if not self.text.startswith(token, self.skip()):
            return False
        self.at += len(token)
        return True

    def expect(self, token: str) -> None:
        """Move behind `token`."""
        if not self.accept(token):
            self.fail(f"expected {token!r}")

    def name(self, pattern: re.Pattern[str] = NAME, what: str = "a name") -> str:
        """A name, its quotes taken off."""
        start = self.skip()
        if (text := self.take(pattern)) is None:
            self.fail(f"expected {what}")
        return self.unquoted(text, start)

    def word(self, kind: re.Pattern[str], what: str) -> str:
        """A word of this kind, or any text in quotes."""
        return self.name(NAME if self.text.startswith('"', self.skip()) else kind, what)

    def unquoted(self, text: str, start: int) -> str:
        """What the token `text`, which starts in column `start`, stands for."""
        if text.startswith("'"):
            return text[1:-1]
        if not text.startswith('"'):
            return text
        try:
            return str(json.loads(text))
        except ValueError:
            self.fail("this string has an escape that JSON does not know", start, len(text))

    def integer(self, what: str) -> int:
        """A whole number."""
        if (text := self.take(INTEGER)) is None:
            self.fail(f"expected {what}")
        return int(text)

    def many(self, read: Callable[[], Any], close: str) -> list[Any]:
        """Items that commas separate, up to and with `close`; one comma may end them."""
        self.depth += 1
        if self.depth > DEEPEST:
            self.fail(f"more than {DEEPEST} brackets stand inside each other")
        items: list[Any] = []
        while not self.accept(close):
            items.append(read())
            if not self.accept(","):
                self.expect(close)
                break
        self.depth -= 1
        return items

    def type(self) -> Type:
        """A type."""
        start = self.skip()
        containers = self.take(CONTAINERS) or ""
        depth = containers.count("(")
        text = self.take(TYPE) or ""
        try:
            if depth > DEEPEST or not all(self.accept(")") for _ in range(depth)):
                raise ValueError(text)
            return parse_type("".join(containers.split()) + text + ")" * depth)
        except ValueError:
            self.fail("expected a type, such as f32[1,3,8,8]", start, len(containers + text) or 1)

    def end(self) -> None:
        """Nothing may follow."""
        if self.skip() < len(self.text):
            self.fail("nothing may follow here", width=len(self.text) - self.at)


def lines_of(text: str) -> list[Line]:
    """The lines that hold more than a comment: `//` begins one at the start of a line or after two spaces."""
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        code = line.rstrip()
        if not code or code.lstrip().startswith("//"):
            continue
        if "  //" in code and (match := _CODE.match(code)):
            code = match[0].rstrip()
        lines.append(Line(code, number))
    return lines
