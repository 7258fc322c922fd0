"""Places quantizers where a target computes with integers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from qir.encodings import Encoding, ProductEncoding
from qir.errors import QirError
from qir.facts import CALIBRATED, FUNCTIONALS_LIFTED, MODULES_UNROLLED, QUANTIZERS_INSERTED, computes, is_quantizer
from qir.graph import Graph, Node, Use, Value
from qir.names import Paths
from qir.pipeline import Pass
from qir.quantizers import quantizer_of
from qir.rewrite import Note, Outcome
from qir.targets import Target, target
from qir.traits import Clamps, Weighted


@dataclass(frozen=True)
class InsertQuantizers(Pass, name="insert-quantizers"):
    """Put a quantizer on every tensor that an integer kernel of the target reads or writes.

    A tensor has one quantizer. It stands after a Relu or Clip that the kernel before it absorbs. Weights get a grid per
    output channel, and a bias the grid of the accumulator that it joins: input scale times weight scale.

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

    target: str = "ort-x86"
    per_channel: bool = True

    def __post_init__(self) -> None:
        target(self.target)

    def run(self, graph: Graph) -> Outcome:
        """Insert the quantizers, and say of every operator left in float why."""
        placement = _Placement(graph, target(self.target), self.per_channel)
        placement.run()
        if not placement.integer:
            raise self._nothing(placement.outcome)
        return placement.outcome

    def _nothing(self, outcome: Outcome) -> QirError:
        reasons = sorted({f"{note.op}: {note.reason}" for note in outcome.missed})
        message = f"{self.target} computes nothing of this graph with integers"
        help = "import the model with example inputs, so that dtypes are known, or choose another target"
        return QirError(message, stage=self.name, snippet="\n".join(reasons[:20]) or None, help=help)


