"""The reader of graph text. Its errors name line and column."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from qir.attributes import TRAINING, Port, Symbol
from qir.encodings import Encoding, ProductEncoding
from qir.errors import Loc, QirError, caret
from qir.types import NUMPY, TensorType, Type, parse_type
from qir.weights import Weight

if TYPE_CHECKING:
    from qir.graph import Graph, Value

_NAME = re.compile(r'[A-Za-z0-9_./\-]+|"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"[+-]?(?:inf\b|nan\b|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_TYPE = re.compile(r"(?:\?|[a-z]\w*)\[[^\]]*\]|\?|(?:int|float|bool)\b")
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_WORD = re.compile(r"[A-Za-z_][\w.]*")
_OP = re.compile(r"[A-Za-z_][\w.:<>]*")


@dataclass
class _Line:
    """One line of text and a position in it."""

    text: str
    number: int
    at: int = 0

    def fail(self, message: str, column: int | None = None, width: int = 1, help: str | None = None) -> NoReturn:
        column = self.at if column is None else column
        place = f"text:{self.number}:{column + 1}"
        raise QirError(message, stage=place, snippet=caret(self.text, column, width), help=help)

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1

    def take(self, pattern: re.Pattern[str]) -> str | None:
        self.skip()
        if match := pattern.match(self.text, self.at):
            self.at = match.end()
            return match[0]
        return None

    def accept(self, token: str) -> bool:
        self.skip()
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def expect(self, token: str) -> None:
        if not self.accept(token):
            self.fail(f"expected {token!r}")

    def name(self) -> str:
        if (text := self.take(_NAME)) is None:
            self.fail("expected a name")
        return str(json.loads(text)) if text.startswith('"') else text

    def many(self, read: Callable[[], Any], close: str) -> list[Any]:
        """Items that commas separate, up to and with `close`; one comma may end them."""
        items: list[Any] = []
        while not self.accept(close):
            items.append(read())
            if not self.accept(","):
                self.expect(close)
                break
        return items

    def type(self) -> Type:
        self.skip()
        start = self.at
        text = self.take(_TYPE)
        try:
            return parse_type(text or "")
        except ValueError:
            self.fail("expected a type, such as f32[1,3,8,8]", start, len(text or "x"))

    def end(self) -> None:
        self.skip()
        if self.at < len(self.text):
            self.fail("nothing may follow here", width=len(self.text) - self.at)


@dataclass
class _Reader:
    graph: Graph
    values: dict[str, Value] = field(default_factory=dict)
    encodings: dict[str, Encoding] = field(default_factory=dict)
    returned: bool = False

    # -- statements ----------------------------------------------------------------------------------------------

    def bind(self, line: _Line, name: str, value: Value, column: int) -> None:
        if name in self.values:
            line.fail(f"%{name} is defined twice", column, len(name) + 1)
        self.values[name] = value

    def header(self, line: _Line) -> None:
        if not line.accept("graph @"):
            line.fail("expected 'graph @name(%input: type, …) {'")
        self.graph.name = line.name()
        line.expect("(")

        def parameter() -> None:
            line.expect("%")
            column, name = line.at - 1, line.name()
            line.expect(":")
            self.bind(line, name, self.graph.input(name, line.type()), column)

        line.many(parameter, ")")
        line.expect("{")
        line.end()

    def body(self, line: _Line) -> None:
        if line.accept("return"):
            self.outputs(line)
        elif self.returned:
            line.fail("only encodings may follow the return")
        else:
            self.definition(line)
        line.end()

    def definition(self, line: _Line) -> None:
        names = []
        while True:
            line.expect("%")
            column = line.at - 1
            names.append((line.name(), column))
            if not line.accept(","):
                break
        line.expect("=")
        start = line.at
        op = line.take(_OP)
        if op is None:
            line.fail("expected an operator")
        if op == "weight":
            self.bind(line, names[0][0], self.weight(line, names[0][0]), names[0][1])
        elif op == "constant":
            line.skip()
            self.bind(line, names[0][0], self.constant(line, names[0][0]), names[0][1])
        else:
            self.operation(line, names, op, start)

    def weight(self, line: _Line, hint: str) -> Value:
        paths = line.many(line.name, ":")
        type = line.type()
        line.expect("#")
        digest = line.name()
        flags = {"trainable": False, "transient": False}
        while word := line.take(_WORD):
            if word not in flags:
                line.fail(f"unknown flag {word!r}", line.at - len(word), len(word), "flags are trainable, transient")
            flags[word] = True
        weight = Weight(
            None, tuple(paths), trainable=flags["trainable"], persistent=not flags["transient"], known_digest=digest
        )
        return self.graph.weight(weight, type, hint)

    def operation(self, line: _Line, names: list[tuple[str, int]], op: str, start: int) -> None:
        operands = self.operands(line)
        attrs = dict(line.many(lambda: self.attribute(line), "}")) if line.accept("{") else {}
        line.expect(":")
        types = [line.type()]
        while line.accept(","):
            types.append(line.type())
        if len(types) != len(names):
            line.fail(f"{len(names)} results need {len(names)} types, not {len(types)}")
        module = line.name() if line.accept("[") else None
        if module is not None:
            line.expect("]")
        order = int(line.name()) if line.accept("!") else None
        locs = self.locations(line) if line.accept("@") else ()
        try:
            node = self.graph.add(op, operands, attrs, types=types, module=module, locs=locs)
        except QirError as error:
            line.skip()
            while line.text[start] == " ":
                start += 1
            line.fail(error.message, start, len(op), error.help)
        node.order = order
        for (name, column), value in zip(names, node.results, strict=True):
            value.hint = name
            self.bind(line, name, value, column)

    def operands(self, line: _Line) -> list[Value | None]:
        line.skip()
        if line.at >= len(line.text) or line.text[line.at] in "{:":
            return []
        operands = [self.operand(line)]
        while line.accept(","):
            operands.append(self.operand(line))
        return operands

    def operand(self, line: _Line) -> Value | None:
        line.skip()
        if line.accept("%"):
            column, name = line.at - 1, line.name()
            if name not in self.values:
                line.fail(f"%{name} is not defined yet", column, len(name) + 1)
            return self.values[name]
        if re.compile(r"_(?=[\s,]|$)").match(line.text, line.at):
            line.at += 1
            return None
        return self.constant(line, "c")

    def constant(self, line: _Line, hint: str) -> Value:
        start = line.at
        value = self.value(line)
        if not isinstance(value, bool | int | float | np.ndarray):
            line.fail("expected an operand: %name, a number, or a constant such as i64[2](1, -1)", start)
        return self.graph.constant(value, hint)

    def locations(self, line: _Line) -> tuple[Loc, ...]:
        locs = []
        while True:
            file, number, scope = "", 0, ""
            if not line.text.startswith("(", line.at + (line.text[line.at : line.at + 1] == " ")):
                file = line.name()
                line.expect(":")
                number = int(line.take(re.compile(r"\d+")) or line.fail("expected a line number"))
            if line.accept("("):
                scope = "" if line.accept(")") else line.name()
                if scope or line.text[line.at - 2] == '"':
                    line.expect(")")
            locs.append(Loc(file, number, scope))
            if not line.accept(","):
                return tuple(locs)

    # -- values of attributes ------------------------------------------------------------------------------------

    def attribute(self, line: _Line) -> tuple[str, Any]:
        name = line.take(_WORD) or line.fail("expected an attribute's name")
        line.expect("=")
        return name, self.value(line)

    def value(self, line: _Line) -> Any:
        line.skip()
        if line.accept("$"):
            return self.named_encoding(line)
        if line.accept("%"):
            return Port(int(line.take(re.compile(r"\d+")) or line.fail("expected an operand's number")))
        if line.accept("("):
            return tuple(line.many(lambda: self.value(line), ")"))
        if line.accept("["):
            return line.many(lambda: self.value(line), "]")
        if line.accept("{"):
            return dict(line.many(lambda: self.pair(line), "}"))
        if (text := line.take(_STRING)) is not None:
            return json.loads(text) if text.startswith('"') else text[1:-1]
        if line.take(re.compile(r"slice\(")):
            return slice(*line.many(lambda: self.value(line), ")"))
        if re.compile(r"[a-z]\w*\[").match(line.text, line.at):
            return self.array(line)
        if (text := line.take(_NUMBER)) is not None:
            return float(text) if re.search(r"[.eEn]", text) else int(text)
        if (text := line.take(_WORD)) is not None:
            plain = {"None": None, "True": True, "False": False, "training": TRAINING, "Ellipsis": Ellipsis}
            return plain[text] if text in plain else Symbol(text)
        line.fail("expected a value")

    def pair(self, line: _Line) -> tuple[Any, Any]:
        key = self.value(line)
        line.expect(":")
        return key, self.value(line)

    def array(self, line: _Line) -> np.ndarray:
        start, type = line.at, line.type()
        line.expect("(")
        items = line.many(lambda: self.value(line), ")")
        if not isinstance(type, TensorType) or type.static is None or type.dtype in (None, "str"):
            line.fail("a constant needs a dtype and a known shape", start)
        try:
            return np.array(items, NUMPY[type.dtype or ""]).reshape(type.static)
        except (ValueError, TypeError, OverflowError):
            line.fail(f"these {len(items)} elements do not make a {type}", start, line.at - start)

    # -- return and encodings ------------------------------------------------------------------------------------

    def outputs(self, line: _Line) -> None:
        line.skip()
        self.returned = True
        if line.at < len(line.text) and line.text[line.at] in "([{":
            self.graph.structure = self.arranged(line)
        elif line.at < len(line.text):
            self.graph.outputs = [value for value in self.operands(line) if value is not None]

    def arranged(self, line: _Line) -> Any:
        line.skip()
        if line.accept("("):
            return tuple(line.many(lambda: self.arranged(line), ")"))
        if line.accept("["):
            return line.many(lambda: self.arranged(line), "]")
        if line.accept("{"):

            def pair() -> tuple[Any, Any]:
                key = self.value(line)
                line.expect(":")
                return key, self.arranged(line)

            return dict(line.many(pair, "}"))
        if line.text.startswith("%", line.at):
            operand = self.operand(line)
            assert operand is not None
            self.graph.outputs.append(operand)
            return len(self.graph.outputs) - 1
        return self.value(line)

    def named_encoding(self, line: _Line) -> Encoding:
        column, name = line.at - 1, line.name()
        if name not in self.encodings:
            line.fail(f"${name} is not declared", column, len(name) + 1)
        return self.encodings[name]

    def encoding(self, line: _Line) -> None:
        line.expect("$")
        column, name = line.at - 1, line.name()
        if name in self.encodings:
            line.fail(f"${name} is declared twice", column, len(name) + 1)
        line.expect("=")
        start = line.at + 1
        dtype = line.take(_WORD) or line.fail("expected a dtype")
        if line.accept("product"):
            line.expect("$")
            first = self.named_encoding(line)
            line.expect("$")
            self.encodings[name] = ProductEncoding(dtype, input=first, weight=self.named_encoding(line))
        else:
            options: dict[str, Any] = {}
            while word := line.take(_WORD):
                options[word] = self.value(line) if line.accept("=") else True
            self.encodings[name] = _make_encoding(line, start, dtype, options)
        line.end()


def _make_encoding(line: _Line, start: int, dtype: str, options: dict[str, Any]) -> Encoding:
    known = {"symmetric", "asymmetric", "narrow", "axis", "scale", "zero_point"}
    if unknown := sorted(set(options) - known):
        line.fail(f"an encoding has no {unknown[0]!r}", start, help=f"it has: {', '.join(sorted(known))}")
    if dtype not in NUMPY or ("scale" in options) != ("zero_point" in options):
        line.fail("an encoding is a dtype, and a scale with a zero_point or neither", start)
    made = Encoding(dtype, bool(options.get("symmetric")), options.get("axis"), bool(options.get("narrow")))
    if "scale" not in options:
        return made
    scale = np.array(options["scale"], np.float32)
    zero = np.array(options["zero_point"]).astype(NUMPY[dtype])
    if scale.shape != zero.shape or not np.all(scale > 0):
        line.fail("scales are positive, and there is one zero_point for each", start)
    return Encoding(dtype, made.symmetric, made.axis, made.narrow, scale, zero)


def parse(text: str) -> Graph:
    """The graph that prints as `text`; its weights know their digests only.

    Raises QirError with line and column for text that is no graph.
    """
    from qir.graph import Graph

    reader = _Reader(Graph())
    lines = [_Line(line.split("  //")[0].rstrip() if '"' not in line else line.rstrip(), number)
             for number, line in enumerate(text.splitlines(), 1)
             if line.strip() and not line.lstrip().startswith("//")]  # fmt: skip
    if not lines:
        raise QirError("there is no graph in this text", stage="text:1:1", help="it starts with 'graph @name('")
    reader.header(lines[0])
    declared = [line for line in lines[1:] if line.text.lstrip().startswith("$")]
    for line in sorted(declared, key=lambda line: " product " in line.text):
        reader.encoding(line)
    closed = False
    for line in (line for line in lines[1:] if not line.text.lstrip().startswith("$")):
        if closed:
            line.fail("nothing may follow the graph")
        elif line.text.strip() == "}":
            closed = True
        else:
            reader.body(line)
    if not closed or not reader.returned:
        lines[-1].fail("the graph does not end: expected 'return …' and '}'")
    return reader.graph
