"""How the array of a weight is arranged from the array that the framework holds, and how it is put back.

Frameworks disagree about the order of a weight's axes. A weight that is brought into another order stays the
framework's own data, viewed through steps that can be undone: what was trained in the new order can be written back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from qir.weights import Weight


class Step(Protocol):
    """One change of arrangement, and its inverse."""

    def of(self, array: np.ndarray) -> np.ndarray:
        """The array after the step."""
        ...

    def back(self, array: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The array before the step; where the step leaves elements out, those are as in `before`."""
        ...


@dataclass(frozen=True)
class Transposed:
    """Axis number i is axis `perm[i]` of before."""

    perm: tuple[int, ...]

    def of(self, array: np.ndarray) -> np.ndarray:
        return array.transpose(self.perm)

    def back(self, array: np.ndarray, before: np.ndarray) -> np.ndarray:
        return array.transpose(np.argsort(self.perm))


@dataclass(frozen=True)
class Reshaped:
    """The same elements in the shape `after`, which were in the shape `before`."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    def of(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(self.after)

    def back(self, array: np.ndarray, before: np.ndarray) -> np.ndarray:
        return array.reshape(self.before)


@dataclass(frozen=True)
class Taken:
    """Index number i along `axis` is index `places[i]` of before; every index is taken once."""

    axis: int
    places: tuple[int, ...]

    def of(self, array: np.ndarray) -> np.ndarray:
        return array.take(self.places, self.axis)

    def back(self, array: np.ndarray, before: np.ndarray) -> np.ndarray:
        return array.take(np.argsort(self.places), self.axis)


@dataclass(frozen=True)
class Picked:
    """The part at one place of the first axis, without that axis."""

    place: int

    def of(self, array: np.ndarray) -> np.ndarray:
        part: np.ndarray = array[self.place]
        return part

    def back(self, array: np.ndarray, before: np.ndarray) -> np.ndarray:
        whole = before.copy()
        whole[self.place] = array
        return whole


@dataclass(frozen=True)
class Flipped:
    """The indices of `axes` run backwards."""

    axes: tuple[int, ...]

    def of(self, array: np.ndarray) -> np.ndarray:
        return np.flip(array, self.axes)

    def back(self, array: np.ndarray, before: np.ndarray) -> np.ndarray:
        return np.flip(array, self.axes)


def arranged(weight: Weight, *steps: Step, paths: tuple[str, ...] | None = None) -> Weight:
    """The weight after the steps, still a view of the same data; its paths stay unless others are given."""
    names = weight.paths if paths is None else paths
    read = partial(_read, weight.read, steps)
    return replace(weight, read=read, arrangement=(*weight.arrangement, *steps), paths=names, known_digest=None)


def _read(read: Callable[[Any], np.ndarray], steps: Sequence[Step], data: Any) -> np.ndarray:
    array = read(data)
    for step in steps:
        array = step.of(array)
    return array


def put_back(weight: Weight, array: np.ndarray, held: np.ndarray) -> np.ndarray:
    """`array`, which is arranged as the weight's own, as the framework holds it; `held` is what it holds now."""
    stages = [held]
    for step in weight.arrangement:
        stages.append(step.of(stages[-1]))
    for step, before in zip(reversed(weight.arrangement), reversed(stages[:-1]), strict=True):
        array = step.back(array, before)
    return array
