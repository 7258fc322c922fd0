"""Brings what a torch module has learned and measured back into the graph that it was emitted from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import Tensor, nn

from qir.backends.torch_places import weight_places
from qir.backends.torch_quantizers import quantizers_of
from qir.encodings.encoding import Encoding, ProductEncoding
from qir.errors import QirError
from qir.graph import Graph, Node
from qir.quantizers import quantizers, replace_encodings


def snapshot(graph: Graph, module: nn.Module) -> Graph:
    """A copy of `graph` with the weights, buffers and encodings that `module`, emitted from it, has now.

    Weights are shared with the module. Quantizers that are disabled in the module are gone. Raises QirError for a
    module that was emitted from another graph.
    """
    copy = graph.copy()
    places = weight_places(copy.nodes(), copy.weights())
    for value in copy.weights():
        paths = [places[path] for path in value.weight.paths] if value.weight is not None else []
        tensor = next((found for path in paths if (found := _tensor(module, path)) is not None), None)
        if value.weight is not None and tensor is not None:
            plain = isinstance(value.weight.data, Tensor) and not value.weight.arrangement
            read = value.weight.read if plain else _array
            value.weight = replace(value.weight, data=tensor, read=read)
    held = dict(quantizers_of(module))
    encodings: dict[Encoding, Encoding] = {}
    disabled: list[Node] = []
    for node in quantizers(copy):
        quantizer = held.get(node.module or "")
        if quantizer is None:
            raise QirError(f"the module has no quantizer {node.module}: it was emitted from another graph", node)
        if not isinstance(node.attrs["encoding"], ProductEncoding):
            encodings[node.attrs["encoding"]] = quantizer.encoding
        disabled += [] if quantizer.enabled else [node]
    replace_encodings(copy, encodings)
    for node in disabled:
        copy.replace(node.result, node.operands[0])
        copy.erase(node)
    return copy


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _tensor(module: nn.Module, path: str) -> Tensor | None:
    """The parameter or buffer at `path`, None when the module has none there."""
    owner, _, name = path.rpartition(".")
    try:
        found = getattr(module.get_submodule(owner), name, None)
    except AttributeError:
        return None
    return found if isinstance(found, Tensor) else None
