"""Lowerings of torch's functions that shape tensors after others, and that pick diagonals and windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from qir.frontends.torch_functions import is_number, spelled
from qir.frontends.torch_indexing import tensor_split, whole
from qir.frontends.torch_lowerings import DTYPES, Builder, composite, known, lowers
from qir.frontends.torch_reductions import axes_of
from qir.frontends.torch_tensors import transpose
from qir.graph import Value
from qir.types import ScalarType


def _default(dtype: Any, layout: Any, device: Any, requires_grad: Any, memory_format: Any = None) -> str | None:
    """The name of the dtype. Raises Unlowered for what a value of a graph has not."""
    known(layout in (None, torch.strided) and device is None and not requires_grad, "a layout, a device, a gradient")
    known(memory_format in (None, torch.preserve_format), "another memory format")
    known(dtype is None or dtype in DTYPES, "an unknown dtype")
    return None if dtype is None else DTYPES[dtype]


def _full_like(name: str, value: Any) -> None:
    def lowering(build: Builder, input: Value, *, dtype: Any = None, layout: Any = None, device: Any = None,
                 requires_grad: bool = False, memory_format: Any = None, pin_memory: Any = None) -> Value:  # fmt: skip
        to = _default(dtype, layout, device, requires_grad, memory_format)
        known(not isinstance(input.type, ScalarType), "no tensor")
        return build("qir.FullLike", input, value=value, dtype=to)

    lowering.__name__ = name
    lowers(*spelled(name))(lowering)


_full_like("zeros_like", 0)
_full_like("ones_like", 1)


@lowers(*spelled("full_like"))
def full_like(build: Builder, input: Value, fill_value: Any, *, dtype: Any = None, layout: Any = None,
              device: Any = None, requires_grad: bool = False, memory_format: Any = None,
              pin_memory: Any = None) -> Value:  # fmt: skip
    """qir.FullLike."""
    known(is_number(fill_value), "a computed number")
    to = _default(dtype, layout, device, requires_grad, memory_format)
    return build("qir.FullLike", input, value=fill_value, dtype=to)


def _new(build: Builder, input: Value, size: Sequence[Any], value: Any, dtype: str | None) -> Value:
    sizes = tuple(size[0]) if len(size) == 1 and isinstance(size[0], list | tuple) else tuple(size)
    computed = [item for item in sizes if isinstance(item, Value)]
    known(all(isinstance(item, int | Value) for item in sizes), "a computed shape")
    known(all(isinstance(item.type, ScalarType) for item in computed), "sizes that are tensors")
    shape = tuple(item if isinstance(item, int) else None for item in sizes)
    return build("qir.NewFull", input, *computed, shape=shape, value=value, dtype=dtype)


def _new_full(name: str, value: Any) -> None:
    def lowering(build: Builder, input: Value, *size: Any, dtype: Any = None, layout: Any = None, device: Any = None,
                 requires_grad: bool = False, pin_memory: bool = False) -> Value:  # fmt: skip
        return _new(build, input, size, value, _default(dtype, layout, device, requires_grad))

    lowering.__name__ = name
    lowers(f"Tensor.{name}")(lowering)


_new_full("new_zeros", 0)
_new_full("new_ones", 1)


@lowers("Tensor.new_full")
def new_full(build: Builder, input: Value, size: Any, fill_value: Any, *, dtype: Any = None, layout: Any = None,
             device: Any = None, requires_grad: bool = False, pin_memory: bool = False) -> Value:  # fmt: skip
    """qir.NewFull."""
    known(is_number(fill_value), "a computed number")
    return _new(build, input, (size,), fill_value, _default(dtype, layout, device, requires_grad))


# -- one shape for several ---------------------------------------------------------------------------------------------

composite("qir.ExpandAs", ["Tensor.expand_as"], lambda input, other: ((input, other), {}))
composite("qir.ReshapeAs", ["Tensor.view_as", "Tensor.reshape_as"], lambda input, other: ((input, other), {}))


@lowers("Tensor.sum_to_size")
def sum_to_size(build: Builder, input: Value, *size: Any) -> Value:
    """qir.SumToSize."""
    return build("qir.SumToSize", input, size=whole(*size))


def listed(tensors: Sequence[Any]) -> list[Value]:
    """The tensors of a call that lists them, or takes them as one sequence."""
    found = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], list | tuple) else list(tensors)
    known(all(isinstance(tensor, Value) for tensor in found), "a list of tensors that is computed")
    return found


@lowers(torch.broadcast_tensors)
def broadcast_tensors(build: Builder, *tensors: Any) -> tuple[Value, ...]:
    """qir.BroadcastTensors."""
    found = listed(tensors)
    if len(found) == 1:
        return (found[0],)
    return tuple(build.several("qir.BroadcastTensors", len(found), *found))


@lowers(torch.meshgrid)
def meshgrid(build: Builder, *tensors: Any, indexing: Any = None) -> tuple[Value, ...]:
    """qir.MeshGrid."""
    found = listed(tensors)
    if len(found) == 1:
        return (build("Reshape", found[0], build.indices([-1])),)
    return tuple(build.several("qir.MeshGrid", len(found), *found, indexing=indexing))


@lowers(torch.cartesian_prod)
def cartesian_prod(build: Builder, *tensors: Any) -> Value:
    """qir.CartesianProduct."""
    return build("qir.CartesianProduct", *listed(tensors))


@lowers(torch.block_diag)
def block_diag(build: Builder, *tensors: Any) -> Value:
    """qir.BlockDiagonal."""
    return build("qir.BlockDiagonal", *listed(tensors))


def _at_least(name: str, front: Sequence[Sequence[int]]) -> None:
    """`front` has, for each rank below the least one, the new axes."""

    def one(build: Builder, tensor: Value) -> Value:
        rank = tensor.type.rank
        if rank is None or isinstance(tensor.type, ScalarType):
            known(False, "a tensor of unknown rank")
        return build("Unsqueeze", tensor, build.indices(front[rank])) if rank < len(front) else tensor  # type: ignore[operator, index]

    def lowering(build: Builder, *tensors: Any) -> Any:
        several = len(tensors) != 1 or isinstance(tensors[0], list | tuple)
        made = [one(build, tensor) for tensor in listed(tensors)]
        return tuple(made) if several else made[0]

    lowering.__name__ = name
    lowers(*spelled(name))(lowering)


_at_least("atleast_1d", [[0]])
_at_least("atleast_2d", [[0, 1], [0]])
_at_least("atleast_3d", [[0, 1, 2], [0, 2], [2]])


# -- diagonals, windows, turns -----------------------------------------------------------------------------------------

composite("qir.Diagonal", spelled("diagonal"), lambda input, offset=0, dim1=0, dim2=1: (
    (input,), {"offset": offset, "dim1": dim1, "dim2": dim2}))  # fmt: skip
composite("qir.DiagonalMatrix", spelled("diag_embed"), lambda input, offset=0, dim1=-2, dim2=-1: (
    (input,), {"offset": offset, "dim1": dim1, "dim2": dim2}))  # fmt: skip
composite("qir.Windows", ["Tensor.unfold"], lambda input, dimension, size, step: (
    (input,), {"dimension": dimension, "size": size, "step": step}))  # fmt: skip
composite("qir.TakeAlong", spelled("take_along_dim"), lambda input, indices, dim=None: (
    (input, indices), {"dim": dim}))  # fmt: skip


@lowers(*spelled("diag"))
def diag(build: Builder, input: Value, diagonal: int = 0) -> Value:
    """qir.Diagonal of a matrix, qir.DiagonalMatrix of a vector."""
    known(input.type.rank in (1, 2), "a tensor of unknown rank")
    if input.type.rank == 2:
        return build("qir.Diagonal", input, offset=diagonal)
    return build("qir.DiagonalMatrix", input, offset=diagonal)


@lowers(*spelled("diagflat"))
def diagflat(build: Builder, input: Value, offset: int = 0) -> Value:
    """qir.DiagonalMatrix of all elements."""
    return build("qir.DiagonalMatrix", build("Reshape", input, build.indices([-1])), offset=offset)


@lowers(*spelled("take"))
def take(build: Builder, input: Value, index: Value) -> Value:
    """qir.Take."""
    return build("qir.Take", input, index)


@lowers(F.one_hot)
def one_hot(build: Builder, input: Value, num_classes: Any = -1) -> Value:
    """qir.OneHot, for a number of classes that is stated."""
    known(is_number(num_classes) and num_classes > 0, "as many classes as the data needs")
    return build("qir.OneHot", input, num_classes=num_classes)


@lowers(*spelled("rot90"))
def rot90(build: Builder, input: Value, k: Any = 1, dims: Any = (0, 1)) -> Value:
    """qir.Flip and qir.SwapAxes."""
    a, b = axes_of(list(dims)) or (0, 1)
    known(is_number(k), "a computed number of turns")
    if k % 4 == 2:
        return build("qir.Flip", input, dims=(a, b))
    if k % 4:
        return transpose(build, build("qir.Flip", input, dims=(b if k % 4 == 1 else a,)), a, b)  # type: ignore[no-any-return]
    return build("qir.Clone", input)


def equal_parts(build: Builder, input: Value, count: int, dim: int) -> tuple[Value, ...]:
    """Split into parts of equal size, which torch asks for."""
    return tuple(build.several("Split", count, input, axis=dim, num_outputs=count))


def _split(name: str, axis: Any) -> None:
    def lowering(build: Builder, input: Value, *indices: Any, **keywords: Any) -> tuple[Value, ...]:
        (given,) = keywords.values() if keywords else indices if len(indices) == 1 else (indices,)
        known(input.type.rank is not None, "a tensor of unknown rank")
        dim = axis(input.type.rank)
        if isinstance(given, int):
            return equal_parts(build, input, given, dim)
        return tensor_split(build, input, given, dim)  # type: ignore[no-any-return]

    lowering.__name__ = name
    lowers(*spelled(name))(lowering)


_split("hsplit", lambda rank: int(rank > 1))
_split("vsplit", lambda rank: 0)
_split("dsplit", lambda rank: 2)


@lowers(*spelled("unravel_index"))
def unravel_index(build: Builder, indices: Value, shape: Any) -> tuple[Value, ...]:
    """qir.FloorDiv by the number of elements behind an axis, qir.Remainder by its size."""
    sizes = whole(tuple(shape) if isinstance(shape, list | tuple) else shape)
    known(indices.type.dtype is not None, "a tensor of unknown dtype")
    behind = [int(torch.Size(sizes[axis + 1 :]).numel()) for axis in range(len(sizes))]
    return tuple(
        build("qir.Remainder", build("qir.FloorDiv", indices, step), size)
        for size, step in zip(sizes, behind, strict=True)
    )
