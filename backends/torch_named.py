"""Functions and constants of torch by name, as graph text has them. Text may come from anywhere: few names are known.

Known are torch's tensor functions and methods (those that `torch.overrides` lists), its operators (`torch.ops.…`),
functions that make tensors, operators of Python, and constants. Nothing that reads a file, runs code or looks into
Python objects is among them.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable
from functools import cache, reduce
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import get_testing_overrides

from qir.errors import QirError

CONSTANTS = (torch.dtype, torch.layout, torch.memory_format, torch.device)
DEVICES = ("cpu", "cuda", "meta", "mps")
_MAKERS = """
arange as_tensor asarray bartlett_window blackman_window broadcast_shapes complex empty empty_strided eye fill full
hamming_window hann_window kaiser_window linspace logspace normal ones promote_types rand randint randn randperm range
result_type scalar_tensor tensor tril_indices triu_indices vander zeros
"""
_OPERATORS = """
abs add and_ concat contains eq floordiv ge getitem gt index inv invert le lshift lt matmul mod mul ne neg not_ or_ pos
pow rshift setitem sub truediv truth xor iadd iand ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv
ixor
"""
_BUILTINS = "abs bool divmod float getattr int len max min pow range round sum tuple"
_METHODS = "new_empty new_empty_strided new_full new_ones new_tensor new_zeros"
_MATH = "ceil exp floor log log2 prod sqrt trunc"
_ATTRIBUTES = "H T device dtype imag is_cuda itemsize layout mH mT names nbytes ndim real requires_grad shape"

HOMES = {
    "_operator": (operator, frozenset(_OPERATORS.split())),
    "builtins": (builtins, frozenset(_BUILTINS.split())),
    "math": (math, frozenset(_MATH.split())),
    "": (torch, frozenset(_MAKERS.split())),
    "Tensor": (torch.Tensor, frozenset(_METHODS.split())),
}
"""The functions by name that are known beside those of tensors, and where they are."""

ATTRIBUTES = frozenset(_ATTRIBUTES.split())
"""What a graph may read of a tensor with `getattr`."""


def framework_object(name: str) -> Any:
    """What a dotted name that begins with `torch`, or the name of a device, stands for.

    Raises QirError for names that torch does not have, and for those that no graph may use.
    """
    if name.startswith(DEVICES):
        return torch.device(name)
    first, *path = name.split(".")
    found = _by_home(path) if first == "torch" and path else None
    if found is None:
        raise QirError(f"{name!r} is no function of torch that a graph may call", stage="emit torch",
                       help="import the model itself: graph text does not hold a user's own functions")  # fmt: skip
    return found


def _by_home(path: list[str]) -> Any:
    home, last = ".".join(path[:-1]), path[-1]
    module, names = HOMES.get(home, (None, frozenset()))
    if last in names:
        return getattr(module, last, None)
    try:
        found = reduce(getattr, path, torch)
    except (AttributeError, RuntimeError):
        return None
    sizes = not home and last.startswith("sym_")
    constant = isinstance(found, (*CONSTANTS, OpOverload, OpOverloadPacket))
    return found if constant or sizes or _is_tensor_function(found) else None


def _is_tensor_function(found: Any) -> bool:
    try:
        return found in _tensor_functions()
    except TypeError:
        return False


@cache
def _tensor_functions() -> frozenset[Callable[..., Any]]:
    return frozenset(get_testing_overrides())


def check_attribute(name: Any) -> None:
    """Raise QirError unless a graph may read this attribute of a tensor."""
    if name not in ATTRIBUTES:
        raise QirError(f"a graph may not read the attribute {name!r}", stage="emit torch",
                       help=f"it may read {', '.join(sorted(ATTRIBUTES))}")  # fmt: skip
