"""The statements of graph text. Errors name line and column."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.attributes import Port
from qir.encodings.encoding import Encoding
from qir.errors import Loc, QirError
from qir.text.encodings import read_encoding
from qir.text.lexer import OPERATOR, WORD, Line
from qir.text.literals import read_value
from qir.weights import Weight

if TYPE_CHECKING:
    from qir.graph import Graph, Value

_GAP = re.compile(r"_(?=[\s,]|$)")
_DIGEST = re.compile(r"[0-9a-f]{16}(?![\w.])")


@dataclass
class GraphReader:
    """Adds what the statements of one graph say to `graph`."""

    graph: Graph
    values: dict[str, Value] = field(default_factory=dict)
    encodings: dict[str, Encoding] = field(default_factory=dict)
    bodies: dict[str, Graph] = field(default_factory=dict)
    returned: bool = False

    # -- statements ----------------------------------------------------------------------------------------------

    def bind(self, line: Line, name: str, value: Value, column: int) -> None:
        if name in self.values:
            line.fail(f"%{name} is defined twice", column, len(name) + 1)
        self.values[name] = value

    def header(self, line: Line) -> None:
        if not line.accept("graph @"):
            line.fail("expected 'graph @name(%input: type, …) {'")
        self.graph.name = line.name()
        line.expect("(")

        def parameter() -> None:
            name, column = self.defined(line)
            line.expect(":")
            self.bind(line, name, self.graph.input(name, line.type()), column)

        line.many(parameter, ")")
        own = len(self.graph.inputs)
        if line.accept("captures ("):
            line.many(parameter, ")")
        self.graph.captured = len(self.graph.inputs) - own
        line.expect("{")
        line.end()

    def body(self, line: Line) -> None:
        if line.take(re.compile(r"return(?![\w.])")):
            self.outputs(line)
        elif self.returned:
            line.fail("only encodings and bodies may follow the return")
        elif line.take(re.compile(r"inference_only(?![\w.])")):
            self.graph.inference_only = line.name(what="a reason")
        elif line.take(re.compile(r"opset(?![\w.])")):
            domain = line.name(what="a domain")
            self.graph.opsets[domain] = line.integer("the version of the domain")
        else:
            self.definition(line)
        line.end()

    def defined(self, line: Line) -> tuple[str, int]:
        """`%name`, and its column."""
        line.expect("%")
        column = line.at - 1
        return line.name(), column

    def definition(self, line: Line) -> None:
        names = [self.defined(line)]
        while line.accept(","):
            names.append(self.defined(line))
        line.expect("=")
        start = line.skip()
        op = line.word(OPERATOR, "an operator")
        if op not in ("weight", "constant"):
            self.operation(line, names, op, start)
            return
        (name, column), *more = names
        if more:
            line.fail(f"a {op} has one name", more[0][1], len(more[0][0]) + 1)
        value = self.weight(line, name) if op == "weight" else self.constant(line, name)
        self.bind(line, name, value, column)

    def weight(self, line: Line, hint: str) -> Value:
        paths = line.many(line.name, ":")
        type = line.type()
        line.expect("#")
        digest = line.name(_DIGEST, "a hash of 16 hexadecimal digits")
        flags = {"trainable": False, "transient": False}
        while word := line.take(WORD):
            if word not in flags:
                line.fail(f"unknown flag {word!r}", line.at - len(word), len(word), "flags are trainable, transient")
            flags[word] = True
        weight = Weight(
            None, tuple(paths), trainable=flags["trainable"], persistent=not flags["transient"], known_digest=digest
        )
        return self.graph.weight(weight, type, hint)

    def operation(self, line: Line, names: list[tuple[str, int]], op: str, start: int) -> None:
        operands = self.operands(line)
        attrs = self.attributes(line) if line.accept("{") else {}
        line.expect(":")
        types = [line.type()]
        while line.accept(","):
            types.append(line.type())
        if len(types) != len(names):
            line.fail(f"{len(names)} results need {len(names)} types, not {len(types)}")
        module = line.name() if line.accept("[") else None
        if module is not None:
            line.expect("]")
        order = line.integer("the rank of this node") if line.accept("!") else None
        locs = self.locations(line) if line.accept("@") else ()
        try:
            node = self.graph.add(op, operands, attrs, types=types, module=module, locs=locs)
        except QirError as error:
            line.fail(error.message, start, len(op), error.help)
        node.order = order
        for (name, column), value in zip(names, node.results, strict=True):
            value.hint = name
            self.bind(line, name, value, column)

    def operands(self, line: Line) -> list[Value | None]:
        if line.text[line.skip() : line.at + 1] in ("", "{", ":"):
            return []
        operands = [self.operand(line)]
        while line.accept(","):
            operands.append(self.operand(line))
        return operands

    def operand(self, line: Line) -> Value | None:
        if line.accept("%"):
            column, name = line.at - 1, line.name()
            if name not in self.values:
                line.fail(f"%{name} is not defined yet", column, len(name) + 1)
            return self.values[name]
        return None if line.take(_GAP) else self.constant(line, "c")

    def constant(self, line: Line, hint: str) -> Value:
        start = line.skip()
        value = self.value(line)
        if not isinstance(value, bool | int | float | np.ndarray):
            line.fail("expected an operand: %name, a number, or a constant such as i64[2](1, -1)", start)
        return self.graph.constant(value, hint)

    def locations(self, line: Line) -> tuple[Loc, ...]:
        locs = [self.location(line)]
        while line.accept(","):
            locs.append(self.location(line))
        return tuple(locs)

    def location(self, line: Line) -> Loc:
        file, number, scope = "", 0, ""
        if not line.text.startswith("(", line.skip()):
            file = line.name(what="a file")
            line.expect(":")
            number = line.integer("a line number")
        if line.accept("("):
            scope = line.name()
            line.expect(")")
        return Loc(file, number, scope)

    def attributes(self, line: Line) -> dict[str, Any]:
        attrs: dict[str, Any] = {}

        def attribute() -> None:
            start = line.skip()
            name = line.word(WORD, "an attribute's name")
            if name in attrs:
                line.fail(f"{name} is given twice", start, line.at - start)
            line.expect("=")
            attrs[name] = self.value(line)

        line.many(attribute, "}")
        return attrs

    def value(self, line: Line) -> Any:
        if line.accept("@"):
            column, name = line.at - 1, line.name()
            if name not in self.bodies:
                line.fail(f"there is no graph @{name} inside this graph", column, len(name) + 1)
            return self.bodies[name]
        return read_value(line, self.named_encoding)

    # -- return and encodings ------------------------------------------------------------------------------------

    def outputs(self, line: Line) -> None:
        if self.returned:
            line.fail("a graph returns once", 0, line.at)
        self.returned = True
        if line.text[line.skip() : line.at + 1] in ("(", "[", "{"):
            self.graph.structure = self.arranged(line)
            return
        start = line.at
        for value in self.operands(line):
            if value is None:
                line.fail("an output can not be left out", start)
            self.graph.outputs.append(value)

    def arranged(self, line: Line) -> Any:
        if line.accept("("):
            return tuple(line.many(lambda: self.arranged(line), ")"))
        if line.accept("["):
            return line.many(lambda: self.arranged(line), "]")
        if line.accept("{"):
            start = line.at - 1
            try:
                return dict(line.many(lambda: self.pair(line), "}"))
            except TypeError:
                line.fail("a key is a string or a number", start, line.at - start)
        start = line.skip()
        if line.text.startswith("%", start):
            operand = self.operand(line)
            assert operand is not None
            self.graph.outputs.append(operand)
            return Port(len(self.graph.outputs) - 1)
        value = self.value(line)
        if isinstance(value, bool | str | int | float | None):
            return value
        line.fail("expected %name, None, or a constant", start, line.at - start)

    def pair(self, line: Line) -> tuple[Any, Any]:
        key = self.value(line)
        line.expect(":")
        return key, self.arranged(line)

    def named_encoding(self, line: Line) -> Encoding:
        column, name = line.at - 1, line.name()
        if name not in self.encodings:
            line.fail(f"${name} is not declared", column, len(name) + 1)
        return self.encodings[name]

    def encoding(self, line: Line) -> None:
        line.expect("$")
        column, name = line.at - 1, line.name()
        if name in self.encodings:
            line.fail(f"${name} is declared twice", column, len(name) + 1)
        line.expect("=")
        self.encodings[name] = read_encoding(line, self.value, self.named_encoding)
        line.end()
