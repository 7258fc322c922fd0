"""Lowerings of torch's products, distances, weighted sums and rows of embeddings."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qir.frontends.torch_functions import floating, is_number, spelled
from qir.frontends.torch_indexing import at, whole
from qir.frontends.torch_lowerings import Builder, composite, known, lowers
from qir.frontends.torch_reductions import axes_of
from qir.frontends.torch_shapes import listed
from qir.frontends.torch_sorting import named
from qir.frontends.torch_tensors import cat
from qir.graph import Value
from qir.types import DTYPES as ONNX_DTYPES

for _op, _names, _parts in (("qir.AddMatVec", "addmv", ("mat", "vec")), ("qir.AddOuter", "addr", ("vec1", "vec2")),
                            ("qir.AddSummedMatMul", "addbmm", ("batch1", "batch2"))):  # fmt: skip
    composite(_op, spelled(_names), {
        "addmv": lambda input, mat, vec, *, beta=1, alpha=1: ((input, mat, vec), {"beta": beta, "alpha": alpha}),
        "addr": lambda input, vec1, vec2, *, beta=1, alpha=1: ((input, vec1, vec2), {"beta": beta, "alpha": alpha}),
        "addbmm": lambda input, batch1, batch2, *, beta=1, alpha=1: (
            (input, batch1, batch2), {"beta": beta, "alpha": alpha}),
    }[_names])  # fmt: skip

composite("qir.Inner", spelled("inner"), lambda input, other: ((input, other), {}))
composite("qir.Kronecker", spelled("kron"), lambda input, other: ((input, other), {}))
composite("qir.Cross", spelled("cross"), lambda input, other, dim=None: ((input, other), {"dim": dim}))
composite("qir.Trace", spelled("trace"), lambda input: ((input,), {}))
composite("qir.Distances", [torch.cdist],
          lambda x1, x2, p=2.0, compute_mode="use_mm_for_euclid_dist_if_necessary": (
              (x1, x2), {"p": p, "compute_mode": compute_mode}))  # fmt: skip
composite("qir.Distance", spelled("dist"), lambda input, other, p=2: ((input, other), {"p": p}))
composite("qir.PairDistances", [F.pdist, torch.pdist], lambda input, p=2: ((input,), {"p": p}))
composite("qir.Renormalized", spelled("renorm"), lambda input, p, dim, maxnorm: (
    (input,), {"p": p, "dim": dim, "maxnorm": maxnorm}))  # fmt: skip
composite("qir.Bilinear", [F.bilinear, torch.bilinear, nn.Bilinear], lambda input1, input2, weight, bias=None: (
    (input1, input2, weight, bias), {}))  # fmt: skip
composite("qir.ConvTBC", [torch.conv_tbc], lambda input, weight, bias, pad=0: ((input, weight, bias), {"pad": pad}))
composite("Det", spelled("det"), lambda input: ((input,), {}))
composite("qir.LogDeterminant", spelled("logdet"), lambda input: ((input,), {}))
composite("qir.SignAndLogDeterminant", spelled("slogdet"), lambda input: ((input,), {}), named("slogdet"))
composite("qir.NormExcept", [torch.norm_except_dim], lambda v, pow=2, dim=0: ((v,), {"pow": pow, "dim": dim}))
composite("qir.Correlation", spelled("corrcoef"), lambda input: ((input,), {}))
composite("qir.Covariance", spelled("cov"), lambda input, *, correction=1: ((input,), {"correction": correction}))


@lowers(torch.tensordot)
def tensordot(build: Builder, a: Value, b: Value, dims: Any = 2, out: Any = None) -> Value:
    """qir.TensorDot."""
    known(out is None, "a result to write to")
    axes = dims if isinstance(dims, int) else tuple(whole(tuple(part)) for part in dims)
    return build("qir.TensorDot", a, b, dims=axes)


@lowers(torch.chain_matmul)
def chain_matmul(build: Builder, *matrices: Any) -> Value:
    """qir.ChainMatMul."""
    return build("qir.ChainMatMul", *listed(matrices))


@lowers(*spelled("matrix_power"))
def matrix_power(build: Builder, input: Value, n: Any) -> Value:
    """qir.MatrixPower."""
    known(is_number(n) and n > 0, "the power of an inverse")
    return build("qir.MatrixPower", input, n=n)


# -- sums --------------------------------------------------------------------------------------------------------------


def _area(op: str, *spellings: Any) -> None:
    def lowering(build: Builder, y: Value, x: Any = None, *, dx: Any = None, dim: int = -1) -> Value:
        known(dx is None or is_number(dx), "a computed step")
        floating(y)
        return build(op, y, x, dx=1.0 if dx is None else float(dx), dim=dim)

    lowering.__name__ = op.rpartition(".")[2].lower()
    lowers(*spellings)(lowering)


_area("qir.Trapezoid", torch.trapezoid, torch.trapz)
_area("qir.CumulativeTrapezoid", torch.cumulative_trapezoid)


@lowers(torch.gradient)
def gradient(
    build: Builder, input: Value, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1
) -> tuple[Value, ...]:
    """qir.Gradient for each axis."""
    axes = axes_of(dim)
    known(input.type.rank is not None, "a tensor of unknown rank")
    axes = tuple(range(input.type.rank)) if axes is None else axes  # type: ignore[arg-type]
    steps = list(spacing) if isinstance(spacing, list | tuple) else [spacing] * len(axes)
    known(is_number(*steps) and len(steps) == len(axes), "places that are no regular grid")
    floating(input)
    return tuple(
        build("qir.Gradient", input, spacing=step, dim=axis, edge_order=edge_order)
        for step, axis in zip(steps, axes, strict=True)
    )


@lowers(*spelled("diff"))
def diff(build: Builder, input: Value, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Value:
    """Sub of neighbours, n times."""
    known(is_number(n, dim) and input.type.dtype not in (None, "bool"), "a dtype that is not known")
    joined = [part for part in (prepend, input, append) if part is not None]
    value = cat(build, joined, dim) if len(joined) > 1 else input
    for _ in range(n):
        first, second = (build("qir.Index", value, index=at(dim, part)) for part in (slice(None, -1), slice(1, None)))
        value = build("Sub", second, first)
    return value


@lowers(*spelled("count_nonzero"))
def count_nonzero(build: Builder, input: Value, dim: Any = None) -> Value:
    """ReduceSum of what is not zero."""
    axes = axes_of(dim)
    truth = build("Cast", input, to=ONNX_DTYPES["bool"])
    counted = build("Cast", truth, to=ONNX_DTYPES["i64"])
    return build("ReduceSum", counted, None if axes is None else build.indices(axes), keepdims=0)


@lowers(torch.frobenius_norm)
def frobenius_norm(build: Builder, input: Value, dim: Any, keepdim: bool = False) -> Value:
    """qir.Norm."""
    floating(input)
    return build("qir.Norm", input, p=2.0, dim=axes_of(dim), keepdim=keepdim)


def _of_numbers(op: str, name: str) -> None:
    def lowering(build: Builder, input: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Value:
        known(dtype is None, "a reduction with dtype")
        floating(input)
        return build(op, input, dim=axes_of(dim), keepdim=keepdim)

    lowering.__name__ = name
    lowers(*spelled(name))(lowering)


_of_numbers("qir.NanSum", "nansum")
_of_numbers("qir.NanMean", "nanmean")


def _with_mean(op: str, function: Any) -> None:
    def lowering(build: Builder, input: Value, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
                 correction: Any = None) -> tuple[Value, ...]:  # fmt: skip
        floating(input)
        known(unbiased is None or (isinstance(unbiased, bool) and correction is None), "two corrections")
        known(correction is None or is_number(correction), "a computed correction")
        count = correction if correction is not None else 1 if unbiased is None else int(unbiased)
        return tuple(build.several(op, 2, input, dim=axes_of(dim), correction=count, keepdim=keepdim))

    lowering.__name__ = function.__name__
    lowers(function)(lowering)


_with_mean("qir.VarianceMean", torch.var_mean)
_with_mean("qir.DeviationMean", torch.std_mean)


# -- rows of embeddings ------------------------------------------------------------------------------------------------


@lowers(F.embedding, nn.Embedding)
def embedding(build: Builder, input: Value, weight: Any, padding_idx: int | None = None, max_norm: float | None = None,
              norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False) -> Value:  # fmt: skip
    """Gather of rows; qir.Embedding where it trains in another way."""
    known(max_norm is None, "an embedding with max_norm, which changes its weight")
    if padding_idx is None and not scale_grad_by_freq and not sparse:
        return build("Gather", weight, input)
    return build("qir.Embedding", weight, input, padding_idx=padding_idx, scale_grad_by_freq=scale_grad_by_freq,
                 sparse=sparse)  # fmt: skip


@lowers(torch.embedding)
def rows(build: Builder, weight: Value, indices: Value, padding_idx: int = -1, scale_grad_by_freq: bool = False,
         sparse: bool = False) -> Value:  # fmt: skip
    """The embedding with its arguments in another order; here -1 stands for no padding."""
    given = None if padding_idx == -1 else padding_idx
    return embedding(build, indices, weight, given, None, 2.0, scale_grad_by_freq, sparse)  # type: ignore[no-any-return]


@lowers(F.embedding_bag)
def embedding_bag(build: Builder, input: Value, weight: Any, offsets: Any = None, max_norm: Any = None,
                  norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean", sparse: bool = False,
                  per_sample_weights: Any = None, include_last_offset: bool = False,
                  padding_idx: Any = None) -> Value:  # fmt: skip
    """qir.EmbeddingBag."""
    known(max_norm is None, "an embedding with max_norm, which changes its weight")
    return build("qir.EmbeddingBag", weight, input, offsets, per_sample_weights, mode=mode, sparse=sparse,
                 scale_grad_by_freq=scale_grad_by_freq, include_last_offset=include_last_offset,
                 padding_idx=padding_idx)  # fmt: skip


@lowers(nn.EmbeddingBag)
def embedding_bag_layer(build: Builder, input: Value, offsets: Any = None, per_sample_weights: Any = None, *,
                        weight: Any, max_norm: Any, scale_grad_by_freq: bool, mode: str, sparse: bool,
                        include_last_offset: bool, padding_idx: Any) -> Value:  # fmt: skip
    """qir.EmbeddingBag."""
    return embedding_bag(build, input, weight, offsets, max_norm, 2.0, scale_grad_by_freq, mode, sparse,  # type: ignore[no-any-return]
                         per_sample_weights, include_last_offset, padding_idx)  # fmt: skip


@lowers(F.grouped_mm, torch._grouped_mm)
def grouped_mm(build: Builder, mat_a: Value, mat_b: Any, *, offs: Any = None, bias: Any = None,
               out_dtype: Any = None) -> Value:  # fmt: skip
    """qir.GroupedMatMul of the rows of a matrix and a stack of matrices."""
    matrix, stack = mat_a, build.value(mat_b)
    known(matrix.type.rank == 2 and stack is not None and stack.type.rank == 3, "groups of columns, or of stacks")
    known(offs is not None and bias is None and out_dtype is None, "a bias, or another dtype")
    return build("qir.GroupedMatMul", matrix, stack, offs)


@lowers("torch.ops.transformers.grouped_mm_fallback")
def grouped_mm_of_transformers(build: Builder, input: Value, weight: Any, offs: Any) -> Value:
    """qir.GroupedMatMul."""
    return build("qir.GroupedMatMul", input, weight, offs)
