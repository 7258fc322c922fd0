"""Target profiles: what a runtime computes with integers, as data. A profile is one TOML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from qir.encodings import Encoding
from qir.errors import QirError
from qir.ops import definition
from qir.types import integer_range

FOLDER = Path(__file__).parent / "targets"


@dataclass(frozen=True)
class Target:
    """A runtime, as far as quantization is concerned. Fields have the meaning that the profile's comments give."""

    name: str
    description: str
    opset: int
    ir_version: int
    activation: Encoding
    weight: Encoding
    per_channel: bool
    bias: str
    integer: frozenset[str]
    same_grid: frozenset[str]
    float_output: frozenset[str]
    absorbs_clamp: frozenset[str]
    slower_as_integer: dict[str, str] = field(default_factory=dict)

    def reason_for_float(self, op: str) -> str:
        """Why the target computes `op` in float."""
        return self.slower_as_integer.get(op, f"{self.name} has no integer kernel for {op}")


def target_names() -> list[str]:
    """The names of the profiles that come with qir."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


@cache
def target(name: str) -> Target:
    """The profile called `name`, or the one in the file `name` if it ends in `.toml`.

    Raises QirError for an unknown name and for a profile that is not complete.
    """
    import tomllib

    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        near = get_close_matches(name, target_names(), 1)
        help = f"did you mean {near[0]!r}?" if near else f"profiles are {', '.join(target_names())}, or a .toml file"
        raise QirError(f"there is no target profile {name!r}", help=help)
    try:
        return _read(path.stem, tomllib.loads(path.read_text()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QirError(f"{path.name} is not TOML: {error}", stage="target") from None
    except (KeyError, TypeError, ValueError) as error:
        raise QirError(
            f"the profile {path.name} is not complete: {error}", stage="target",
            help=f"{FOLDER.name}/ort-x86.toml shows every field",
        ) from None  # fmt: skip


def _read(name: str, data: dict[str, Any]) -> Target:
    operators = data["operators"]
    return Target(
        name=name,
        description=data["description"],
        opset=int(data["opset"]),
        ir_version=int(data["ir_version"]),
        activation=_grid(data["activation"]),
        weight=_grid(data["weight"]),
        per_channel=bool(data["weight"]["per_channel"]),
        bias=data["bias"]["dtype"],
        **{key: _operators(name, key, operators[key]) for key in LISTS},
        slower_as_integer=dict(operators.get("slower_as_integer", {})),
    )


LISTS = ("integer", "same_grid", "float_output", "absorbs_clamp")


def _operators(profile: str, key: str, names: list[str]) -> frozenset[str]:
    """The operators of a list in a profile. Raises QirError for a name that no operator has."""
    for name in names:
        try:
            definition(name)
        except QirError as error:
            message = f"the list {key!r} of the profile {profile}: {error.message}"
            raise QirError(message, stage="target", help=error.help) from None
    return frozenset(names)


def _grid(data: dict[str, Any]) -> Encoding:
    integer_range(data["dtype"])
    return Encoding(data["dtype"], bool(data["symmetric"]), None, bool(data.get("narrow", False)))
