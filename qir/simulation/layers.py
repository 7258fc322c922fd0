"""The layers of a simulator with their quantizers, for people to read and for programs to walk."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qir.facts import is_quantizer
from qir.graph import Graph, Node, Value
from qir.quantizers import quantizer_of
from qir.text.encodings import grid_text
from qir.traits import IdentityInInference, KeepsGrid

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class SimulatedLayer:
    """A layer, and the quantizers of what it reads, writes and holds: modules of the simulator.

    `input_quantizers` and `output_quantizers` have an entry for each tensor, None where it is not rounded;
    `param_quantizers` has the quantizers of the layer's rounded parameters by name. `output_grids` has for each tensor
    that the layer writes the quantizer on whose grid it lies: its own, or that of what the layer only moves.
    """

    name: str
    op: str
    module: nn.Module
    input_quantizers: Sequence[Any] = ()
    output_quantizers: Sequence[Any] = ()
    param_quantizers: dict[str, Any] = field(default_factory=dict)
    output_grids: Sequence[Any] = ()


def layers_of(graph: Graph, model: nn.Module) -> Iterator[SimulatedLayer]:
    """Every layer of the simulator `model`, emitted from `graph`, in the order of execution."""
    modules = dict(model.named_modules(remove_duplicate=False))

    def quantizer(node: Node | None) -> Any:
        return None if node is None or node.module is None else modules.get(node.module)

    for node in graph.nodes():
        if is_quantizer(node) or node.module is None or node.module not in modules:
            continue
        read = [value for value in node.operands if value is not None]
        held = {_parameter(value): quantizer(quantizer_of(value)) for value in read if _parameter(value)}
        yield SimulatedLayer(
            node.module,
            node.op,
            modules[node.module],
            [quantizer(quantizer_of(value)) for value in read if value.weight is None and not _parameter(value)],
            [quantizer(_reader(value)) for value in node.results],
            {name: found for name, found in held.items() if found is not None},
            [quantizer(_reader(value) or _grid_of(value)) for value in node.results],
        )


def _reader(value: Value) -> Node | None:
    """The quantizer that rounds a result."""
    return next((node for node, _ in value.uses if is_quantizer(node)), None)


def _grid_of(value: Value) -> Node | None:
    """The quantizer on whose grid the value lies, as it rounds it or what it was before it was moved; None if none.

    A grid of channels is that of a tensor with the axes that it was made for.
    """
    moved, node = False, value.node
    while node is not None and not is_quantizer(node):
        known = node.definition
        if known.trait(IdentityInInference) is None and known.trait(KeepsGrid) is None:
            return None
        moved = moved or known.trait(IdentityInInference) is None
        node = node.operands[0].node
    return None if node is None or (moved and node.attrs["encoding"].axis is not None) else node


def _parameter(value: Value) -> str:
    """The name of the parameter behind a quantizer, as its layer calls it; empty for anything else."""
    node = quantizer_of(value)
    weight = node.operands[0].weight if node is not None else None
    return weight.paths[0].rpartition(".")[2] if weight is not None and weight.paths else ""


def table_of(layers: Sequence[SimulatedLayer]) -> str:
    """The layers as a text table: a row for every quantizer, with its grid and range."""
    rows = [("layer", "operator", "tensor", "grid", "lowest", "highest")]
    written = {id(quantizer) for layer in layers for quantizer in layer.output_quantizers if quantizer is not None}
    for layer in layers:
        name, op = layer.name, layer.op
        for tensor, quantizer in _tensors(layer, written):
            rows.append((name, op, tensor, *_grid(quantizer)))
            name = op = ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def _tensors(layer: SimulatedLayer, written: Container[int]) -> Iterator[tuple[str, Any]]:
    """The quantizers of a layer that no layer before it shows."""
    for number, quantizer in enumerate(layer.input_quantizers):
        if quantizer is not None and id(quantizer) not in written:
            yield f"input {number}", quantizer
    yield from layer.param_quantizers.items()
    for number, quantizer in enumerate(layer.output_grids):
        yield f"output {number}", quantizer


def _grid(quantizer: Any) -> tuple[str, str, str]:
    """What a quantizer rounds to, and its range over all channels."""
    if quantizer is None or not quantizer.enabled:
        return "float", "", ""
    encoding = quantizer.encoding
    kind = grid_text(encoding)
    if encoding.scale is None or encoding.zero_point is None:
        return kind, "?", "?"
    zero = encoding.zero_point.astype(np.float64)
    low, high = ((bound - zero) * encoding.scale for bound in (encoding.low, encoding.high))
    return kind, f"{low.min():.6g}", f"{high.max():.6g}"
