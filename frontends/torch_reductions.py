"""Lowerings of torch's functions that sum over axes, and of casts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.frontends.torch_computed import DeviceOf
from qir.frontends.torch_functions import floating, is_number, spelled
from qir.frontends.torch_indexing import whole
from qir.frontends.torch_lowerings import DTYPES, TORCH_DTYPES, Builder, Lowering, known, lowers
from qir.graph import Value
from qir.types import DTYPES as ONNX_DTYPES
from qir.types import ScalarType


def axes_of(dim: Any) -> tuple[int, ...] | None:
    """The axes of a reduction; None for all of them. Raises Unlowered for computed ones."""
    known(not isinstance(dim, bool), "a flag in the place of an axis")
    if dim is None or dim == () or dim == []:
        return None
    return whole(*(dim if isinstance(dim, list | tuple) else (dim,)))


def _summed_in(build: Builder, input: Value, dtype: Any, widens: bool) -> Value:
    """The tensor in the dtype in which torch sums or multiplies: the given one, i64 for whole numbers."""
    known(not isinstance(input.type, ScalarType), "a Python number")
    given = input.type.dtype
    if dtype is None and (given is None or given[0] == "f" or given == "bf16" or not widens):
        return input
    wanted = torch.int64 if dtype is None else dtype
    return input if given == DTYPES[wanted] else _cast(build, input, wanted)


def _reduction(op: str, *spellings: Any) -> Lowering:
    def lowering(build: Builder, input: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
        known(dtype is None or dtype in CASTS.values(), "a reduction in an unknown dtype")
        input = _summed_in(build, input, dtype, op == "ReduceSum")
        axes = axes_of(dim)
        return build(op, input, None if axes is None else build.indices(axes), keepdims=int(keepdim))

    lowering.__name__ = op.lower()
    return lowers(*spellings)(lowering)


_reduction("ReduceMean", torch.mean, "Tensor.mean")
_reduction("ReduceSum", torch.sum, "Tensor.sum")


def _extreme(op: str, *spellings: Any) -> Lowering:
    def lowering(build: Builder, input: Value, dim: Any = (), keepdim: bool = False) -> Value:
        axes = axes_of(dim)
        return build(op, input, None if axes is None else build.indices(axes), keepdims=int(keepdim))

    lowering.__name__ = op.lower()
    return lowers(*spellings)(lowering)


_extreme("ReduceMax", torch.amax, "Tensor.amax")
_extreme("ReduceMin", torch.amin, "Tensor.amin")


def _place(op: str, *spellings: Any) -> Lowering:
    def lowering(build: Builder, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
        axes = axes_of(dim)
        known(axes is not None or not keepdim, "the place among all elements, with all axes kept")
        if axes is None:
            input = build("Reshape", input, build.indices([-1]))
        return build(op, input, axis=0 if axes is None else axes[0], keepdims=int(keepdim))

    lowering.__name__ = op.lower()
    return lowers(*spellings)(lowering)


_place("ArgMax", *spelled("argmax"))
_place("ArgMin", *spelled("argmin"))


@lowers(*spelled("prod"))
def prod(build: Builder, input: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
    """ReduceProd."""
    input = _summed_in(build, input, dtype, True)
    axes = axes_of(dim)
    return build("ReduceProd", input, None if axes is None else build.indices(axes), keepdims=int(keepdim))


@lowers(*spelled("logsumexp"))
def logsumexp(build: Builder, input: Value, dim: Any, keepdim: bool = False) -> Value:
    """ReduceLogSumExp."""
    floating(input)
    axes = axes_of(dim)
    known(axes is not None, "a sum over no axes")
    return build("ReduceLogSumExp", input, build.indices(axes or ()), keepdims=int(keepdim))


@lowers(*spelled("cumsum"))
def cumsum(build: Builder, input: Value, dim: int, *, dtype: Any = None) -> Value:
    """CumSum."""
    return build("CumSum", _summed_in(build, input, dtype, True), build.indices([dim]))


def _spread(op: str, *spellings: Any) -> Lowering:
    def lowering(build: Builder, input: Value, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
                 correction: Any = None) -> Value:  # fmt: skip
        floating(input)
        known(unbiased is None or (isinstance(unbiased, bool) and correction is None), "two corrections")
        known(correction is None or is_number(correction), "a computed correction")
        count = correction if correction is not None else 1 if unbiased is None else int(unbiased)
        return build(op, input, dim=axes_of(dim), correction=count, keepdim=keepdim)

    lowering.__name__ = op.rpartition(".")[2].lower()
    return lowers(*spellings)(lowering)


_spread("qir.Variance", *spelled("var"))
_spread("qir.StandardDeviation", *spelled("std"))


@lowers(*spelled("norm"))
def norm(build: Builder, input: Value, p: Any = "fro", dim: Any = None, keepdim: bool = False,
         dtype: Any = None) -> Value:  # fmt: skip
    """qir.Norm."""
    known(dtype is None and (p is None or p == "fro" or is_number(p)), "a norm of matrices, or with dtype")
    floating(input)
    return build("qir.Norm", input, p=2.0 if p in ("fro", None) else float(p), dim=axes_of(dim), keepdim=keepdim)


@lowers(torch.linalg.vector_norm)
def vector_norm(build: Builder, x: Value, ord: Any = 2, dim: Any = None, keepdim: bool = False, *,
                dtype: Any = None) -> Value:  # fmt: skip
    """qir.Norm."""
    return norm(build, x, ord, dim, keepdim, dtype)  # type: ignore[no-any-return]


@lowers(F.normalize)
def normalize(build: Builder, input: Value, p: Any = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Value:
    """qir.Normalize."""
    known(is_number(p) and isinstance(dim, int) and out is None, "several axes, or a result to write to")
    return build("qir.Normalize", input, p=p, dim=dim, eps=eps)


def _boolean(op: str, *spellings: Any) -> Lowering:
    def lowering(build: Builder, input: Value, dim: Any = None, keepdim: bool = False) -> Value:
        known(input.type.dtype == "bool", "only lowered for booleans")
        return build(op, input, dim=axes_of(dim), keepdim=keepdim)

    lowering.__name__ = op.rpartition(".")[2].lower()
    return lowers(*spellings)(lowering)


_boolean("qir.Any", *spelled("any"))
_boolean("qir.All", *spelled("all"))


@lowers(F.cosine_similarity, nn.CosineSimilarity)
def cosine_similarity(build: Builder, x1: Value, x2: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    """qir.CosineSimilarity."""
    return build("qir.CosineSimilarity", x1, x2, dim=dim, eps=eps)


@lowers(F.pairwise_distance)
def pairwise_distance(build: Builder, x1: Value, x2: Value, p: float = 2.0, eps: float = 1e-6,
                      keepdim: bool = False) -> Value:  # fmt: skip
    """qir.PairwiseDistance."""
    return build("qir.PairwiseDistance", x1, x2, p=p, eps=eps, keepdim=keepdim)


@lowers(nn.PairwiseDistance)
def pairwise_distance_layer(build: Builder, x1: Value, x2: Value, norm: float = 2.0, eps: float = 1e-6,
                            keepdim: bool = False) -> Value:  # fmt: skip
    """qir.PairwiseDistance, whose p the layer calls norm."""
    return build("qir.PairwiseDistance", x1, x2, p=norm, eps=eps, keepdim=keepdim)


# -- products --------------------------------------------------------------------------------------------------------


@lowers(*spelled("addmm"))
def addmm(build: Builder, input: Value, mat1: Value, mat2: Value, *, beta: Any = 1, alpha: Any = 1) -> Value:
    """qir.AddMatMul."""
    known(is_number(beta, alpha), "a computed factor")
    return build("qir.AddMatMul", input, mat1, mat2, beta=beta, alpha=alpha)


@lowers(*spelled("baddbmm"))
def baddbmm(build: Builder, input: Value, batch1: Value, batch2: Value, *, beta: Any = 1, alpha: Any = 1) -> Value:
    """qir.AddBatchMatMul."""
    known(is_number(beta, alpha), "a computed factor")
    return build("qir.AddBatchMatMul", input, batch1, batch2, beta=beta, alpha=alpha)


@lowers(torch.einsum)
def einsum(build: Builder, equation: str, *operands: Any, path: Any = None) -> Value:
    """Einsum. torch chooses the path of three operands and more from their sizes, at every call."""
    listed = operands[0] if len(operands) == 1 and isinstance(operands[0], list | tuple) else operands
    known(isinstance(equation, str), "an equation in numbers")
    return build("Einsum", *listed, equation=equation.replace(" ", ""))


# -- casts -----------------------------------------------------------------------------------------------------------

CASTS = {
    "float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16,
    "int": torch.int32, "long": torch.int64, "short": torch.int16, "char": torch.int8, "byte": torch.uint8,
    "bool": torch.bool,
}  # fmt: skip


def _cast(build: Builder, input: Value, dtype: torch.dtype) -> Value:
    known(dtype in CASTS.values(), f"a cast to {dtype}")
    known(not isinstance(input.type, ScalarType), "a Python number")
    return build("Cast", input, to=ONNX_DTYPES[DTYPES[dtype]])


@lowers("Tensor.to", "Tensor.type")
def to(build: Builder, input: Value, *given: Any, dtype: Any = None, device: Any = None, layout: Any = None,
       pin_memory: Any = None, non_blocking: Any = False, copy: Any = False, other: Any = None,
       memory_format: Any = None) -> Value:  # fmt: skip
    """Cast to a dtype, or qir.OnDevice; to the device and dtype of another tensor, a Cast."""
    known(not copy and memory_format in (None, torch.preserve_format), "more than a cast")
    known(layout in (None, torch.strided) and not any(item is True for item in given), "more than a cast")
    for item in (*given, other):
        if isinstance(item, torch.dtype):
            dtype = item
        elif isinstance(item, torch.device | str | DeviceOf):
            device = item
        elif isinstance(item, Value):
            dtype = TORCH_DTYPES.get(str(item.type.dtype))
            known(dtype is not None and not isinstance(item.type, ScalarType), "a dtype that is not known")
    known(dtype is not None or device is not None, "not a cast to a dtype")
    if isinstance(device, torch.device | str):
        return build("qir.OnDevice", input, device=str(device), dtype=None if dtype is None else DTYPES[dtype])
    return build("Identity", input) if dtype is None else _cast(build, input, dtype)


def _cast_method(name: str, dtype: torch.dtype) -> None:
    def lowering(build: Builder, input: Value, memory_format: Any = torch.preserve_format) -> Value:
        known(memory_format is torch.preserve_format, "another memory format")
        return _cast(build, input, dtype)

    lowering.__name__ = f"cast_{name}"
    lowers(f"Tensor.{name}")(lowering)


for _name, _dtype in CASTS.items():
    _cast_method(_name, _dtype)
