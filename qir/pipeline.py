"""Passes and pipelines. A list of passes and its text are the same thing: `Pipeline.parse(str(p)) == p`.

    pipeline = pass ("," pass)*        pass = name ["{" option=value (" " option=value)* "}"]

Options are the fields of the pass, typed by their annotation; `per-channel` and `per_channel` both read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from qir.errors import QirError, caret
from qir.facts import Fact, held_by
from qir.graph import Graph
from qir.registry import pass_named, pass_names, register
from qir.rewrite import Outcome


@dataclass(frozen=True)
class Pass:
    """One transformation of a graph: a frozen dataclass whose fields are its options.

    It states the facts that it `needs`, `gives` and `breaks`, and what it does to `numerics`: `exact` keeps every
    output bit, `rounds` changes outputs by rounding only, `changes` may change them.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[tuple[Fact, ...]] = ()
    gives: ClassVar[tuple[Fact, ...]] = ()
    breaks: ClassVar[tuple[Fact, ...]] = ()
    numerics: ClassVar[Literal["exact", "rounds", "changes"]] = "exact"

    def __init_subclass__(cls, name: str = "", **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if name:
            cls.name = name
            register(name, cls)

    def run(self, graph: Graph) -> Outcome:
        """Transform `graph` in place and say what was done and what was left."""
        raise NotImplementedError

    def __str__(self) -> str:
        given = [(option, getattr(self, option.name)) for option in options(type(self))]
        written = [f"{option.name}={_write(value)}" for option, value in given if value != _default(option)]
        return self.name + (f"{{{' '.join(written)}}}" if written else "")


def options(kind: type[Pass]) -> list[Field[Any]]:
    """The fields of a pass that its text shows; those with `metadata={"text": False}` hold data, not options."""
    return [option for option in fields(kind) if option.metadata.get("text", True)]


def _default(option: Field[Any]) -> Any:
    return option.default_factory() if option.default_factory is not MISSING else option.default


def _write(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case None:
            return "none"
        case tuple():
            return f"[{','.join(map(_write, value))}]"
        case _:
            text = str(value)
            reserved = isinstance(value, str) and text == "none"
            return text if re.fullmatch(r"[^\s\"{}\[\],=]+", text) and not reserved else json.dumps(text)


@dataclass(frozen=True)
class Pipeline:
    """Passes in order. Make one with `of` or `parse`, which refuse an order that can not work."""

    passes: tuple[Pass, ...]

    @classmethod
    def of(cls, *passes: Pass, given: Graph | Iterable[Fact] = ()) -> Pipeline:
        """A pipeline for a graph of which the facts `given` hold (those that the graph itself holds, if it is one)."""
        pipeline = cls(passes)
        pipeline.check_order(held_by(given) if isinstance(given, Graph) else given)
        return pipeline

    @classmethod
    def parse(cls, text: str, given: Graph | Iterable[Fact] = ()) -> Pipeline:
        """The pipeline that prints as `text`. Raises QirError with a caret at what is wrong."""
        return cls.of(*_Spec(text).passes(), given=given)

    def __str__(self) -> str:
        return ",".join(map(str, self.passes))

    def check_order(self, given: Iterable[Fact] = ()) -> None:
        """Raise QirError when a pass needs a fact that nothing before it provides."""
        held = set(given)
        for position, step in enumerate(self.passes):
            for fact in step.needs:
                if fact not in held:
                    raise self._out_of_order(position, fact)
            held = (held - set(step.breaks)) | set(step.gives)

    def _out_of_order(self, position: int, fact: Fact) -> QirError:
        step, before = self.passes[position], self.passes[:position]
        column = len(",".join(map(str, before))) + (position > 0)
        broke = next((earlier.name for earlier in reversed(before) if fact in earlier.breaks), None)
        message = f"{step.name!r} needs {fact.name!r}, " + (
            f"which {broke!r} breaks" if broke else "which nothing before it provides"
        )
        givers = _givers(fact)
        later = next((other.name for other in self.passes[position + 1 :] if fact in other.gives), None)
        if later:
            help = f"move {later!r} before {step.name!r}"
        elif broke and givers and any(other.name == givers[0] for other in before):
            help = f"put {broke!r} before {givers[0]!r}, or {givers[0]!r} again after it"
        else:
            help = f"put {givers[0]!r} before it" if givers else f"the graph must come with {fact.meaning}"
        return QirError(message, stage="pipeline", snippet=caret(str(self), column, len(step.name)), help=help)

    def run(self, graph: Graph, watch: Sequence[Any] = ()) -> Graph:
        """Transform `graph` in place, pass by pass, and return it.

        `watch` holds watchers (`qir.watch`). Raises QirError when a pass does not keep what it gives.
        """
        from qir.watch import Stop

        around, graph.watchers = graph.watchers, [*graph.watchers, *watch]
        try:
            for step in self.passes:
                for watcher in watch:
                    watcher.before(step, graph)
                outcome = _run(step, graph)
                for watcher in watch:
                    watcher.after(step, graph, outcome)
        except Stop:
            if around:
                raise
        finally:
            graph.watchers = around
        return graph


def _run(step: Pass, graph: Graph) -> Outcome:
    """What `step` did to `graph`. Raises QirError when it does not keep what it gives."""
    try:
        outcome = step.run(graph)
        check_gives(step, graph)
    except QirError as error:
        error.stage = error.stage or step.name
        raise
    return outcome


def _givers(fact: Fact) -> list[str]:
    """The names of the passes that give `fact`, of those that can be imported."""
    names = []
    for name in pass_names():
        with suppress(QirError):
            kind = pass_named(name)
            names += [name] if kind is not None and fact in kind.gives else []
    return names


def check_gives(step: Pass, graph: Graph) -> None:
    """Raise QirError, pointing at the first node that breaks it, when `graph` lacks a fact that `step` gives."""
    for fact in step.gives:
        for node in fact.check(graph):
            raise QirError(f"{step.name} did not leave the graph with {fact.name!r}", node, stage=step.name)


class _Spec:
    """The reader of a pipeline's text."""

    ITEM = re.compile(r"\s*(?P<name>[\w-]+)\s*")
    WORD = r"\"(?:[^\"\\]|\\.)*\"|[^\s,\[\]{}\"]+"
    LIST = rf"\[\s*(?:(?:{WORD})\s*(?:,\s*|(?=\])))*\]"
    OPTION = re.compile(rf"\s*,?\s*(?P<key>[\w-]+)\s*=\s*(?P<value>{LIST}|{WORD})")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, message: str, at: int, width: int, help: str | None = None) -> QirError:
        return QirError(message, stage="pipeline", snippet=caret(self.text, at, width), help=help)

    def passes(self) -> list[Pass]:
        result: list[Pass] = []
        while self.text[self.at :].strip():
            item = self.ITEM.match(self.text, self.at)
            if item is None:
                raise self.fail("expected the name of a pass", self.at, 1)
            kind = self.kind(item["name"], item.start("name"))
            self.at = item.end()
            result.append(self.make(kind, item.start("name")))
            rest = self.text[self.at :].lstrip()
            if rest and not rest.startswith(","):
                raise self.fail("expected ',' between two passes", self.at, len(rest))
            self.at = len(self.text) - len(rest[1:])
            if rest and not rest[1:].strip():
                raise self.fail("a pass is missing after this comma", len(self.text.rstrip()) - 1, 1)
        return result

    def kind(self, name: str, at: int) -> type[Pass]:
        kind = pass_named(name)
        if kind is None:
            near = get_close_matches(name, pass_names(), 1)
            help = f"did you mean {near[0]!r}?" if near else "`qir passes` lists them"
            raise self.fail("no such pass", at, len(name), help)
        return kind

    def make(self, kind: type[Pass], start: int) -> Pass:
        chosen: dict[str, Any] = {}
        if self.text[self.at : self.at + 1] == "{":
            self.at += 1
            while option := self.OPTION.match(self.text, self.at):
                key, value = self.option(kind, option)
                if key in chosen:
                    raise self.fail(f"{key} is given twice", option.start("key"), len(option["key"]))
                chosen[key] = value
                self.at = option.end()
            rest = self.text[self.at :]
            self.at += len(rest) - len(rest.lstrip())
            if self.text[self.at : self.at + 1] != "}":
                raise self.fail("expected 'option=value' or '}'", self.at, 1)
            self.at += 1
        needed = [option.name for option in options(kind) if _default(option) is MISSING and option.name not in chosen]
        if needed:
            raise self.fail(f"{kind.name} needs the option {needed[0]!r}", start, len(kind.name))
        try:
            return kind(**chosen)
        except QirError as error:
            raise self.fail(error.message, start, self.at - start, error.help) from None

    def option(self, kind: type[Pass], found: re.Match[str]) -> tuple[str, Any]:
        key = found["key"].replace("-", "_")
        names = [option.name for option in options(kind)]
        if key not in names:
            help = f"it has: {', '.join(names)}" if names else "it has no options"
            raise self.fail(f"{kind.name} has no option {found['key']!r}", found.start("key"), len(found["key"]), help)
        try:
            return key, _read(get_type_hints(kind)[key], found["value"])
        except ValueError as error:
            raise self.fail(str(error), found.start("value"), len(found["value"])) from None


def _read(annotation: Any, text: str) -> Any:
    """`text` as a value of the annotated type. Raises ValueError when it is none."""
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is tuple:
        words = re.findall(_Spec.WORD, text[1:-1]) if text.startswith("[") else [text]
        return tuple(_read(inner[0], word) for word in words)
    if type(None) in inner:
        wanted = next(part for part in inner if part is not type(None))
        return None if text == "none" else _read(wanted, text)
    plain = json.loads(text) if text.startswith('"') else text
    if kind is Literal:
        chosen = next((value for value in inner if str(value) == plain), None)
        if chosen is None:
            raise ValueError(f"expected one of {', '.join(map(str, inner))}")
        return chosen
    if annotation is bool:
        if plain not in ("true", "false"):
            raise ValueError("expected true or false")
        return plain == "true"
    try:
        return annotation(plain)
    except (TypeError, ValueError):
        raise ValueError(f"expected {getattr(annotation, '__name__', annotation)}, not {plain!r}") from None
