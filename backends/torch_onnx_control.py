"""ONNX's operators with bodies, on sequences and on optionals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from qir.backends.torch_onnx_emissions import computes


def _several(returned: Any) -> list[Any]:
    """What a body returns: one output by itself, or a tuple of several."""
    return list(returned) if isinstance(returned, tuple) else [returned]


def _unless_alone(results: Sequence[Any]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


class If(nn.Module):
    """One of two modules."""

    def __init__(self, then_branch: nn.Module, else_branch: nn.Module) -> None:
        super().__init__()
        self.then_branch, self.else_branch = then_branch, else_branch

    def forward(self, condition: Tensor, *captured: Any) -> Any:
        """What the branch returns."""
        return self.then_branch(*captured) if bool(condition) else self.else_branch(*captured)


class Loop(nn.Module):
    """A module that is called again and again: with the number of the round, whether to go on, and a state."""

    def __init__(self, body: nn.Module, states: int) -> None:
        super().__init__()
        self.body, self.states = body, states

    def forward(self, limit: Tensor | None, condition: Tensor | None, *operands: Any) -> Any:
        """The last state, and what the rounds returned besides, stacked."""
        state, captured = list(operands[: self.states]), operands[self.states :]
        going = torch.tensor(True) if condition is None else condition
        stacked: list[list[Any]] = []
        number = 0
        while bool(going) and (limit is None or number < int(limit)):
            going, *returned = _several(self.body(torch.tensor(number), going, *state, *captured))
            state = returned[: self.states]
            stacked.append(returned[self.states :])
            number += 1
        return _unless_alone([*state, *(torch.stack(parts) for parts in zip(*stacked, strict=True))])


class Scan(nn.Module):
    """A module that is called for each slice of tensors, with a state."""

    def __init__(self, body: nn.Module, states: int, axes: Sequence[int], backwards: Sequence[int],
                 output_axes: Sequence[int], output_backwards: Sequence[int]) -> None:  # fmt: skip
        super().__init__()
        self.body, self.states = body, states
        self.axes, self.backwards = tuple(axes), tuple(backwards)
        self.output_axes, self.output_backwards = tuple(output_axes), tuple(output_backwards)

    def forward(self, *operands: Any) -> Any:
        """The last state, and what the calls returned besides, stacked."""
        count = self.states + len(self.axes)
        state, captured = list(operands[: self.states]), operands[count:]
        slices = [
            tuple(reversed(x.unbind(axis))) if backwards else x.unbind(axis)
            for x, axis, backwards in zip(operands[self.states : count], self.axes, self.backwards, strict=True)
        ]
        stacked: list[list[Tensor]] = []
        for parts in zip(*slices, strict=True):
            returned = _several(self.body(*state, *parts, *captured))
            state = returned[: self.states]
            stacked.append(returned[self.states :])
        ordered = zip(zip(*stacked, strict=True), self.output_axes, self.output_backwards, strict=True)
        outputs = [torch.stack(parts[::-1] if backwards else parts, axis) for parts, axis, backwards in ordered]
        return _unless_alone([*state, *outputs])


class SequenceMap(nn.Module):
    """A module that is called for each item of a sequence."""

    def __init__(self, body: nn.Module, inputs: int) -> None:
        super().__init__()
        self.body, self.inputs = body, inputs

    def forward(self, sequence: list[Any], *operands: Any) -> Any:
        """The sequences of what the calls return."""
        others, captured = operands[: self.inputs - 1], operands[self.inputs - 1 :]
        calls = [
            _several(self.body(item, *(x[place] if isinstance(x, list) else x for x in others), *captured))
            for place, item in enumerate(sequence)
        ]
        return _unless_alone([list(items) for items in zip(*calls, strict=True)])


@computes("SequenceConstruct")
def sequence(*items: Any) -> list[Any]:
    """A sequence of these."""
    return list(items)


@computes("SequenceEmpty")
def empty_sequence() -> list[Any]:
    """A sequence of nothing."""
    return []


@computes("SequenceLength")
def sequence_length(items: list[Any]) -> Tensor:
    """How many items there are."""
    return torch.tensor(len(items))


@computes("SequenceAt")
def sequence_at(items: list[Any], place: Tensor) -> Any:
    """One item."""
    return items[int(place)]


@computes("SequenceErase")
def sequence_erase(items: list[Any], place: Tensor | None = None) -> list[Any]:
    """All items but one."""
    at = len(items) - 1 if place is None else int(place) % len(items)
    return [*items[:at], *items[at + 1 :]]


@computes("SequenceInsert")
def sequence_insert(items: list[Any], item: Any, place: Tensor | None = None) -> list[Any]:
    """The items and one more."""
    made = list(items)
    made.insert(len(items) if place is None else int(place), item)
    return made


@computes("ConcatFromSequence")
def concat_from_sequence(items: list[Tensor], axis: int, new_axis: int) -> Tensor:
    """The items, joined along an axis that they have or a new one."""
    return torch.stack(items, axis) if new_axis else torch.cat(items, axis)


@computes("SplitToSequence")
def split_to_sequence(x: Tensor, sizes: Tensor | None = None, *, axis: int, keepdims: int) -> list[Tensor]:
    """Parts of `x`: of one size, of these sizes, or of size one."""
    if sizes is None:
        return list(torch.split(x, 1, axis) if keepdims else x.unbind(axis))
    return list(torch.split(x, int(sizes) if sizes.ndim == 0 else sizes.tolist(), axis))


@computes("Optional")
def optional(value: Any = None) -> Any:
    """The value, or None."""
    return value


@computes("OptionalHasElement")
def optional_has_element(value: Any = None) -> Tensor:
    """Whether there is a value."""
    return torch.tensor(value is not None)


@computes("OptionalGetElement")
def optional_get_element(value: Any) -> Any:
    """The value."""
    return value
