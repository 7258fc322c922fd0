"""What gets quantizers, and which: the one description that `insert-quantizers` reads.

A target profile (`targets.py`) and an AIMET config (`aimet_config.py`) are two ways of writing it down, and a rules
file (`rules.py`) adds to either. A placement is a list of rules; each settles some things for some operators, and what
a later rule settles, an earlier one does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Literal

from qir.encodings.encoding import Encoding, FloatEncoding
from qir.facts import computes
from qir.graph import Node
from qir.placement.costs import Costs
from qir.traits import Elementwise, KeepsGrid, Weighted

Writes = Literal["always", "if-read", "as-read", "never"]
"""When results are quantized: always; if an operator wants to read them so; if what is moved is quantized; never."""

FLOATS = {8: "f8e4m3", 16: "f16"}
"""The float format of a width, where only that is said."""


@dataclass(frozen=True)
class Grid:
    """What a rule says about a grid. A field that is None is left to the rules before it.

    `format` is `int` or a float format; integers are signed where `signed` says so, or else where they are symmetric.
    `product` is the grid of a bias: that of the accumulator which it joins.
    """

    format: str | None = None
    bits: int | None = None
    symmetric: bool | None = None
    signed: bool | None = None
    narrow: bool | None = None
    unsigned: bool | None = None
    product: bool | None = None

    @classmethod
    def of(cls, dtype: str, symmetric: bool | None = None, narrow: bool | None = None) -> Grid:
        """The grid of a dtype, `u8` or `f16` for instance. Raises QirError when no grid has that dtype."""
        if dtype.startswith(("i", "u")) and dtype[1:].isdecimal():
            Encoding(dtype)
            return cls("int", int(dtype[1:]), symmetric, dtype.startswith("i"), narrow)
        return cls(FloatEncoding(dtype).dtype)

    def over(self, before: Grid) -> Grid:
        """This grid, with the fields of `before` where it leaves them open."""
        mine = {name.name: getattr(self, name.name) for name in fields(self)}
        return replace(before, **{name: value for name, value in mine.items() if value is not None})

    @property
    def dtype(self) -> str:
        """The dtype of the encoding."""
        if self.format not in (None, "int"):
            return str(self.format)
        signed = self.symmetric if self.signed is None else self.signed
        return f"{'i' if signed else 'u'}{self.bits or 8}"

    @property
    def width(self) -> int:
        """The number of bits."""
        return (self.bits or 8) if self.format in (None, "int") else FloatEncoding(self.dtype).bits

    def encoding(self, axis: int | None = None) -> Encoding:
        """A new encoding for one tensor, not calibrated."""
        if self.format not in (None, "int"):
            return FloatEncoding(self.dtype, axis=axis if self.dtype.startswith("f8") else None)
        symmetric = bool(self.symmetric)
        unsigned = bool(self.unsigned) and symmetric
        return Encoding(self.dtype, symmetric, axis, symmetric and bool(self.narrow), unsigned=unsigned)


@dataclass(frozen=True)
class Parameter:
    """What a rule says about a parameter: whether it is quantized, and on which grid."""

    quantized: bool | None = None
    grid: Grid = Grid()
    like_output: bool | None = None
    """Whether its width and symmetry are those of the operator's result."""
    per_feature: bool | None = None
    """Whether a table that the operator looks up has a scale for each feature of its rows."""


@dataclass(frozen=True, eq=False)
class Rule:
    """Settings for the operators that it matches. What is None is left to the rules before it.

    `ops` and the glob `layer` (on the layer's path) both have to match; a rule with neither matches every operator that
    computes new values, and every parameter. The glob `tensor` matches one tensor by its name in the graph's text.
    Rules of one `rank` must not contradict each other; a higher rank wins. `parameters` go by name, `*` for all.
    `general` rules are not about this model: it is no news that one matches nothing.
    """

    source: str
    rank: int
    ops: frozenset[str] | None = None
    layer: str | None = None
    tensor: str | None = None
    off: str | None = None
    reads: bool | None = None
    writes: Writes | None = None
    activation: Grid = Grid()
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    per_channel: bool | None = None
    limits: tuple[float | None, float | None] | None = None
    refuses: bool = False
    """Whether no one may read quantized what these operators read."""
    agrees: bool = False
    """Whether a float format for activations holds only where the operators around have it too."""
    general: bool = False

    def matches(self, node: Node) -> bool:
        """Whether the rule says something about the operator."""
        if self.tensor is not None:
            return False
        if self.ops is None and self.layer is None and not self.parameters:
            return computes(node) and node.definition.trait(KeepsGrid) is None
        named = self.layer is None or fnmatchcase(node.module or "", self.layer)
        return named and (self.ops is None or node.op in self.ops)

    def matches_tensor(self, name: str) -> bool:
        """Whether the rule says something about the one tensor of this name."""
        return self.tensor is not None and fnmatchcase(name, self.tensor)


@dataclass(frozen=True, eq=False)
class Group:
    """Operators that a kernel computes together: nothing between them is quantized.

    `steps` say which nodes may stand where, `edges` which step reads which (a chain has each read the one before).
    The result of the last step is quantized as that of the step `kernel` would be.
    """

    source: str
    steps: tuple[Callable[[Node], bool], ...]
    edges: tuple[tuple[int, int], ...]
    kernel: int = -1
    folds_norms: bool = False
    """Whether a batch norm that can be folded into a step counts as a part of it."""
    general: bool = False


