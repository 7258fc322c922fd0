"""JSON from files of others: read defensively, and checked against a schema.

Every refusal is one QirError that names the place as a JSON path: `$.param_encodings[3].scale`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from qir.errors import QirError

LARGEST = 2**53
"""Integers beyond this are no counts, sizes or zero points: JSON readers disagree about them."""


def refuse(at: str, message: str, help: str | None = None) -> NoReturn:
    """Raise the QirError for what stands at the JSON path `at`."""
    raise QirError(f"{at}: {message}", stage="json", help=help)


def member(at: str, key: str) -> str:
    """The JSON path of the member `key` of the object at `at`, as jsonschema writes it."""
    return f"{at}.{key}" if re.fullmatch(r"[A-Za-z_]\w*", key) else f"{at}[{key!r}]"


def load_document(source: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """The object in a file, or `source` if it is one already. Raises QirError for what is no plain JSON object."""
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise QirError(f"can not read {path}: {error.strerror}", stage="json") from None
    except UnicodeDecodeError:
        raise QirError(f"{path} is no JSON: it is not UTF-8", stage="json") from None
    return parse_object(text, str(path))


def parse_object(text: str, name: str) -> dict[str, Any]:
    """The JSON object in `text`, of the file `name`. Raises QirError for anything else and for what JSON forbids."""
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_int=_whole)
    except RecursionError:
        refuse("$", f"{name} is nested too deeply")
    except json.JSONDecodeError as error:
        refuse("$", f"{name} is no JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    if not isinstance(found, dict):
        refuse("$", f"{name} holds no object", "expected one JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            refuse(member("$.", key), "this key is given twice in one object")
        found[key] = value
    return found


def _no_constant(text: str) -> NoReturn:
    refuse("$", f"{text} is no JSON number", "calibrate again: a range was not finite")


def _whole(text: str) -> int:
    if len(text) > 17 or abs(number := int(text)) > LARGEST:
        refuse("$", f"the integer {text[:20]}… is too large")
    return number


def check_schema(document: Mapping[str, Any], schema: str) -> None:
    """Raise QirError for a place where `document` does not follow the schema `qir/schemas/<schema>.json`."""
    from jsonschema.exceptions import best_match

    error = best_match(_validator(schema).iter_errors(document))
    if error is None:
        return
    found = json.dumps(error.instance, default=str)
    shown = found if len(found) <= 40 else f"{found[:40]}…"
    refuse(error.json_path, {
        "required": f"{error.message.replace(' is a required property', ' is missing')}",
        "additionalProperties": error.message,
        "type": f"{shown} is not of type {error.validator_value!r}",
        "const": f"{shown} is not {error.validator_value!r}",
        "enum": f"{shown} is none of {error.validator_value}",
    }.get(error.validator, f"{shown} does not fit: {error.validator} {error.validator_value!r}"[:300]))  # fmt: skip


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    registry: Any = Registry(retrieve=lambda uri: Resource.from_contents(_schema(uri)))  # type: ignore[call-arg]
    return Draft202012Validator(_schema(f"{name}.json"), registry=registry)


def _schema(file: str) -> Any:
    return json.loads(resources.files("qir").joinpath("schemas", file).read_text(encoding="utf-8"))


def floats(given: Any, at: str) -> np.ndarray:
    """A number or a nested list of numbers as float32. Raises QirError unless they are finite in float32."""
    array = _array(given, at)
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)
    if not np.all(np.isfinite(single)):
        refuse(at, "this number is not finite in float32")
    return single


def integers(given: Any, at: str) -> np.ndarray:
    """A number or a nested list of whole numbers as int64. Raises QirError for others."""
    array = _array(given, at)
    if not np.all(np.isfinite(array)) or np.any(array != np.rint(array)) or np.any(np.abs(array) > LARGEST):
        refuse(at, "expected whole numbers", "fractional zero points are not supported")
    return array.astype(np.int64)


def _array(given: Any, at: str) -> np.ndarray:
    if not _numeric(given):
        refuse(at, "expected a number or a list of numbers")
    try:
        return np.array(given, np.float64)
    except (ValueError, OverflowError):
        refuse(at, "the lists differ in length, or are nested too deeply")


def _numeric(given: Any) -> bool:
    """Whether it is a number or a nest of lists of them, of at most 8 levels; none of the lists empty."""
    level = [given]
    for _ in range(9):
        kinds = set(map(type, level))
        if kinds and kinds <= {int, float}:
            return True
        if kinds != {list}:
            return False
        level = [item for part in level for item in part]
    return False
