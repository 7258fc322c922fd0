"""The encodings of a graph, taken from it and put into it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from qir.encodings.encoding import Encoding, FloatEncoding, ProductEncoding
from qir.encodings.entry import Entry
from qir.encodings.file import EncodingsFile, TensorEncodings, check_calibrated, read_encodings, write_encodings
from qir.encodings.format_0 import torch_document
from qir.encodings.tensor_names import float_model, layer_ports, paths_of, place_of, quantizers_by_name
from qir.errors import QirError
from qir.graph import Graph, Node
from qir.json_documents import refuse
from qir.quantizers import is_parameter, quantizers, replace_encodings
from qir.rewrite import Note, Outcome


def encodings_of(graph: Graph, names: Mapping[Node, str] | None = None, **about: Any) -> TensorEncodings:
    """The encodings of every quantized tensor, by its name in the float ONNX model of `graph`.

    `names` are those names where they are known already; `about` are `quantizer_args` and `excluded_layers`.
    """
    sections: tuple[dict[str, Encoding], dict[str, Encoding]] = {}, {}
    for node, name in (float_model(graph).names if names is None else names).items():
        sections[is_parameter(node)][name] = node.attrs["encoding"]
    return TensorEncodings(*sections, **about)


def save_encodings(graph: Graph, path: str | Path, version: str, **about: Any) -> None:
    """Write the encodings of `graph` by tensor name, whole or not at all. Raises QirError when some have no scale."""
    write_encodings(path, encodings_of(graph, **about), version)


def torch_encodings(graph: Graph, **about: Any) -> dict[str, Any]:
    """The document of `<prefix>_torch.encodings`: activations by layer, parameters by their path in the state.

    The form is that of version 0.6.1, which AIMET uses for it in every version. Grids in blocks have no place there.
    """
    activations: dict[tuple[str, str, int], Encoding] = {}
    parameters: dict[str, Encoding] = {}
    for node in quantizers(graph):
        encoding, paths = node.attrs["encoding"], paths_of(node)
        parameters.update(dict.fromkeys(paths, encoding))
        if not paths:
            activations.update(dict.fromkeys(layer_ports(node), encoding))
    check_calibrated({":".join(map(str, port)): encoding for port, encoding in activations.items()} | parameters)
    return torch_document(activations, parameters, TensorEncodings({}, {}, **about).settings)


@dataclass
class Applied:
    """What a file did to a graph: the quantizers that took an encoding, those that it does not name, and the names in
    it that no quantizer has.
    """

    taken: list[Node] = field(default_factory=list)
    missing: list[Node] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """The same as notes."""
        done = [Note.of(node, "takes the encoding of the file") for node in self.taken]
        return Outcome(done, [Note.of(node, "the file does not name its tensor") for node in self.missing])


def apply_encodings(
    graph: Graph,
    source: str | Path | Mapping[str, Any] | EncodingsFile,
    *,
    strict: bool = True,
    frozen: Collection[Node] = (),
) -> Applied:
    """Let the quantizers of `graph` hold the encodings of a file, found by the names of their tensors.

    Those are names in the model's state and of its layers; where they do not do, names in its float ONNX model.
    The file's bit widths and scales replace those of the graph. Quantizers that are `frozen` keep theirs, and so do
    those on the product grid of a bias, which follows its factors. Raises QirError, changing nothing, for an empty
    file, for grids that contradict the tensor or each other; and, when `strict`, for names that no quantizer has and
    for a file that disagrees with the graph about channels, symmetry, or integer and float.
    """
    file = read_encodings(source)
    known = quantizers_by_name(graph, [entry.name for entry in file.entries])
    if not file.entries:
        refuse("$", "the file holds no encodings")
    applied = Applied(surplus=[entry.name for entry in file.entries if entry.name not in known])
    if strict and applied.surplus:
        raise _surplus(applied.surplus, known)
    kept = {node.attrs["encoding"] for node in frozen}
    new: dict[Encoding, tuple[Encoding, Entry]] = {}
    products: list[tuple[Node, Entry]] = []
    named: set[Node] = set()
    for entry in file.entries:
        for node in known.get(entry.name, ()):
            named.add(node)
            old = node.attrs["encoding"]
            if isinstance(old, ProductEncoding):
                products.append((node, entry))
            elif old not in kept:
                _collect(new, entry, node, strict)
    before = {node: node.attrs["encoding"] for node in quantizers(graph)}
    replace_encodings(graph, {old: made for old, (made, _) in new.items()})
    try:
        for node, entry in products if strict else ():
            _check_product(node, entry)
    except QirError:
        for node, old in before.items():
            node.attrs["encoding"] = old
        raise
    applied.taken = [node for node, old in before.items() if old in new]
    applied.missing = [
        node for node, old in before.items() if node not in named and old not in new and _asks(old, kept)
    ]
    return applied


def _asks(encoding: Encoding, kept: Collection[Encoding]) -> bool:
    """Whether a file should name a quantizer with this encoding: it is not computed, needs a scale and is not kept."""
    needs_none = isinstance(encoding, FloatEncoding) and encoding.bits == 16
    return not (isinstance(encoding, ProductEncoding) or needs_none or encoding in kept)


def _surplus(names: Sequence[str], known: Mapping[str, Any]) -> QirError:
    return QirError(
        f"the file names {len(names)} tensors that no quantizer rounds",
        stage="encodings",
        snippet="\n".join(names[:20]),
        help="pass strict=False to leave them out; the graph's quantized tensors are "
        + ", ".join([*list(known)[:5], "…"] if len(known) > 5 else known),
    )


def _collect(new: dict[Encoding, tuple[Encoding, Entry]], entry: Entry, node: Node, strict: bool) -> None:
    """Put the entry's encoding into `new`, under the encoding that it takes the place of."""
    old, made = node.attrs["encoding"], entry.encoding(place_of(node))
    if strict and (difference := _difference(old, made)):
        refuse(entry.at, f"{entry.name} is {difference}", "pass strict=False to take the file's word for it")
    if old not in new:
        new[old] = made, entry
    elif not equal(new[old][0], made):
        refuse(entry.at, f"{entry.name} shares its grid with {new[old][1].name}, and the file gives them two",
               "the file belongs to another placement of quantizers")  # fmt: skip


