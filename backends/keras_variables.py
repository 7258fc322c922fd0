"""Trained weights of a graph, written into the variables of the Keras model that it was imported from."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from qir.arrangements import put_back
from qir.errors import QirError
from qir.graph import Graph, Node, Value
from qir.traits import Weighted


def write_back(original: Graph, trained: Graph) -> None:
    """Assign the weights of `trained` to the variables that `original`, the model's own graph, reads.

    Where a batch norm was folded into the layer before it, the layer's weights are divided by what the norm multiplies
    with, and the norm's offset (or, without one, its mean) is set so that both compute the same as the folded layer.
    Raises QirError for a weight of another shape, and for a norm that multiplies with zero.
    """
    arrays = {path: value.array for value in trained.weights() if value.weight for path in value.weight.paths}
    found: dict[Value, np.ndarray] = {}
    for node in original.nodes():
        for value in node.operands:
            if value is not None and value.weight is not None and value.weight.paths and value not in found:
                array = arrays.get(value.weight.paths[0])
                if array is not None:
                    found[value] = array
    for node in original.nodes():
        if node.op == "BatchNormalization" and _path(node.operands[1]) not in arrays:
            found.update(_unfolded(node, arrays))
    for value, array in found.items():
        _assign(value, array)


def _path(value: Value) -> str:
    return value.weight.paths[0] if value.weight is not None and value.weight.paths else ""


def _unfolded(norm: Node, arrays: Mapping[str, np.ndarray]) -> dict[Value, np.ndarray]:
    """The weights of the layer before a norm, and of the norm, that compute what the folded layer does."""
    layer = norm.operands[0].node
    weighted = None if layer is None else layer.definition.trait(Weighted)
    if layer is None or weighted is None:
        return {}
    kernel, *bias = layer.operands[weighted.weight :]
    axis = weighted.output_axis(layer)
    offset = arrays.get(_path(bias[0]) if bias else f"{layer.module}.bias")
    if axis is None or offset is None or _path(kernel) not in arrays:
        return {}
    gamma, beta, mean, variance = (value.array.astype(np.float64) for value in norm.operands[1:])
    gain = gamma / np.sqrt(variance + norm.attr("epsilon"))
    if not gain.all():
        raise QirError("this batch norm multiplies a channel with zero, so nothing can be divided by it", norm,
                       help="keep the trained graph: no weights of the model compute the same")  # fmt: skip
    shape = [-1 if number == axis else 1 for number in range(arrays[_path(kernel)].ndim)]
    own = bias[0].array.astype(np.float64) if bias else np.zeros_like(mean)
    changed = {kernel: arrays[_path(kernel)] / gain.reshape(shape), **({bias[0]: own} if bias else {})}
    if _path(norm.operands[2]):
        return {**changed, norm.operands[2]: offset - (own - mean) * gain}
    return {**changed, norm.operands[3]: own - (offset - beta) / gain}


def _assign(value: Value, array: np.ndarray) -> None:
    """Give the variable behind a weight the values of an array that is arranged as the weight."""
    weight = value.weight
    if weight is None or not isinstance(weight.data, keras.Variable):
        return
    if value.array.shape != array.shape:
        raise QirError(f"{weight.paths[0]} has the shape {array.shape} now, and had {value.array.shape}",
                       help="give the model that the graph was imported from")  # fmt: skip
    held = np.asarray(keras.ops.convert_to_numpy(weight.data.value))
    weight.data.assign(put_back(weight, array.astype(value.array.dtype), held).reshape(held.shape))
