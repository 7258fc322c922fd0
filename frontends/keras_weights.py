"""The variables of a Keras model as the weights of a graph."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from qir.arrangements import Step, arranged
from qir.frontends.keras_lowerings import read_variable, type_of_tensor
from qir.frontends.keras_names import KerasNames
from qir.graph import Graph, Value
from qir.lowering import known
from qir.paths import tell_views_apart
from qir.weights import Weight


class KerasWeights:
    """One value for every variable, and arrangement of it, that a model's calls read."""

    def __init__(self, graph: Graph, names: KerasNames) -> None:
        self.graph, self.names = graph, names
        self.values: dict[int, dict[tuple[Step, ...], Value]] = {}
        self.variable_of: dict[Value, keras.Variable] = {}

    def of(self, tensor: Any, *steps: Step) -> Value:
        """The one value of this variable after these steps; a literal for another tensor.

        Raises Unlowered for what is no tensor.
        """
        tensor = self.variable_of.get(tensor, tensor) if isinstance(tensor, Value) else tensor
        known(isinstance(tensor, keras.Variable | np.ndarray) or keras.ops.is_tensor(tensor),
              f"a {type(tensor).__name__} is no operand")  # fmt: skip
        if not isinstance(tensor, keras.Variable):
            array = np.asarray(keras.ops.convert_to_numpy(tensor))
            return self.graph.weight(arranged(Weight(array), *steps)) if steps else self.graph.constant(array)
        views = self.values.setdefault(id(tensor), {})
        if steps not in views:
            path = self.names.of_variable(tensor)
            weight = Weight(tensor, (path,), read_variable, tensor.trainable)
            known_type, hint = None if steps else type_of_tensor(tensor), path.rpartition(".")[2]
            views[steps] = self.graph.weight(arranged(weight, *steps) if steps else weight, known_type, hint)
            self.variable_of[views[steps]] = tensor
        return views[steps]

    def settle(self) -> None:
        """Let every weight have paths of its own."""
        tell_views_apart(self.graph, (views.values() for views in self.values.values()))
