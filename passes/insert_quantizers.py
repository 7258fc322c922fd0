"""Places quantizers where a target computes with integers, or where an AIMET config asks for them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, ProductEncoding
from qir.errors import QirError
from qir.facts import CALIBRATED, FUNCTIONALS_LIFTED, MODULES_UNROLLED, QUANTIZERS_INSERTED, is_quantizer
from qir.graph import Graph, Node, Use, Value
from qir.paths import Paths
from qir.pipeline import Pass
from qir.placement.decisions import Decisions, Tensor
from qir.placement.options import placement_of
from qir.placement.placement import Grid, Group, OperandRule, Parameter, Placement, Rule, Settings, parameter_names
from qir.quantizers import quantizer_of
from qir.rewrite import Note, Outcome
from qir.traits import LooksUp, Weighted


@dataclass(frozen=True)
class InsertQuantizers(Pass, name="insert-quantizers"):
    """Put a quantizer on every tensor that an integer kernel of the target reads or writes, or that a config names.

    A tensor has one quantizer. It stands after a Relu or Clip that the kernel before it absorbs. Weights get a grid per
    output channel, and a bias the grid of the accumulator that it joins: input scale times weight scale.

    `target` is the name or the file of a profile, `config` the name or the file of an AIMET config, `rules` a file with
    exceptions to either; layers whose paths match a glob of `exclude` stay in float. Widths and the data type are those
    of the profile or config unless they are given.

        graph @g(%x: f32[1,2]) {
          %w = weight fc.weight : f32[2,2] #0000000000000000
          %b = weight fc.bias : f32[2] #0000000000000000
          %fc = Gemm %x, %w, %b {transB=1} : f32[1,2] [fc]
          %y = HardSwish %fc : f32[1,2] [act]
          return %y
        }
        -->
        graph @g(%x: f32[1,2]) {
          %w = weight fc.weight : f32[2,2] #0000000000000000
          %b = weight fc.bias : f32[2] #0000000000000000
          %x_q = qir.Quantize %x {encoding=$x_q} : f32[1,2] [x_quantizer]
          %w_q = qir.Quantize %w {encoding=$w_q} : f32[2,2] [fc.weight_quantizer]
          %b_q = qir.Quantize %b {encoding=$b_q} : f32[2] [fc.bias_quantizer]
          %fc = Gemm %x_q, %w_q, %b_q {transB=1} : f32[1,2] [fc]
          %y = HardSwish %fc : f32[1,2] [act]
          return %y
          $x_q = u8 asymmetric
          $w_q = i8 symmetric narrow axis=0
          $b_q = i32 product $x_q $w_q
        }
    """

    needs = (FUNCTIONALS_LIFTED, MODULES_UNROLLED)
    gives = (QUANTIZERS_INSERTED,)
    breaks = (CALIBRATED,)
    numerics = "changes"

    target: str | None = None
    config: str | None = None
    rules: str | None = None
    output_bw: int | None = None
    param_bw: int | None = None
    data_type: Literal["int", "float"] | None = None
    per_channel: bool | None = None
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.placement()

    def placement(self) -> Placement:
        """What is to be quantized. Raises QirError for a profile, config or rules file that says nothing sensible."""
        return placement_of(
            self.target, self.config, self.rules, self.output_bw, self.param_bw, self.data_type, self.per_channel,
            self.exclude,
        )  # fmt: skip

    def run(self, graph: Graph) -> Outcome:
        """Insert the quantizers, and say of every operator and tensor why it has some, or none."""
        placement = self.placement()
        insertion = _Insertion(graph, placement, Decisions(graph, placement))
        outcome = insertion.run()
        if not insertion.grids:
            raise self._nothing(placement, outcome)
        return outcome

    def _nothing(self, placement: Placement, outcome: Outcome) -> QirError:
        operators = [note for note in outcome.missed if note.tensor is None and note.op]
        reasons = sorted({f"{note.op}: {note.reason}" for note in operators})
        message = f"{placement.name} computes nothing of this graph with integers"
        help = "import the model with example inputs, so that dtypes are known, or choose another target"
        return QirError(message, stage=self.name, snippet="\n".join(reasons[:20]) or None, help=help)


@dataclass
class _Insertion:
    """One run over one graph. `grids` has what every new quantizer was made from."""

    graph: Graph
    placement: Placement
    decisions: Decisions
    outcome: Outcome = field(default_factory=Outcome)
    grids: dict[Node, Grid] = field(default_factory=dict)

    def run(self) -> Outcome:
        self.paths = Paths(self.graph)
        for node, reason, quantized in list(self.decisions.operators()):
            (self.outcome.done if quantized else self.outcome.missed).append(Note.of(node, reason))
        for tensor in list(self.decisions.tensors()):
            self.activation(tensor)
        for node in self.decisions.nodes:
            self.parameters(node)
        for rule in self.placement.operands:
            for node in self.decisions.nodes:
                if node.op in rule.ops:
                    self.operand(node, rule)
        self.report_rules()
        return self.outcome

    # -- activations -------------------------------------------------------------------------------------------------

    def activation(self, tensor: Tensor) -> None:
        """Quantize a tensor, for all who read it or for some."""
        value = tensor.value
        if tensor.grid is None:
            self.note(value, tensor.reason, False)
            return
        if quantizer_of(value) is not None:
            return
        readers = [use for use in value.uses if not is_quantizer(use.node)] if tensor.uses is None else tensor.uses
        made = self.given(value) or self.add(value, self.path_of(value), tensor.grid.encoding(), tensor.grid)
        low, high = tensor.limits or (None, None)
        if low is not None and high is not None:
            encoding = made.attrs["encoding"].with_range(np.asarray(low), np.asarray(high))
            made.attrs |= {"encoding": encoding, "fixed": 1}
        self.redirect(readers, made.result)
        if tensor.uses is None:
            self.graph.outputs[:] = [made.result if output is value else output for output in self.graph.outputs]
        self.note(value, f"{made.attrs['encoding'].dtype}: {tensor.reason}", True)

    def given(self, value: Value) -> Node | None:
        """The quantizer that the tensor came with."""
        readers = (use.node for use in value.uses)
        return next((node for node in readers if is_quantizer(node) and node not in self.grids), None)

    def redirect(self, uses: list[Use] | tuple[Use, ...], value: Value) -> None:
        for use in uses:
            self.graph.set_operand(use.node, use.port, value)

    def path_of(self, value: Value) -> str:
        """Where the quantizer of a tensor goes in the module tree: below the layer that computes it."""
        layer = None if value.node is None else value.node.module
        return f"{layer}.output_quantizer" if layer else f"{value.hint}_quantizer"

    # -- parameters --------------------------------------------------------------------------------------------------

    def parameters(self, node: Node) -> None:
        """Give the parameters of an operator their grids, the bias last: its grid may be made of the others."""
        settings = self.decisions.settings.get(node)
        operands = node.operands
        for port, name in parameter_names(node).items():
            value = operands[port]
            if value.weight is None or value.type.dtype not in ("f32", None):
                continue
            said = None if settings is None else settings.parameters.get(name)
            if settings is None or said is None or not said.quantized:
                source = "" if settings is None else settings.sources.get(name, self.placement.name)
                why = self.decisions.why_float.get(node, f"{name} of {node.op} stays in float ({source})")
                self.note(value, why, False)
            elif node.definition.trait(LooksUp) is not None and not value.weight.trainable:
                self.note(value, f"the {node.op} that looks it up reads a table that nothing trained", False)
            elif said.grid.product:
                self.bias(node, port, said.grid, settings.sources[name])
            else:
                self.parameter(Use(node, port), name, said, settings)

    def parameter(self, use: Use, name: str, said: Parameter, settings: Settings) -> None:
        node, port = use
        value = node.operands[port]
        axis = _axis(use, said, settings)
        grid = self.like_output(node, said.grid) if said.like_output else said.grid
        wanted = grid.encoding(axis)
        made = next((r for r, _ in value.uses if is_quantizer(r) and _alike(r.attrs["encoding"], wanted)), None)
        if made is None:
            path = f"{value.weight.paths[0]}_quantizer" if value.weight.paths else name
            made = self.add(value, path, wanted, grid)
        self.graph.set_operand(node, port, made.result)
        self.note(value, f"{wanted.dtype}: a parameter of {node.op} ({settings.sources[name]})", True)

    def like_output(self, node: Node, grid: Grid) -> Grid:
        """The grid with the width and symmetry of the operator's result, if that is quantized."""
        after = next((use.node for use in node.result.uses if use.node in self.grids), None)
        if after is None:
            return grid
        return replace(grid, bits=self.grids[after].bits, symmetric=self.grids[after].symmetric)

    def bias(self, node: Node, port: int, grid: Grid, source: str) -> None:
        """Let the bias lie on the grid of the accumulator, if both factors have integer grids."""
        weighted, bias = node.definition.trait(Weighted), node.operands[port]
        assert weighted is not None
        factors = [quantizer_of(node.operands[port]) for port in (weighted.input, weighted.weight)]
        grids = [quantizer.attrs["encoding"] for quantizer in factors if quantizer is not None]
        if len(grids) < 2 or any(isinstance(factor, FloatEncoding) for factor in grids):
            self.note(bias, f"the {node.op} that adds it has no integer accumulator", False)
            return
        product = ProductEncoding(grid.dtype, input=grids[0], weight=grids[1])
        path = f"{bias.weight.paths[0]}_quantizer" if bias.weight.paths else "bias_quantizer"
        self.graph.set_operand(node, port, self.add(bias, path, product, grid).result)
        self.note(bias, f"{grid.dtype}: it joins the accumulator of {node.op} ({source})", True)

    # -- rules about operands ----------------------------------------------------------------------------------------

    def operand(self, node: Node, rule: OperandRule) -> None:
        """Change the grid of what a computed operand is read from, where the rule's condition holds."""
        if rule.given is not None:
            given = self.quantizer_before(node, rule.given)
            if given is None or given.attrs["encoding"].bits != rule.given_bits:
                return
        quantizer = self.quantizer_before(node, rule.port)
        if quantizer is None:
            reason = f"operand {rule.port} is to have another grid ({rule.source}), and nothing quantizes it"
            self.outcome.missed.append(Note.of(node, reason))
        elif quantizer.operands[0].weight is None:
            self.grids[quantizer] = rule.grid.over(self.grids[quantizer])
            quantizer.attrs["encoding"] = self.grids[quantizer].encoding()

    def quantizer_before(self, node: Node, port: int) -> Node | None:
        """The quantizer of what the operand is made from: its own, or the closest one up its first operands."""
        operands = node.operands
        before: Node | None = operands[port].node if port < len(operands) else None
        while before is not None and before not in self.grids:
            before = before.operands[0].node if before.operands and before.operands[0] is not None else None
        return before

    # -- notes -------------------------------------------------------------------------------------------------------

    def note(self, value: Value, reason: str, done: bool) -> None:
        node = value.node
        loc = None if node is None else node.loc
        module = None if node is None else node.module
        name = self.decisions.names.get(value, value.hint)
        note = Note(f"%{name}: {value.type}", "" if node is None else node.op, module, loc, reason, tensor=name)
        (self.outcome.done if done else self.outcome.missed).append(note)

    def report_rules(self) -> None:
        """Say which rules matched nothing, and which say nothing that has an effect."""
        self.outcome.missed += self.decisions.unmatched
        matching: list[Rule | Group] = [*self.decisions.matched, *self.decisions.matched_groups]
        matched = {part.source for part in matching}
        every: list[Rule | Group] = [*self.placement.rules, *self.placement.groups]
        named = [part for part in every if not part.general]
        idle = dict.fromkeys(part.source for part in named if part.source not in matched)
        for source in idle:
            self.outcome.missed.append(Note(source, "", None, None, "it matches nothing in this graph"))
        for source, reason in self.placement.remarks:
            self.outcome.missed.append(Note(source, "", None, None, reason))

    def add(self, value: Value, path: str, encoding: Encoding, grid: Grid) -> Node:
        parent, _, name = path.rpartition(".")
        locs = value.node.locs if value.node is not None else ()
        made = self.graph.add("qir.Quantize", [value], {"encoding": encoding}, hint=f"{value.hint}_q", locs=locs,
                              module=self.paths.new(parent, name))  # fmt: skip
        self.grids[made] = grid
        return made


def _axis(use: Use, said: Parameter, settings: Settings) -> int | None:
    """The axis of a parameter that has a scale for each index; None for one scale."""
    node, port = use
    weighted, looks_up = node.definition.trait(Weighted), node.definition.trait(LooksUp)
    if weighted is not None and port == weighted.weight and settings.per_channel:
        stack = weighted.stacks and node.operands[port].type.rank != 2
        return None if stack else weighted.output_axis(node)
    return looks_up.feature_axis(node) if looks_up is not None and said.per_feature else None


def _alike(a: Encoding, b: Encoding) -> bool:
    """Whether two encodings that are not calibrated describe the same grid."""
    same = a.dtype == b.dtype and a.symmetric == b.symmetric and a.narrow == b.narrow
    return same and a.axis == b.axis and a.unsigned == b.unsigned
