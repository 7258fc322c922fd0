"""Lowerings of torch's functions that make tensors, of sizes that may be computed."""

from __future__ import annotations

from typing import Any

import torch

from qir.frontends.torch_computed import dtype_name, is_computed, on_device_of, pattern
from qir.frontends.torch_functions import is_number
from qir.frontends.torch_lowerings import DTYPES, Builder, known, lowers
from qir.graph import Value


def _plain(layout: Any, requires_grad: Any) -> None:
    known(layout in (None, torch.strided) and not requires_grad, "a layout, or a gradient")


@lowers(torch.arange)
def arange(build: Builder, start: Any, end: Any = None, step: Any = 1, *, dtype: Any = None, layout: Any = None,
           device: Any = None, requires_grad: bool = False, pin_memory: Any = None) -> Value:  # fmt: skip
    """qir.CountUp."""
    _plain(layout, requires_grad)
    limits = (0, start, step) if end is None else (start, end, step)
    known(all(is_computed(item) or is_number(item) for item in limits), "limits that are tensors")
    default = DTYPES[torch.get_default_dtype()] if any(isinstance(item, float) for item in limits) else "i64"
    computed = [item for item in limits if isinstance(item, Value)]
    kept = tuple(None if isinstance(item, Value) else item for item in limits)
    return build("qir.CountUp", on_device_of(device), *computed, limits=kept, dtype=dtype_name(dtype, default))


def _filled(build: Builder, size: Any, value: Any, dtype: str, device: Any) -> Value:
    shape, computed = pattern(*size)
    return build("qir.Filled", on_device_of(device), *computed, shape=shape, value=value, dtype=dtype)


def _constant(name: str, value: Any) -> None:
    def lowering(build: Builder, *size: Any, dtype: Any = None, layout: Any = None, device: Any = None,
                 requires_grad: bool = False, pin_memory: Any = None, names: Any = None) -> Value:  # fmt: skip
        _plain(layout, requires_grad)
        known(names is None, "axes with names")
        return _filled(build, size, value, dtype_name(dtype, DTYPES[torch.get_default_dtype()]), device)

    lowering.__name__ = name
    lowers(getattr(torch, name))(lowering)


_constant("zeros", 0)
_constant("ones", 1)


@lowers(torch.full)
def full(build: Builder, size: Any, fill_value: Any, *, dtype: Any = None, layout: Any = None, device: Any = None,
         requires_grad: bool = False, pin_memory: Any = None, names: Any = None) -> Value:  # fmt: skip
    """qir.Filled."""
    _plain(layout, requires_grad)
    known(is_number(fill_value) and names is None, "a computed number")
    kinds = {bool: "bool", int: "i64", float: DTYPES[torch.get_default_dtype()]}
    return _filled(build, (size,), fill_value, dtype_name(dtype, kinds[type(fill_value)]), device)
