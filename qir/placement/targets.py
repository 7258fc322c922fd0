"""Target profiles: what a runtime computes with integers, as data. A profile is one TOML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from qir.errors import QirError
from qir.extensions import listed
from qir.graph import Node
from qir.ops import definition
from qir.placement.costs import Costs, KernelCost
from qir.placement.placement import Grid, Group, Parameter, Placement, Rule
from qir.traits import Clamps, MovesData

FOLDER = Path(__file__).parent / "targets"

ENTRY_POINTS = "qir.targets"
"""The entry point group in which a package lists its profiles: `my-npu = "my_package"`, where my-npu.toml lies."""


@dataclass(frozen=True)
class Target:
    """A runtime, as far as quantization is concerned. Fields have the meaning that the profile's comments give.

    `target(source)` is this profile: `source` is its name, or its file.
    """

    name: str
    source: str
    description: str
    opset: int
    ir_version: int
    activation: Grid
    weight: Grid
    per_channel: bool
    bias: str
    activation_dtypes: tuple[str, ...]
    weight_dtypes: tuple[str, ...]
    integer: frozenset[str]
    same_grid: frozenset[str]
    float_output: frozenset[str]
    absorbs_clamp: frozenset[str]
    float_input: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    sum_before: frozenset[str] = frozenset()
    slower_as_integer: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    costs: Costs | None = None

    def reason_for_float(self, op: str) -> str:
        """Why the target computes `op` in float."""
        return self.slower_as_integer.get(op, f"{self.name} has no integer kernel for {op}")

    def placement(
        self, activation: Grid | None = None, weight: Grid | None = None, per_channel: bool | None = None
    ) -> Placement:
        """What is to be quantized for the target. What is given takes the place of the profile's own.

        Raises QirError for a dtype that the target has no kernels for.
        """
        grids = (activation or Grid()).over(self.activation), (weight or Grid()).over(self.weight)
        for grid, known, what in zip(
            grids, (self.activation_dtypes, self.weight_dtypes), ("tensors", "weights"), strict=True
        ):
            if not any(_holds(Grid.of(dtype), grid) for dtype in known):
                message = f"{self.name} has no kernel for {what} of {grid.dtype}"
                raise QirError(message, stage="target", help=f"it has kernels for {', '.join(known)}")
        bias = Grid() if self.bias == "float" else replace(Grid.of(self.bias), product=True)
        return Placement(
            self.name,
            grids[0],
            {"weight": grids[1], "bias": bias, "*": grids[1]},
            tuple(self._rules(self.per_channel if per_channel is None else per_channel)),
            (self._absorption(),),
            costs=self.costs,
            why_float=self.reason_for_float,
        )

    def _rules(self, per_channel: bool) -> list[Rule]:
        table = {"weight": Parameter(True, per_feature=per_channel)}
        quantized = {"weight": Parameter(True), "bias": Parameter(self.bias != "float")}
        movers = frozenset(op for op in self.same_grid if not _computes(op))
        kernels = (self.integer | self.same_grid) - movers

        def rule(key: str, ops: frozenset[str], **settings: Any) -> Rule:
            return Rule(f"{self.name}: operators.{key}", 0, ops, general=True, **settings)

        return [
            rule("integer", kernels, reads=True, writes="always", parameters=quantized, per_channel=per_channel),
            rule("float_output", self.float_output & kernels, writes="if-read"),
            rule("float_input", self.float_input, writes="if-read"),
            rule("same_grid", movers, writes="as-read"),
            rule("tables", self.tables, parameters=table),
        ]

    def _absorption(self) -> Group:
        """A kernel and the clamp after it."""

        def kernel(node: Node) -> bool:
            return node.op in self.absorbs_clamp

        return Group(f"{self.name}: operators.absorbs_clamp", (kernel, _clamps), ((0, 1),), kernel=0, general=True)


def _clamps(node: Node) -> bool:
    """Whether the node limits its operand to a range that is known."""
    trait = node.definition.trait(Clamps)
    return trait is not None and trait.range(node) is not None


def _computes(op: str) -> bool:
    return definition(op).trait(MovesData) is None


def _holds(kernel: Grid, grid: Grid) -> bool:
    """Whether a kernel for one dtype can read tensors of another: narrower integers are integers too."""
    same = (kernel.format, kernel.dtype[0]) == (grid.format, grid.dtype[0])
    return same and (kernel.bits or 0) >= (grid.bits or 0)


@cache
def _installed() -> dict[str, str]:
    return listed(ENTRY_POINTS)


def target_names() -> list[str]:
    """The names of the profiles that come with qir and with installed packages."""
    return sorted({*(path.stem for path in FOLDER.glob("*.toml")), *_installed()})


def target(name: str) -> Target:
    """The profile called `name`, or the one in the file `name` if it ends in `.toml`.

    Raises QirError for an unknown name and for a profile that is not complete.
    """
    return _target(name) if name.endswith(".toml") else _named(name)


@cache
def _named(name: str) -> Target:
    """A profile that comes with qir or with a package."""
    return _target(name)


def _file(name: str) -> Path:
    """Where the profile is: its own file, one that comes with qir, or one of a package; there may be none.

    Raises QirError for a profile of a package that can not be imported.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    package = _installed().get(name)
    if path.is_file() or package is None:
        return path
    try:
        return Path(str(files(package))) / f"{name}.toml"
    except (ImportError, TypeError) as error:
        help = "repair or uninstall the package that lists it"
        raise QirError(f"the target profile {name!r} is not to be had from {package}: {error}", help=help) from error


