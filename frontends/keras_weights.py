"""The variables of a Keras model as the weights of a graph."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np

from qir.frontends.keras_lowerings import read_variable, type_of_tensor
from qir.frontends.keras_names import KerasNames
from qir.graph import Graph, Value
from qir.lowering import known
from qir.types import TensorType
from qir.weights import Weight


class KerasWeights:
    """One value for every variable, and order of its axes, that a model's calls read."""

    def __init__(self, graph: Graph, names: KerasNames) -> None:
        self.graph, self.names = graph, names
        self.values: dict[tuple[int, tuple[int, ...]], Value] = {}

    def of(self, tensor: Any, permutation: tuple[int, ...] = ()) -> Value:
        """The one value of this variable with its axes in this order; a literal for another tensor.

        Raises Unlowered for what is no tensor.
        """
        known(isinstance(tensor, keras.Variable) or keras.ops.is_tensor(tensor),
              f"a {type(tensor).__name__} is no operand")  # fmt: skip
        if not isinstance(tensor, keras.Variable):
            return self.graph.constant(np.asarray(keras.ops.convert_to_numpy(tensor)))
        key = id(tensor), permutation
        if key not in self.values:
            path = self.names.of_variable(tensor)
            weight = Weight(tensor, (path,), partial(_read, permutation=permutation), tensor.trainable)
            self.values[key] = self.graph.weight(weight, _type(tensor, permutation), path.rpartition(".")[2])
        return self.values[key]


def _read(variable: keras.Variable, permutation: tuple[int, ...]) -> np.ndarray:
    array = read_variable(variable)
    return array.transpose(permutation) if permutation else array


def _type(variable: keras.Variable, permutation: tuple[int, ...]) -> TensorType:
    type = type_of_tensor(variable)
    assert type.shape is not None
    return TensorType(type.dtype, tuple(variable.shape[axis] for axis in permutation or range(len(variable.shape))))