@dataclass(frozen=True, eq=False)
class OperandRule:
    """A grid for what operand `port` of these operators is read from, if the operand `given` has `given_bits`."""

    source: str
    ops: frozenset[str]
    port: int
    grid: Grid
    given: int | None = None
    given_bits: int | None = None


@dataclass(frozen=True)
class Placement:
    """What is quantized, and how. `name` is said in messages, `why_float` of an operator that no rule quantizes.

    `costs` are those of a runtime's kernels: with them an operator beside a float operator is quantized only where that
    is faster. `inputs` and `outputs` are the rules for tensors that enter and leave the graph.
    """

    name: str
    activation: Grid
    parameters: Mapping[str, Grid]
    rules: tuple[Rule, ...]
    groups: tuple[Group, ...] = ()
    operands: tuple[OperandRule, ...] = ()
    inputs: Rule | None = None
    outputs: Rule | None = None
    costs: Costs | None = None
    why_float: Callable[[str], str] = lambda op: f"no rule quantizes {op}"
    remarks: tuple[tuple[str, str], ...] = ()
    """What has no effect in the rules, whatever the graph: source and reason."""


@dataclass(frozen=True)
class Settled:
    """A setting, and the rule that settled it."""

    value: bool | Writes
    rule: Rule


@dataclass(frozen=True)
class Settings:
    """What all rules together say of one operator."""

    activation: Grid
    parameters: Mapping[str, Parameter]
    sources: Mapping[str, str]
    """Where it is said that a parameter is quantized or not, by name."""
    reads: Settled | None = None
    writes: Settled | None = None
    off: Rule | None = None
    per_channel: bool = False
    limits: tuple[float | None, float | None] | None = None
    agrees: bool = False

    @property
    def quantizes(self) -> bool:
        """Whether the operator reads or writes quantized tensors, or has quantized parameters."""
        reads = self.reads is not None and bool(self.reads.value)
        writes = self.writes is not None and self.writes.value != "never"
        return self.off is None and (reads or writes or any(part.quantized for part in self.parameters.values()))


def settings(placement: Placement, node: Node, matched: set[Rule] | None = None) -> Settings:
    """What the rules say of `node`; those that say something are added to `matched`."""
    found = Settings(placement.activation, {}, {})
    names = parameter_names(node).values()
    for rule in placement.rules:
        if rule.matches(node):
            found = _after(found, rule, {name: _base(placement, node, name) for name in names})
            if matched is not None and (rule.ops is not None or not rule.parameters or rule.parameters.keys() & names):
                matched.add(rule)
    return found


def _after(found: Settings, rule: Rule, grids: Mapping[str, Grid]) -> Settings:
    """The settings, with those of one more rule over them; `grids` are those of the parameters before any rule."""
    parameters, sources = dict(found.parameters), dict(found.sources)
    for name, grid in grids.items():
        said = rule.parameters.get(name, rule.parameters.get("*"))
        if said is None:
            continue
        before = parameters.get(name, Parameter(None, grid))
        quantized = before.quantized if said.quantized is None else said.quantized
        like = before.like_output if said.like_output is None else said.like_output
        per_feature = before.per_feature if said.per_feature is None else said.per_feature
        parameters[name] = Parameter(quantized, said.grid.over(before.grid), like, per_feature)
        if said.quantized is not None:
            sources[name] = rule.source
    return Settings(
        rule.activation.over(found.activation),
        parameters,
        sources,
        found.reads if rule.reads is None else Settled(rule.reads, rule),
        found.writes if rule.writes is None else Settled(rule.writes, rule),
        rule if rule.off is not None else found.off,
        found.per_channel if rule.per_channel is None else rule.per_channel,
        rule.limits or found.limits,
        found.agrees if rule.activation.format is None else rule.agrees and rule.activation.format != "int",
    )


def _base(placement: Placement, node: Node, name: str) -> Grid:
    """The grid of a parameter before any rule; one of an accumulator is for operators that have one."""
    every = placement.parameters["*"]
    grid = placement.parameters.get(name, every)
    return every if grid.product and node.definition.trait(Weighted) is None else grid


PARAMETER_NAMES = {
    "scale": "weight", "Scale": "weight", "slope": "weight", "W": "weight", "R": "weight", "weight": "weight",
    "data": "weight", "B": "bias", "bias": "bias", "input_mean": "running_mean", "input_var": "running_var",
}  # fmt: skip
"""What layers call the operands that ONNX calls so."""


def parameter_names(node: Node) -> dict[int, str]:
    """What a layer calls the operands that are its parameters, by port: `weight`, `bias`, …

    A bias is one even where it is computed; what else is computed is an activation.
    """
    definition, operands = node.definition, node.operands
    weighted = definition.trait(Weighted)
    if weighted is not None:
        named = {weighted.weight: "weight"} if operands[weighted.weight].weight is not None else {}
        has_bias = weighted.bias is not None and weighted.bias < len(operands) and operands[weighted.bias] is not None
        return {**named, weighted.bias: "bias"} if has_bias and weighted.bias is not None else named
    second_factor = {"B"} if definition.trait(Elementwise) is not None else set()
    return {
        port: PARAMETER_NAMES[name]
        for port, (name, value) in enumerate(zip(definition.operands, operands, strict=False))
        if value is not None and value.weight is not None and name in PARAMETER_NAMES and name not in second_factor
    }
