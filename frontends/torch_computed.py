"""What lowerings share that take computed sizes and devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from qir.frontends.torch_lowerings import DTYPES, Builder, known
from qir.graph import Value
from qir.types import ScalarType


@dataclass(frozen=True)
class DeviceOf:
    """The device of a tensor; `device` is what torch.export recorded of it."""

    of: Value
    device: torch.device | None = None


def is_computed(item: Any) -> bool:
    """Whether the item is a Python integer that the model computes."""
    return isinstance(item, Value) and item.type == ScalarType("int")


def pattern(*items: Any) -> tuple[tuple[int | None, ...], list[Value]]:
    """Sizes listed in a call or given as one sequence, None for each that is computed, and those that are.

    Raises Unlowered for other items.
    """
    listed = tuple(items[0]) if len(items) == 1 and isinstance(items[0], list | tuple) else items
    fits = [is_computed(item) or (isinstance(item, int) and not isinstance(item, bool)) for item in listed]
    known(all(fits), "sizes that are tensors, or a shape as a whole")
    computed = [item for item in listed if isinstance(item, Value)]
    return tuple(None if isinstance(item, Value) else item for item in listed), computed


def part(build: Builder, input: Value, items: Sequence[Any]) -> Value:
    """`input[items]`, where the limits of slices are computed: a qir.Part for each of those, qir.Index for the rest."""
    rest = list(items)
    axis = 0
    for place, item in enumerate(items):
        if item is None:
            continue
        if item is Ellipsis:
            known(input.type.rank is not None, "an axis of unknown number")
            axis = int(input.type.rank or 0) - sum(other is not None for other in items[place + 1 :])
            continue
        if isinstance(item, slice) and (is_computed(item.start) or is_computed(item.stop)):
            known(item.step is None or (isinstance(item.step, int) and item.step > 0), "a computed step")
            input = build("qir.Part", input, item.start, item.stop, axis=axis, step=item.step or 1)
            rest[place] = slice(None)
        axis += 1
    if all(item is Ellipsis or item == slice(None) for item in rest):
        return input
    return build("qir.Index", input, index=tuple(rest))


def has_computed_limits(items: Sequence[Any]) -> bool:
    """Whether an index has slices of which a limit is computed, and is else known."""
    slices = [item for item in items if isinstance(item, slice)]
    others = [item for item in items if not isinstance(item, slice)]
    limits = [limit for item in slices for limit in (item.start, item.stop)]
    return (
        any(map(is_computed, limits))
        and all(limit is None or isinstance(limit, int) or is_computed(limit) for limit in limits)
        and not any(isinstance(item, Value) for item in others)
    )


def dtype_name(dtype: Any, default: str) -> str:
    """The name of a dtype. Raises Unlowered for those that graphs have not."""
    known(dtype is None or dtype in DTYPES, "an unknown dtype")
    return default if dtype is None else DTYPES[dtype]


def on_device_of(device: Any) -> Value | None:
    """The tensor on whose device the result is; None for the default device. Raises Unlowered for a stated one."""
    if isinstance(device, DeviceOf):
        return device.of
    known(device is None, "a stated device")
    return None