def _target(name: str) -> Target:
    data = profile_data(name)
    stem = Path(name).stem if name.endswith(".toml") else name
    try:
        return _read(stem, name, data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise QirError(
            f"the profile {stem}.toml is not complete: {error}", stage="target",
            help='ort-x86-vnni.toml shows every field; extends = "ort-x86-vnni" takes over what is left out',
        ) from None  # fmt: skip


def profile_data(name: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """What the profile's file says, over what it extends. Raises QirError when it can not be read."""
    import tomllib

    path = _file(name)
    if not path.is_file():
        near = get_close_matches(name, target_names(), 1)
        help = f"did you mean {near[0]!r}?" if near else f"profiles are {', '.join(target_names())}, or a .toml file"
        raise QirError(f"there is no target profile {name!r}", help=help)
    if name in below:
        raise QirError(f"the profile {name} extends itself", stage="target", help="take out one 'extends'")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise QirError(f"{path.name} is not TOML: {error}", stage="target") from None
    base = data.pop("extends", None)
    if base is None:
        return data
    beside = str(path.parent / str(base)) if str(base).endswith(".toml") else str(base)
    return _merged(profile_data(beside, (*below, name)), data)


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables as one: tables in them are merged in turn, anything else of `over` counts."""
    merged = dict(under)
    for key, value in over.items():
        before = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        merged[key] = _merged(before, value) if both else value  # type: ignore[arg-type]
    return merged


def _read(name: str, source: str, data: dict[str, Any]) -> Target:
    operators, weight, activation = data["operators"], data["weight"], data["activation"]
    _known(
        name,
        data,
        ("description", "opset", "ir_version", "activation", "weight", "bias", "operators", "limits", "costs"),
    )
    _known(name, operators, (*LISTS, *OPTIONAL_LISTS, "slower_as_integer"), "operators.")
    bias = str(data["bias"]["dtype"])
    if bias != "float":
        Grid.of(bias)
    return Target(
        name=name,
        source=source,
        description=str(data["description"]),
        opset=int(data["opset"]),
        ir_version=int(data["ir_version"]),
        activation=_grid(activation),
        weight=_grid(weight),
        per_channel=bool(weight["per_channel"]),
        bias=bias,
        activation_dtypes=tuple(activation.get("kernels", [activation["dtype"]])),
        weight_dtypes=tuple(weight.get("kernels", [weight["dtype"]])),
        **{key: _operators(name, key, operators[key]) for key in LISTS},
        **{key: _operators(name, key, operators.get(key, [])) for key in OPTIONAL_LISTS},
        slower_as_integer=dict(operators.get("slower_as_integer", {})),
        limits={key: int(value) for key, value in data.get("limits", {}).items()},
        costs=None if "costs" not in data else _costs(name, data["costs"]),
    )


LISTS = ("integer", "same_grid", "float_output", "absorbs_clamp")
OPTIONAL_LISTS = ("float_input", "tables", "sum_before")


def _known(profile: str, table: Mapping[str, Any], keys: tuple[str, ...], where: str = "") -> None:
    """Raise QirError for a key that means nothing."""
    for key in table:
        if key not in keys:
            near = get_close_matches(key, keys, 1)
            help = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(keys)}"
            raise QirError(f"the profile {profile} has an unknown key {where}{key}", stage="target", help=help)


def _operators(profile: str, key: str, names: list[str]) -> frozenset[str]:
    """The operators of a list in a profile. Raises QirError for a name that no operator has."""
    for name in names:
        try:
            definition(name)
        except QirError as error:
            message = f"the list {key!r} of the profile {profile}: {error.message}"
            raise QirError(message, stage="target", help=error.help) from None
    return frozenset(names)


def _grid(data: dict[str, Any]) -> Grid:
    try:
        return Grid.of(data["dtype"], bool(data["symmetric"]), bool(data.get("narrow", False)))
    except QirError as error:
        raise ValueError(error.message) from None


def _costs(profile: str, data: dict[str, Any]) -> Costs:
    """The cost table of a profile."""
    tables = {key: data.get(key, {}) for key in ("kernels", "tensors", "groups")}
    for key, table in tables.items():
        _operators(profile, f"costs.{key}", list(table))
    return Costs(
        float(data["quantize"]),
        float(data["dequantize"]),
        float(data["gain"]),
        **{key: {op: KernelCost(**cost) for op, cost in table.items()} for key, table in tables.items()},
    )
