"""AIMET's QuantSim configs as placements.

The sections of a config are ranks: `defaults`, `params`, `op_type`, `supergroups`, `model_input`, `model_output`, and
the kernels of operators. A later one counts more; two rules of one section that disagree are an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from qir.graph import Node
from qir.ops import COMPOSITES, definition
from qir.placement.aimet_files import FOLDER, read_config, refusal
from qir.placement.groups import precedes_norm
from qir.placement.placement import FLOATS, Grid, Group, OperandRule, Parameter, Placement, Rule, Writes
from qir.traits import KeepsGrid

DEFAULTS, PARAMS, OP_TYPE, MODEL_INPUT, MODEL_OUTPUT, KERNELS = 0, 1, 2, 4, 5, 6
WRITES: dict[bool | None, Writes | None] = {None: None, True: "always", False: "never"}


def placement(
    config: str, activation: Grid | None = None, weight: Grid | None = None, per_channel: bool | None = None
) -> Placement:
    """The placement of the config called `config`, or in that file, with grids of 8 bits unless others are given.

    Raises QirError, with the path into the JSON, for a config that means nothing or contradicts itself.
    """
    found = read_config(config)
    made = _Config(found.name, found.document, found.shipped, activation or Grid(), weight or Grid())
    return made.placement(per_channel)


@dataclass
class _Config:
    """One config and the grids that were asked for. What of it is `shipped` with qir is meant for any model."""

    file: str
    document: Mapping[str, Any]
    shipped: Mapping[str, Any]
    wanted_activation: Grid
    wanted_weight: Grid

    def placement(self, per_channel: bool | None) -> Placement:
        defaults = self.document["defaults"]
        both = Grid("int", 8, narrow=defaults.get("strict_symmetric"), unsigned=defaults.get("unsigned_symmetric"))
        ops, params = defaults.get("ops", {}), defaults.get("params", {})
        activation = self.wanted_activation.over(replace(both, symmetric=ops.get("is_symmetric", False)))
        weight = self.wanted_weight.over(replace(both, symmetric=params.get("is_symmetric", False)))
        channels = defaults.get("per_channel_quantization", False) if per_channel is None else per_channel
        self._contradictions()
        return Placement(
            self.file,
            activation,
            {"*": weight},
            (*self._general(ops, params, channels), *self._op_types(activation, weight)),
            tuple(self._groups()),
            tuple(self._hardware("operand", self._operand)),
            self._edge("model_input", "is_input_quantized", MODEL_INPUT),
            self._edge("model_output", "is_output_quantized", MODEL_OUTPUT),
            why_float=self._why_float,
            remarks=tuple(self._remarks(activation, weight)),
        )

    def _why_float(self, op: str) -> str:
        if definition(op).trait(KeepsGrid) is not None:
            return "its result lies on the grid of what it reads"
        return f"{self.file} does not quantize {op}"

    def _is_shipped(self, section: str, name: str) -> bool:
        """Whether a config that comes with qir says the same."""
        return bool(self.shipped.get(section, {}).get(name) == self.document[section][name])

    def source(self, *keys: str | int) -> str:
        return f"{self.file}: {'.'.join(map(str, keys))}"

    # -- rules -------------------------------------------------------------------------------------------------------

    def _general(self, ops: Mapping[str, Any], params: Mapping[str, Any], channels: bool) -> Iterator[Rule]:
        """The sections `defaults` and `params`."""
        where = self.source("defaults.ops")
        reads, writes = ops.get("is_input_quantized"), WRITES[ops.get("is_output_quantized")]
        yield Rule(where, DEFAULTS, reads=reads or None, writes=writes, general=True)
        every = {"*": Parameter(bool(params.get("is_quantized")))}
        where = self.source("defaults.params")
        yield Rule(where, DEFAULTS, parameters=every, per_channel=channels, general=True)
        for name, said in self.document["params"].items():
            yield Rule(self.source("params", name), PARAMS, parameters={name: _parameter(said)},
                       general=self._is_shipped("params", name))  # fmt: skip

    def _op_types(self, activation: Grid, weight: Grid) -> Iterator[Rule]:
        """The section `op_type`, and what the hardware and the operators' kernels change."""
        for name, said in self.document["op_type"].items():
            limits = said.get("encoding_constraints", {})
            yield Rule(
                self.source("op_type", name),
                OP_TYPE,
                operators(name),
                reads=said.get("is_input_quantized"),
                refuses=said.get("is_input_quantized") is False,
                writes=WRITES[said.get("is_output_quantized")],
                activation=Grid(symmetric=said.get("is_symmetric")),
                parameters={key: _parameter(value) for key, value in said.get("params", {}).items()},
                general=self._is_shipped("op_type", name),
                per_channel=said.get("per_channel_quantization"),
                limits=(limits.get("min"), limits.get("max")) if limits else None,
            )
        yield from self._hardware("parameter", self._like_output)
        for name, said in self.document["op_type"].items():
            kernels = said.get("supported_kernels", [])
            if kernels and not any(_fits(kernel, activation, weight) for kernel in kernels):
                first = kernels[0]
                source = self.source("op_type", name, "supported_kernels[0]")
                yield Rule(source, KERNELS, operators(name), activation=_grid(first["activation"]),
                           parameters={"*": Parameter(grid=_grid(first["param"]))} if "param" in first else {},
                           agrees=True)  # fmt: skip

    def _edge(self, section: str, key: str, rank: int) -> Rule | None:
        """The rule for tensors that enter or leave the graph."""
        said = self.document[section].get(key)
        if said is False:
            raise refusal(self.file, f"$.{section}.{key}", "it can only be True", "leave the key out")
        return Rule(self.source(section), rank) if said else None

    # -- groups ------------------------------------------------------------------------------------------------------

    def _groups(self) -> Iterator[Group]:
        """The section `supergroups`; and every layer that a batch norm folds into, as a group of its own."""
        for number, said in enumerate(self.document["supergroups"]):
            steps = said["op_list"]
            edges = said.get("edges") or [[step, step + 1] for step in range(len(steps) - 1)]
            self._check_edges(f"$.supergroups[{number}].edges", len(steps), edges)
            source = self.source(f"supergroups[{number}]")
            yield Group(source, tuple(map(_named, steps)), tuple((a, b) for a, b in edges),
                        folds_norms=True, general=said in self.shipped.get("supergroups", ()))  # fmt: skip
        yield Group(f"{self.file}: batch norms that fold", (precedes_norm,), (), folds_norms=True, general=True)

    def _check_edges(self, at: str, steps: int, edges: list[list[int]]) -> None:
        """Raise QirError unless the edges go forward and lead from every step to the last."""
        for source, reader in edges:
            if not source < reader < steps:
                message = f"[{source}, {reader}] does not lead from a step to a later one of {steps}"
                raise refusal(self.file, at, message)
        idle = next((step for step in range(steps - 1) if all(step != source for source, _ in edges)), None)
        if idle is not None:
            raise refusal(self.file, at, f"step {idle} leads nowhere", "every path ends at the last operator")

    # -- hardware ----------------------------------------------------------------------------------------------------

    def _hardware(self, kind: str, make: Any) -> Iterator[Any]:
        version = str(self.document["defaults"].get("hw_version", "")).upper()
        return (make(version, entry) for entry in _tables("hardware")[kind] if version in entry["hw_version"])

    def _operand(self, version: str, entry: Mapping[str, Any]) -> OperandRule:
        given = entry.get("given", {})
        grid = Grid(bits=entry.get("bits"), symmetric=entry.get("symmetric"))
        return OperandRule(f"hw_version {version}", operators(entry["op_type"]), entry["input"], grid,
                           given.get("input"), given.get("bits"))  # fmt: skip

    def _like_output(self, version: str, entry: Mapping[str, Any]) -> Rule:
        like = {entry["name"]: Parameter(like_output=True)}
        return Rule(f"hw_version {version}", OP_TYPE, operators(entry["op_type"]), parameters=like, general=True)

    # -- what is wrong -----------------------------------------------------------------------------------------------

    def _contradictions(self) -> None:
        """Raise QirError where two names of one operator are given different settings, or limits are none."""
        seen: dict[tuple[str, str], tuple[str, Any]] = {}
        for name, said in self.document["op_type"].items():
            limits = said.get("encoding_constraints", {})
            if "min" in limits and "max" in limits and not limits["min"] < limits["max"]:
                at = f"$.op_type.{name}.encoding_constraints"
                raise refusal(self.file, at, f"min {limits['min']} is not below max {limits['max']}")
            for op in operators(name):
                for key, value in said.items():
                    before = seen.setdefault((op, key), (name, value))
                    if before[1] != value:
                        message = f"it contradicts $.op_type.{before[0]}.{key}: both are about {op}"
                        raise refusal(self.file, f"$.op_type.{name}.{key}", message, "keep one of the two")

    def _remarks(self, activation: Grid, weight: Grid) -> Iterator[tuple[str, str]]:
        """What the config says without effect."""
        if self.document == self.shipped:
            return
        kernels = self.document["defaults"].get("supported_kernels", [])
        if kernels and not any(_fits(kernel, activation, weight) for kernel in kernels):
            pair = f"{activation.dtype} activations with {weight.dtype} parameters"
            yield self.source("defaults.supported_kernels"), f"it lists no kernel for {pair}, which were asked for"
        for name, said in self.document["op_type"].items():
            if len(said.get("encoding_constraints", ())) == 1:
                yield self.source("op_type", name, "encoding_constraints"), "one end fixes no range: data decides"
        if self.document.get("supergroup_pass_list"):
            yield self.source("supergroup_pass_list"), "these operators are whole in the graph already"
        for name in self.document["op_type"]:
            if not operators(name):
                yield self.source("op_type", name), "there is no operator of this name"
        for number, group in enumerate(self.document["supergroups"]):
            for name in group["op_list"]:
                if not operators(name):
                    yield self.source(f"supergroups[{number}]"), f"there is no operator {name!r}"


