"""Dotted paths for the layers and variables of a Keras model."""

from __future__ import annotations

from re import sub

import keras


class KerasNames:
    """A path for every layer and variable: the names of the layers around it where it is first met, then its own.

    What would have the path of another is numbered, in the order in which they are met.
    """

    def __init__(self, model: keras.Layer) -> None:
        """The model itself has the empty path."""
        self.paths: dict[int, str] = {id(model): ""}
        self.taken: set[str] = {""}
        self.met: list[object] = [model]
        """Kept alive, so that nothing else gets their identity."""

    def of_layer(self, layer: keras.Layer, scope: str) -> str:
        """The path of a layer, below `scope` where it is met for the first time."""
        return self._of(layer, scope, layer.name)

    def of_variable(self, variable: keras.Variable, layer: keras.Layer | None = None) -> str:
        """The path of a variable: below that of the layer that holds it, where it is met for the first time."""
        if layer is None:
            return self._of(variable, "", *variable.path.split("/"))
        inside = variable.path.removeprefix(f"{layer.path}/")
        return self._of(variable, self.paths[id(layer)], *(variable.name if "/" in inside and inside == variable.path
                                                         else inside).split("/"))  # fmt: skip

    def _of(self, item: object, scope: str, *parts: str) -> str:
        if id(item) not in self.paths:
            wanted = path = ".".join([scope, *map(_identifier, parts)] if scope else map(_identifier, parts))
            number = 0
            while path in self.taken:
                number += 1
                path = f"{wanted}_{number}"
            self.taken.add(path)
            self.paths[id(item)] = path
            self.met.append(item)
        return self.paths[id(item)]


def _identifier(name: str) -> str:
    plain = sub(r"\W", "_", name)
    return f"_{plain}" if not plain or plain[0].isdigit() else plain
