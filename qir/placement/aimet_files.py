"""Reads AIMET configs: JSON that follows the schema, as one document with the config that it extends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from qir.errors import QirError

FOLDER = Path(__file__).parent / "aimet"
SCHEMA = Path(__file__).parent.parent / "schemas" / "aimet-config.json"


def config_names() -> list[str]:
    """The names of the configs that come with qir."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def refusal(file: str, at: str, message: str, help: str | None = None) -> QirError:
    """The error about what stands at the JSON path `at`."""
    return QirError(f"{file}: {at}: {message}", stage="config", help=help)


@dataclass(frozen=True)
class ConfigFile:
    """A config that was read: the document with what it extends, flags as bool, and what of it comes with qir."""

    name: str
    document: Mapping[str, Any]
    shipped: Mapping[str, Any]


def read_config(name: str) -> ConfigFile:
    """The config called `name`, or in the file `name` if it ends in `.json`.

    A config may name another in `extends`; its own tables are then laid over those.
    Raises QirError, with the path into the JSON, for what can not be read and for what does not follow the schema.
    """
    path = _path(name)
    document = _document(path, ())
    error = next(iter(sorted(_validator().iter_errors(document), key=lambda error: list(map(str, error.path)))), None)
    if error is not None:
        raise refusal(path.name, error.json_path, *_said(error))
    return ConfigFile(path.name, _flags(document), _flags(_shipped(path)))


def _shipped(path: Path) -> dict[str, Any]:
    """What the config says because one that comes with qir does."""
    if path.parent == FOLDER:
        return _document(path, ())
    base = json.loads(path.read_text(encoding="utf-8")).get("extends")
    return {} if base is None else _shipped(_base(path, base))


def _base(path: Path, name: Any) -> Path:
    """The file that a config in `path` extends by this name."""
    return _path(str(path.parent / str(name)) if str(name).endswith(".json") else str(name))


def _path(name: str) -> Path:
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    if not path.is_file():
        near = get_close_matches(name, config_names(), 1)
        help = f"did you mean {near[0]!r}?" if near else f"configs are {', '.join(config_names())}, or a .json file"
        raise QirError(f"there is no AIMET config {name!r}", stage="config", help=help)
    return path


def _document(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """The object in the file over the one that it extends. JSON can spell half a character, which is no text."""
    if path in below:
        raise refusal(path.name, "$.extends", "the config extends itself")
    try:
        found = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _once(path.name, pairs))
        json.dumps(found, ensure_ascii=False).encode()
    except OSError as error:
        raise QirError(f"can not read {path}: {error.strerror}", stage="config") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise refusal(path.name, "$", f"this is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise refusal(path.name, "$", "a config is one JSON object")
    base = found.pop("extends", None)
    if base is None:
        return found
    merged: dict[str, Any] = _over(_document(_base(path, base), (*below, path)), found)
    return merged


def _once(file: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise refusal(file, f"$..{key}", "this key is given twice in one object")
        found[key] = value
    return found


def _over(under: Any, over: Any) -> Any:
    """Two documents as one: objects are merged, anything else of `over` counts."""
    if not isinstance(under, Mapping) or not isinstance(over, Mapping):
        return over
    return {**under, **{key: _over(under.get(key), value) for key, value in over.items()}}


def _flags(value: Any) -> Any:
    """The document with bool for AIMET's strings; lists hold names."""
    if isinstance(value, dict):
        return {key: _flags(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item if isinstance(item, str) else _flags(item) for item in value]
    return {"True": True, "False": False}.get(value, value) if isinstance(value, str) else value


def _said(error: Any) -> tuple[str, str | None]:
    """What a schema's error means, and what to do about it."""
    shown = json.dumps(error.instance, default=str)[:60]
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema["properties"])
        unknown = sorted(set(error.instance) - set(allowed))
        near = get_close_matches(unknown[0], allowed, 1)
        return f"unknown key {unknown[0]!r}", f"did you mean {near[0]!r}?" if near else f"keys are {', '.join(allowed)}"
    if error.validator == "required":
        return error.message.replace("is a required property", "is missing"), "give it, empty ({}) if need be"
    if error.validator == "enum":
        return f"{shown} is none of {', '.join(map(str, dict.fromkeys(map(str, error.validator_value))))}", None
    return f"{shown} does not fit: {error.message[:200]}", None


@cache
def _validator() -> Any:
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