def operators(name: str) -> frozenset[str]:
    """The operators of the graph that an AIMET config calls `name`; none for a name that means nothing."""
    from qir.errors import QirError

    aliases = _tables("operators").get(name)
    if aliases is not None:
        return frozenset(aliases)
    try:
        return frozenset([definition(name).name])
    except QirError:
        return frozenset(op for op in COMPOSITES if op == f"qir.{name}")


def _named(name: str) -> Any:
    ops = operators(name)

    def step(node: Node) -> bool:
        return node.op in ops

    return step


@cache
def _tables(name: str) -> Mapping[str, Any]:
    import tomllib

    return tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))


def _parameter(said: Mapping[str, Any]) -> Parameter:
    return Parameter(said.get("is_quantized"), Grid(symmetric=said.get("is_symmetric")))


def _grid(kernel: Mapping[str, Any]) -> Grid:
    """The grid of one side of a kernel."""
    if kernel["dtype"] == "float":
        return Grid(FLOATS[8 if kernel["bitwidth"] == 8 else 16])
    return Grid("int", kernel["bitwidth"])


def _fits(kernel: Mapping[str, Any], activation: Grid, weight: Grid) -> bool:
    """Whether the kernel is for these grids; without a parameter it is for any."""
    sides = [(kernel["activation"], activation), (kernel.get("param"), weight)]
    return all(
        side is None or ((side["dtype"] == "float") == (grid.format != "int") and side["bitwidth"] == grid.width)
        for side, grid in sides
    )
