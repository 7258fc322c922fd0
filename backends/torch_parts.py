"""What the emitter makes parts of a module from: tensors, names, containers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from qir.backends.torch_onnx_arrays import to_torch
from qir.graph import Value


def same_kind(sequence: Any, items: Any) -> Any:
    """`items` in a container of the sequence's kind, named tuples included."""
    return type(sequence)(*items) if hasattr(sequence, "_fields") else type(sequence)(items)


def method_name(target: Any) -> str | None:
    """The name of a method of Tensor, None for other functions."""
    name = getattr(target, "__name__", "")
    return name if getattr(torch.Tensor, name, None) is target else None


def as_tensor(value: Value, share: bool) -> Any:
    """The data as a tensor; a numpy array where torch has no such dtype."""
    weight = value.weight
    assert weight is not None
    data = weight.data
    if isinstance(data, torch.Tensor) and not weight.arrangement:
        tensor = data if share else copied(data)
        requires_grad = data.requires_grad
    else:
        tensor = to_torch(weight.array if share else np.array(weight.array))
        requires_grad = weight.trainable
    if weight.trainable and isinstance(tensor, torch.Tensor) and not isinstance(tensor, nn.Parameter):
        return nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor


def copied(tensor: torch.Tensor) -> torch.Tensor:
    """A copy. Where torch can, memory is copied when one of the two is first written, and no earlier."""
    try:
        return tensor.detach()._lazy_clone()
    except (RuntimeError, NotImplementedError):  # memory that is not torch's own: numpy's, a file's
        return tensor.detach().clone()


def put(owner: nn.Module, name: str, tensor: Any, persistent: bool) -> None:
    """Make the tensor a parameter or buffer of a module, or an attribute where torch has no such dtype."""
    if isinstance(tensor, np.ndarray):
        setattr(owner, name, tensor)
    elif isinstance(tensor, nn.Parameter):
        if name in owner._parameters:
            owner._parameters[name] = tensor
        else:
            owner.register_parameter(name, tensor)
    elif name in owner._parameters:
        owner._parameters[name] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
    else:
        owner.register_buffer(name, tensor, persistent=persistent)


def identifier(name: str) -> str:
    """`name` as Python allows it."""
    if name.isidentifier():
        return name
    cleaned = "".join(letter if f"_{letter}".isidentifier() else "_" for letter in name)
    return cleaned if cleaned and not cleaned[0].isdigit() else f"_{cleaned}"
