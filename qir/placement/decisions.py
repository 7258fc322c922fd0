"""Decides which operators and tensors are quantized, and says why, for every one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from qir.errors import QirError
from qir.facts import computes, is_quantizer
from qir.graph import Graph, Node, Use, Value
from qir.placement.flow import Flow, is_float
from qir.placement.groups import matches
from qir.placement.infinities import counted_values, infinite_values
from qir.placement.placement import Grid, Placement, Rule, Settings, Settled, settings
from qir.placement.regions import slower_on_integers
from qir.rewrite import Note
from qir.text.printing import value_names
from qir.traits import Weighted


@dataclass(frozen=True)
class Tensor:
    """What is decided about one tensor. `uses` are those that read it quantized, None for all of them."""

    value: Value
    reason: str
    grid: Grid | None = None
    uses: tuple[Use, ...] | None = None
    limits: tuple[float | None, float | None] | None = None


@dataclass
class Decisions:
    """The decisions for one graph. Raises QirError, while it decides, for rules that contradict each other."""

    graph: Graph
    placement: Placement
    settings: dict[Node, Settings] = field(default_factory=dict)
    why_float: dict[Node, str] = field(default_factory=dict)
    unmatched: list[Note] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = [node for node in self.graph.nodes() if not is_quantizer(node)]
        self.names = value_names(self.graph)
        self.matched: set[Rule] = set()
        self.never: dict[Node, Settled] = {}
        for node in self.nodes:
            found = settings(self.placement, node, self.matched)
            reason = self._obstacle(node, found)
            if reason is None:
                self.settings[node] = found
            else:
                self.why_float[node] = reason
                if found.off is None and found.writes is not None and found.writes.value == "never":
                    self.never[node] = found.writes
        groups, self.unmatched, matched_groups = matches(self.graph, self.placement.groups)
        self.matched_groups = matched_groups
        self.groups = [match for match in groups if match.group.kernel == -1 or match.kernel in self.settings]
        self._leave(
            {norm: f"it folds into the {match.nodes[0].op} before it" for match in groups for norm in match.norms()}
        )
        if self.placement.costs is not None:
            self._leave(slower_on_integers(self.flow, self.placement.costs))
        self.everywhere: set[Value] = set()
        self._wanted: dict[Value, bool] = {}
        self.infinite, self.counted = infinite_values(self.nodes), counted_values(self.nodes)

    def _leave(self, reasons: dict[Node, str]) -> None:
        """Take the settings of these nodes back."""
        self.why_float |= reasons
        for node in reasons:
            self.settings.pop(node, None)
        self.groups = [match for match in self.groups if match.kernel not in reasons]
        self.flow = Flow(self.graph, self.settings, self.groups)

    def _obstacle(self, node: Node, found: Settings) -> str | None:
        """Why no rule quantizes anything at the node; None when one does."""
        if any(result.type.dtype not in ("f32", None) for result in node.results):
            return f"its result is {node.result.type}, and {self.placement.name} quantizes f32"
        if found.off is not None:
            return f"{found.off.off} ({found.off.source})"
        if not found.quantizes:
            if found.writes is not None:
                return f"its result stays in float ({found.writes.rule.source})"
            return self.placement.why_float(node.op)
        weighted, bias = node.definition.trait(Weighted), found.parameters.get("bias")
        if weighted is not None and weighted.bias is not None and bias is not None and bias.grid.product:
            value = node.operand(weighted.bias)
            if value is not None and (value.weight is None or value.type.rank != 1):
                return "its bias is not a constant vector"
        return None

    # -- operators ---------------------------------------------------------------------------------------------------

    def operators(self) -> Iterator[tuple[Node, str, bool]]:
        """Every operator that computes, with what is said of it, and whether it is quantized."""
        absorbed = {node: match for match in self.groups for node in match.nodes}
        for node in self.nodes:
            match = absorbed.get(node)
            if match is not None and match.kernel is not node and node not in self.settings:
                yield node, f"it is part of the {match.kernel.op} before it", False
            elif node in self.settings and not self.flow.moves(node):
                yield node, self._done(node), True
            elif node in self.why_float and computes(node):
                yield node, self.why_float[node], False

    def _done(self, node: Node) -> str:
        found = self.settings[node]
        wanted = found.writes is None or found.writes.value != "if-read" or self.wanted(self.flow.ends(node)[0])
        if (found.reads is None or not found.reads.value) and wanted:
            return f"is quantized ({found.writes.rule.source})" if found.writes else "its parameters are quantized"
        if not wanted:
            return "writes float32: nothing that reads it is an integer kernel"
        return "computes with integers"

    # -- tensors -----------------------------------------------------------------------------------------------------

    def tensors(self) -> Iterator[Tensor]:
        """What is decided about every float tensor that is no parameter: inputs, results, constants, in this order."""
        constants: dict[Value, None] = {}
        for value in self.graph.inputs:
            yield from self._decided(value)
        for node in self.nodes:
            for result in node.results:
                yield from self._decided(result)
            if node in self.settings:
                read = [node.operands[port] for port in self.flow.ports(node)]
                constants |= dict.fromkeys(value for value in read if value.weight is not None)
        for value in constants:
            yield from self._decided(value)

    def _decided(self, value: Value) -> Iterator[Tensor]:
        if not is_float(value):
            return
        found = list(self._tensor(value))
        if any(tensor.grid is not None and tensor.uses is None for tensor in found):
            self.everywhere.add(value)
        yield from found

    def _tensor(self, value: Value) -> Iterator[Tensor]:
        inner, own = self.flow.match_of_inner.get(value), self._own_rule(value)
        if inner is not None:
            yield Tensor(value, f"it is inside of {inner}, which one kernel computes ({inner.group.source})")
        elif value in self.infinite:
            yield Tensor(value, "it holds infinities, which no grid has")
        elif value in self.counted:
            yield Tensor(value, "nothing but integers is made of it, which its rounding would change")
        elif 0 in (value.type.shape or ()):
            yield Tensor(value, "it has no elements")
        elif own is not None and own.off is not None:
            yield Tensor(value, f"{own.off} ({own.source})")
        else:
            grid = Grid() if own is None else own.activation
            yield from self._voted(value, grid)

    def _own_rule(self, value: Value) -> Rule | None:
        """The last rule about this one tensor."""
        found = [rule for rule in self.placement.rules if rule.matches_tensor(self.names.get(value, value.hint))]
        self.matched.update(found)
        return found[-1] if found else None

    def _voted(self, value: Value, grid: Grid) -> Iterator[Tensor]:
        """What the operator that writes the tensor and those that read it want together."""
        writer = self.flow.writer(value)
        found = None if writer is None else self.settings.get(writer)
        writes = found.writes if found is not None else None if writer is None else self.never.get(writer)
        base = self.placement.activation if writer is None or found is None else self._activation(writer)
        limits = None if found is None else found.limits
        reading = self._reading(value)
        refused = self._refused(value, writes)
        if refused is not None:
            yield Tensor(value, refused)
            return
        everywhere = self._everywhere(value, writer, found)
        if everywhere is not None:
            uses = None if value.weight is None else tuple(self._activation_uses(value))
            yield Tensor(value, everywhere, grid.over(base), uses, limits)
            return
        if writes is not None and writes.value == "never" and reading:
            reading = [use for use in reading if self._overrides(use, writes.rule, value)]
        if not reading:
            yield Tensor(value, self._why_not(value, writer, found))
        by_grid: dict[Grid, list[Use]] = {}
        for use in reading:
            by_grid.setdefault(grid.over(self._activation(use.node)), []).append(use)
        for wanted, agreeing in by_grid.items():
            ops = " and ".join(dict.fromkeys(use.node.op for use in agreeing))
            yield Tensor(value, f"{ops} reads it quantized ({self._source(agreeing[0])})", wanted, tuple(agreeing))

    def _source(self, use: Use) -> str:
        reads = self.settings[use.node].reads
        return "" if reads is None else reads.rule.source

    def _everywhere(self, value: Value, writer: Node | None, found: Settings | None) -> str | None:
        """Why everything that reads the tensor reads it quantized, if it does."""
        inputs, outputs, writes = self.placement.inputs, self.placement.outputs, found.writes if found else None
        if value.is_output and outputs is not None and not _later(writes, outputs):
            return f"the graph returns it ({outputs.source})"
        if writer is None:
            enters = value.weight is None or (value.type.rank or 0) > 0
            return f"it enters the graph ({inputs.source})" if inputs is not None and enters else None
        if writes is None:
            return None
        match writes.value:
            case "always":
                return f"{writer.op} writes it ({writes.rule.source})"
            case "if-read" if self.wanted(value):
                return f"{writer.op} writes it for an operator that reads integers ({writes.rule.source})"
            case "as-read" if writer.operands[0] in self.everywhere:
                return f"{writer.op} moves what is quantized ({writes.rule.source})"
        return None

    def _reading(self, value: Value) -> list[Use]:
        """The uses by operators that read quantized tensors; data movement follows what it reads instead."""
        found = [(use, self.settings[use.node].reads) for use in self._activation_uses(value)]
        return [use for use, reads in found if reads is not None and reads.value and not self.flow.moves(use.node)]

    def _activation_uses(self, value: Value) -> list[Use]:
        """The uses of the tensor, by operators that a rule quantizes, as something that flows through the model."""
        return [use for use in value.uses if use.node in self.settings and use.port in self.flow.ports(use.node)]

    def wanted(self, value: Value) -> bool:
        """Whether an operator reads the tensor quantized, as it is or moved."""
        if value not in self._wanted:
            moved = [result for use in value.uses if self.flow.moves(use.node) for result in use.node.results]
            self._wanted[value] = bool(self._reading(value)) or any(map(self.wanted, moved))
        return self._wanted[value]

    def _overrides(self, use: Use, never: Rule, value: Value) -> bool:
        """Whether the reader's rule counts more than one that says that the tensor is not quantized."""
        reads = self.settings[use.node].reads
        assert reads is not None
        return _outranks(reads.rule, never, value)

    def _refused(self, value: Value, writes: Settled | None) -> str | None:
        """Why an operator that reads the tensor keeps it in float for everyone, if one does."""
        for use in self._activation_uses(value):
            reads, inputs = self.settings[use.node].reads, self.placement.inputs
            if reads is None or reads.value or not reads.rule.refuses:
                continue
            wanted = writes.rule if writes is not None and writes.value != "never" else None
            wanted = inputs if value.node is None and inputs is not None else wanted
            if wanted is None or _outranks(reads.rule, wanted, value):
                return f"{use.node.op} reads it in float ({reads.rule.source})"
        return None

    def _activation(self, node: Node) -> Grid:
        """The grid of what the node reads and writes; a format that its neighbours do not share is not for it."""
        found = self.settings[node]
        if not found.agrees:
            return found.activation
        sources = (self.flow.source(node.operands[port]) for port in self.flow.ports(node))
        readers = (self.flow.kernel(use.node) for end in self.flow.ends(node) for use in self.flow.readers(end))
        around = [self.settings[other] for other in (*sources, *readers) if other in self.settings]
        same = all(other.activation.format == found.activation.format for other in around)
        return found.activation if same else self.placement.activation

    def _why_not(self, value: Value, writer: Node | None, found: Settings | None) -> str:
        """Why nothing quantizes the tensor."""
        if found is not None and found.writes is not None and found.writes.value == "never":
            return f"{writer.op if writer else ''} leaves it in float ({found.writes.rule.source})"
        if found is not None:
            return "nothing that reads it reads integers"
        if writer is None:
            return "nothing that reads it reads integers, and no rule quantizes what enters the graph"
        return f"{writer.op} computes in float: {self.why_float[writer]}"


def _outranks(rule: Rule, other: Rule, value: Value) -> bool:
    """Whether `rule` counts more than `other`, which contradicts it. Raises QirError when neither does."""
    if rule.rank == other.rank:
        message = f"rules contradict each other about %{value.hint}: {rule.source} and {other.source}"
        raise QirError(message, value.node, stage="insert-quantizers", help="take one of the two out")
    return rule.rank > other.rank


def _later(writes: Settled | None, rule: Rule) -> bool:
    """Whether a setting comes from a rule after `rule`."""
    return writes is not None and writes.rule.rank > rule.rank