def _difference(old: Encoding, made: Encoding) -> str:
    """What kind of grid the file has, and what the graph has; empty where they are of one kind."""
    kinds = [
        [("float", "integer")[not isinstance(grid, FloatEncoding)] for grid in (made, old)],
        [("symmetric", "asymmetric")[not grid.symmetric] for grid in (made, old)],
        [_granularity(grid) for grid in (made, old)],
    ]
    return next((f"{in_file} in the file and {here} in the graph" for in_file, here in kinds if in_file != here), "")


def _granularity(grid: Encoding) -> str:
    if grid.block_axis is not None:
        return "in blocks"
    return "per tensor" if grid.axis is None else "per channel"


def equal(first: Encoding, second: Encoding) -> bool:
    """Whether two encodings are the same grid, whoever shares them."""
    if type(first) is not type(second):
        return False
    pairs = [(getattr(first, item.name), getattr(second, item.name)) for item in fields(first)]
    return all(np.array_equal(a, b) if isinstance(a, np.ndarray) else a is b or a == b for a, b in pairs)


def _check_product(node: Node, entry: Entry) -> None:
    """Refuse an entry for a bias that is not the product that it has to be, but for the rounding of scales."""
    product = node.attrs["encoding"].scale
    if product is None or entry.scale is None:
        return
    given = entry.scale.reshape(-1)
    if given.size not in (1, product.size) or not np.allclose(given, product.reshape(-1), rtol=1e-5, atol=0):
        refuse(entry.at, f"{entry.name} lies on the product of its input's and its weight's grid, and the file gives "
                         "it another", "pass strict=False to keep the product")  # fmt: skip


def remove(graph: Graph, removed: Collection[Node]) -> None:
    """Take quantizers out of the graph, and with them those of biases whose grid is a product with theirs."""
    for node in removed:
        graph.replace(node.result, node.operands[0])
        graph.erase(node)
    held = {node.attrs["encoding"] for node in quantizers(graph)}
    orphans = [node for node in quantizers(graph) if isinstance(grid := node.attrs["encoding"], ProductEncoding)
               and not {grid.input, grid.weight} <= held]  # fmt: skip
    if orphans:
        remove(graph, orphans)
