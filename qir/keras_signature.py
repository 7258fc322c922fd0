"""How a Keras model takes its inputs, as a graph keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KerasSignature:
    """The nest of the inputs, with `Port(number)` for each, and the keywords of `keras.Input` that make them.

    `spread` says that the model takes the parts of the nest as arguments of their own; an emitted one takes the nest.
    """

    structure: Any
    inputs: Sequence[Mapping[str, Any]]
    spread: bool = False
