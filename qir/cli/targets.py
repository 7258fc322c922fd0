"""The command `qir targets`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Mapping
from typing import Any

from qir.placement.targets import profile_data, target, target_names


def targets(arguments: Namespace) -> None:
    """List the target profiles, show one, or compare two."""
    match arguments.what, arguments.names:
        case "list", []:
            width = max(map(len, target_names()))
            print("\n".join(f"{name:{width}}  {target(name).description}" for name in target_names()))
        case "show", [name]:
            target(name)
            print("\n".join(_lines(profile_data(name))))
        case "diff", [first, second]:
            print("\n".join(_differences(first, second)) or f"{first} and {second} say the same")
        case what, names:
            from qir.errors import QirError

            takes = {"list": "no name", "show": "one name", "diff": "two names"}[what]
            raise QirError(f"qir targets {what} takes {takes}, not {len(names)}", help="qir targets --help")


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of a profile with the path to each."""
    for key, value in table.items():
        path = f"{above}.{key}" if above else key
        if isinstance(value, Mapping):
            yield from _flat(value, path)
        else:
            yield path, value


def _lines(table: Mapping[str, Any]) -> Iterator[str]:
    """A profile, one entry a line, with what it extends."""
    for path, value in _flat(table):
        yield f"{path} = {', '.join(value) if isinstance(value, list) else value}"


def _differences(first: str, second: str) -> Iterator[str]:
    """What two profiles say differently; of lists, what only one has."""
    target(first), target(second)
    a, b = dict(_flat(profile_data(first))), dict(_flat(profile_data(second)))
    for path in dict.fromkeys([*a, *b]):
        old, new = a.get(path), b.get(path)
        if old == new:
            continue
        if isinstance(old, list) and isinstance(new, list):
            yield f"{path}:"
            yield from (f"  - {name}" for name in old if name not in new)
            yield from (f"  + {name}" for name in new if name not in old)
        else:
            yield f"{path}: {'-' if old is None else old} -> {'-' if new is None else new}"
