"""Types that ONNX models state, joined with what inference finds."""

from __future__ import annotations

from qir.types import UNKNOWN, Dim, OptionalType, SequenceType, TensorType, Type


def refined(inferred: Type, declared: Type | None) -> Type:
    """`inferred`, its unknown parts as `declared` where the two agree on the others."""
    if declared is None or inferred == UNKNOWN:
        return declared or inferred
    if isinstance(inferred, SequenceType | OptionalType) and type(inferred) is type(declared):
        return type(inferred)(refined(inferred.element, declared.element))
    if not isinstance(inferred, TensorType) or not isinstance(declared, TensorType):
        return inferred
    if inferred.dtype not in (None, declared.dtype):
        return inferred
    if inferred.shape is None or declared.shape is None:
        return TensorType(declared.dtype, declared.shape if inferred.shape is None else inferred.shape)
    if len(inferred.shape) != len(declared.shape):
        return inferred
    return TensorType(declared.dtype, tuple(map(_known, inferred.shape, declared.shape)))


def _known(inferred: Dim, declared: Dim) -> Dim:
    return declared if inferred is None else inferred