@dataclass
class _Placement:
    """One run over one graph."""

    graph: Graph
    target: Target
    per_channel: bool
    outcome: Outcome = field(default_factory=Outcome)
    integer: set[Node] = field(default_factory=set)

    def run(self) -> None:
        nodes = [node for node in self.graph.nodes() if not is_quantizer(node)]
        self.paths = Paths(self.graph)
        for node in nodes:
            if (reason := self.float_reason(node)) is None:
                self.integer.add(node)
            elif computes(node):
                self.outcome.missed.append(Note.of(node, reason))
        for node in nodes:
            if node in self.integer:
                self.quantize_inputs(node)
        for node in nodes:
            if node in self.integer:
                self.quantize_outputs(node)
        for node in nodes:
            if node in self.integer:
                self.quantize_weights(node)

    # -- which operators ---------------------------------------------------------------------------------------------

    def float_reason(self, node: Node) -> str | None:
        """Why the target computes the node in float; None when it does not."""
        if any(result.type.dtype not in ("f32", None) for result in node.results):
            return f"its result is {node.result.type}, and the target quantizes f32"
        if node.op in self.target.same_grid:
            source = node.operands[0]
            moved = source.node in self.integer or quantizer_of(source) or self.clamped(source)
            return None if moved or computes(node) else "what it moves is not quantized"
        if node.op not in self.target.integer:
            if self.absorbing(node) is not None:
                return f"it is part of the {self.absorbing(node).op} before it"  # type: ignore[union-attr]
            return self.target.reason_for_float(node.op)
        weighted = node.definition.trait(Weighted)
        if weighted and weighted.bias is not None and len(node.operands) > weighted.bias:
            bias = node.operands[weighted.bias]
            if bias.weight is None or bias.type.rank != 1:
                return "its bias is not a constant vector"
        return None

    def clamped(self, value: Value) -> bool:
        """Whether the value leaves an integer kernel through a clamp that the kernel absorbs."""
        return value.node is not None and self.absorbing(value.node) in self.integer

    def absorbing(self, node: Node) -> Node | None:
        """The kernel that absorbs the clamp `node`, if one does."""
        clamps = node.definition.trait(Clamps)
        if clamps is None or clamps.range(node) is None:
            return None
        before = node.operands[0].node
        alone = len(node.operands[0].uses) == 1 and not node.operands[0].is_output
        return before if before is not None and alone and before.op in self.target.absorbs_clamp else None

    # -- which tensors -----------------------------------------------------------------------------------------------

    def quantize_inputs(self, node: Node) -> None:
        """Quantize what the kernel reads, its weight and bias excepted."""
        weighted = node.definition.trait(Weighted)
        moves = node.op in self.target.same_grid
        for port, value in enumerate(node.operands):
            if value is None or value.type.dtype not in ("f32", None) or (moves and port > 0):
                continue
            if weighted and (port == weighted.bias or (port == weighted.weight and value.weight is not None)):
                continue
            self.quantize_read(value, Use(node, port))

    def quantize_read(self, value: Value, use: Use) -> None:
        """Let `use` read a quantized `value`, through the one quantizer that the value has."""
        if quantizer_of(value) is not None:
            return
        existing = next((reader for reader, _ in value.uses if is_quantizer(reader)), None)
        if existing is None:
            existing = self.add(value, self.path_of(value), replace(self.target.activation))
        self.graph.set_operand(use.node, use.port, existing.result)

    def quantize_outputs(self, node: Node) -> None:
        """Let everything read the quantized result, since the kernel makes no other."""
        for result in node.results:
            end = self.after_clamps(result)
            readers = [use for use in end.uses if not is_quantizer(use.node)]
            existing = next((reader for reader, _ in end.uses if is_quantizer(reader)), None)
            if existing is None and node.op in self.target.float_output:
                self.outcome.done.append(Note.of(node, "writes float32: nothing that reads it is an integer kernel"))
                continue
            if existing is None:
                existing = self.add(end, self.path_of(end), replace(self.target.activation))
            for use in readers:
                self.graph.set_operand(use.node, use.port, existing.result)
            self.graph.outputs[:] = [existing.result if value is end else value for value in self.graph.outputs]
            self.outcome.done.append(Note.of(node, "computes with integers"))

    def after_clamps(self, value: Value) -> Value:
        """The value behind a clamp that the kernel absorbs, else the value."""
        if len(value.uses) == 1 and self.absorbing(value.uses[0].node) is not None:
            return value.uses[0].node.result
        return value

    def quantize_weights(self, node: Node) -> None:
        """Give the kernel's weight its grid, and its bias that of the accumulator."""
        weighted = node.definition.trait(Weighted)
        if weighted is None:
            return
        operands = node.operands
        weight, source = operands[weighted.weight], quantizer_of(operands[weighted.input])
        if weight.weight is not None:
            axis = weighted.output_axis(node) if self.per_channel and self.target.per_channel else None
            existing = next((r for r, _ in weight.uses if is_quantizer(r) and r.attrs["encoding"].axis == axis), None)
            if existing is None:
                existing = self.add(weight, f"{weight.weight.paths[0]}_quantizer" if weight.weight.paths else "weight",
                                    replace(self.target.weight, axis=axis))  # fmt: skip
            self.graph.set_operand(node, weighted.weight, existing.result)
        grid = quantizer_of(node.operands[weighted.weight])
        if weighted.bias is None or len(operands) <= weighted.bias or source is None or grid is None:
            return
        bias = operands[weighted.bias]
        product = ProductEncoding(self.target.bias, input=source.attrs["encoding"], weight=grid.attrs["encoding"])
        path = f"{bias.weight.paths[0]}_quantizer" if bias.weight.paths else "bias_quantizer"
        self.graph.set_operand(node, weighted.bias, self.add(bias, path, product).result)

    def path_of(self, value: Value) -> str:
        """Where the quantizer of a tensor goes in the module tree: below the layer that computes it."""
        layer = None if value.node is None else value.node.module
        return f"{layer}.output_quantizer" if layer else f"{value.hint}_quantizer"

    def add(self, value: Value, path: str, encoding: Encoding) -> Node:
        parent, _, name = path.rpartition(".")
        locs = value.node.locs if value.node is not None else ()
        return self.graph.add("qir.Quantize", [value], {"encoding": encoding}, hint=f"{value.hint}_q", locs=locs,
                              module=self.paths.new(parent, name))  # fmt: skip
