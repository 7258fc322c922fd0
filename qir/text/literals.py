"""Values of attributes as text, both ways."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from qir.attributes import TRAINING, Port, Symbol, TrainingMode
from qir.encodings.encoding import Encoding
from qir.text.lexer import NUMBER, STRING, WORD, Line
from qir.types import NUMPY, TensorType, type_of

_PLAIN = {"None": None, "True": True, "False": False, "training": TRAINING, "Ellipsis": Ellipsis}
_ARRAY = re.compile(r"[a-z]\w*\[")
_PORT = re.compile(r"[0-9]{1,9}")
_FLOATING = re.compile(r"[.eEn]")


def write_value(value: Any, encoding: Callable[[Encoding], str]) -> str:
    """`value` as `read_value` takes it; `encoding` writes the encodings in it.

    What is no literal, array, encoding or kind of `qir.attributes` is written as a symbol, by its `repr`.
    """

    def joined(items: Any) -> str:
        return ", ".join(write_value(item, encoding) for item in items)

    match value:
        case bool() | None | int() | float() | TrainingMode() | Port() if type(value).__module__ != "numpy":
            return str(value)
        case str():
            return json.dumps(value)
        case Encoding():
            return encoding(value)
        case Symbol():
            return _symbol(value.name)
        case tuple():
            return f"({joined(value)}{',' * (len(value) == 1)})"
        case list():
            return f"[{joined(value)}]"
        case dict():
            return f"{{{', '.join(f'{joined([k])}: {joined([v])}' for k, v in value.items())}}}"
        case slice():
            return f"slice({joined([value.start, value.stop, value.step])})"
        case np.ndarray() if value.dtype.kind in "OUS" or value.dtype in _NUMPY_TYPES:
            return f"{type_of(value)}({', '.join(map(number, value.reshape(-1)))})"
        case np.generic():
            return write_value(value.item(), encoding)
        case complex():
            return f"complex({joined([value.real, value.imag])})"
        case bytes():
            return f"bytes({joined([base64.b64encode(value).decode()])})"
        case _ if value is Ellipsis:
            return "Ellipsis"
        case _:
            return _other(value)


_NUMPY_TYPES = frozenset(NUMPY.values())


def _symbol(name: str) -> str:
    plain = WORD.fullmatch(name) and name not in _PLAIN and not NUMBER.match(name)
    return name if plain else f"symbol({json.dumps(name)})"


def _other(value: Any) -> str:
    if hasattr(value, "SerializeToString"):
        encoded = base64.b64encode(value.SerializeToString(deterministic=True)).decode()
        return f'proto("{type(value).__name__}", "{encoded}")'
    return _symbol(repr(value))


def number(element: Any) -> str:
    """One element of an array."""
    if isinstance(element, np.float32):
        return str(element)
    plain = element.item() if isinstance(element, np.generic) else element
    if not isinstance(plain, int | float | complex):
        return json.dumps(plain.decode(errors="replace") if isinstance(plain, bytes) else str(plain))
    return f"complex({plain.real!r}, {plain.imag!r})" if isinstance(plain, complex) else repr(plain)


def read_value(line: Line, encoding: Callable[[Line], Encoding]) -> Any:
    """The value that stands here; `encoding` reads the name of an encoding, behind its `$`."""

    def items(close: str) -> list[Any]:
        return line.many(lambda: read_value(line, encoding), close)

    def pair() -> tuple[Any, Any]:
        key = read_value(line, encoding)
        line.expect(":")
        return key, read_value(line, encoding)

    start = line.skip()
    if line.accept("$"):
        return encoding(line)
    if line.accept("%"):
        return Port(int(line.name(_PORT, "an operand's number")))
    if line.accept("("):
        return tuple(items(")"))
    if line.accept("["):
        return items("]")
    if line.accept("{"):
        try:
            return dict(line.many(pair, "}"))
        except TypeError:
            line.fail("a key can not hold a list or a dict", start, line.at - start)
    if (text := line.take(STRING)) is not None:
        return line.unquoted(text, start)
    if _ARRAY.match(line.text, start):
        return _array(line, items)
    if (text := line.take(NUMBER)) is not None:
        return _number(line, text, start)
    if (text := line.take(WORD)) is not None:
        if line.text.startswith("(", line.at):
            return _call(line, text, start, items)
        return _PLAIN[text] if text in _PLAIN else Symbol(text)
    line.fail("expected a value")


def _number(line: Line, text: str, start: int) -> int | float:
    if _FLOATING.search(text):
        return float(text)
    if len(text) > 4000:
        line.fail("this number is too long", start, len(text))
    return int(text)


def _array(line: Line, items: Callable[[str], list[Any]]) -> np.ndarray:
    start, made = line.at, line.type()
    if not isinstance(made, TensorType) or made.static is None or made.dtype is None:
        line.fail("a constant needs a dtype and a known shape", start, line.at - start)
    line.expect("(")
    elements = items(")")
    wanted = (str,) if made.dtype == "str" else (bool, int, float, complex)
    if all(isinstance(element, wanted) for element in elements):
        try:
            with np.errstate(all="ignore"):
                return np.array(elements, NUMPY[made.dtype]).reshape(made.static)
        except (ValueError, TypeError, OverflowError):
            pass
    line.fail(f"these {len(elements)} elements do not make a {made}", start, line.at - start)


def _call(line: Line, name: str, start: int, items: Callable[[str], list[Any]]) -> Any:
    """`slice(…)`, `symbol("…")` and the other values that are written as a call."""
    line.expect("(")
    arguments = items(")")
    if name not in _CALLS:
        line.fail(f"no value is written {name}(…)", start, len(name))
    make, kinds = _CALLS[name]
    try:
        if not all(isinstance(argument, kinds) for argument in arguments):
            raise TypeError
        return make(*arguments)
    except (TypeError, ValueError, AttributeError):
        line.fail(f"{name} does not take these arguments", start, line.at - start)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _proto(kind: str, text: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    if not kind.endswith("Proto"):
        raise ValueError(kind)
    message = getattr(onnx, kind)()
    try:
        message.ParseFromString(_bytes(text))
    except DecodeError as error:
        raise ValueError(kind) from error
    return message


_CALLS: dict[str, tuple[Callable[..., Any], tuple[type, ...]]] = {
    "slice": (slice, (object,)),
    "symbol": (Symbol, (str,)),
    "complex": (complex, (int, float)),
    "bytes": (_bytes, (str,)),
    "proto": (_proto, (str,)),
}
