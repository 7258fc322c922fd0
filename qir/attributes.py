"""What an attribute of a node may be: Python literals, arrays, encodings, and the few kinds declared here."""

from __future__ import annotations

from dataclasses import dataclass


class Body:
    """What a graph is as an attribute of a node: the branch of an If, the body of a Loop."""


@dataclass(frozen=True)
class Symbol:
    """A constant of a framework, by its dotted name: `torch.float32`, `torch.channels_last`."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Port:
    """The place of operand number `index` in the arguments of an opaque call."""

    index: int

    def __str__(self) -> str:
        return f"%{self.index}"


@dataclass(frozen=True)
class TrainingMode:
    """The training flag of the module that makes a call: it follows `train()` and `eval()` after import."""

    def __str__(self) -> str:
        return "training"


TRAINING = TrainingMode()
