"""What is known about calls of frameworks that stay opaque."""

from __future__ import annotations

from qir.traits import Trait, Views

_VIEWS = (
    "alias broadcast_to chunk detach diagonal dsplit expand expand_as float getattr getitem hsplit imag index "
    "moveaxis movedim narrow real reshape_as select size slice split split_with_sizes squeeze stride swapaxes swapdims "
    "tensor_split to type_as unbind unflatten unfold unsafe_chunk unsafe_split unsqueeze view_as vsplit"
)
_NUMBERS = {
    "int": "dim element_size get_device ndimension nelement numel storage_offset",
    "bool": "is_complex is_contiguous is_floating_point is_inference is_nonzero is_signed",
}

VIEWS = frozenset(_VIEWS.split())
"""Functions and methods of torch whose results may be views of their first argument, or are read from it."""
NUMBERS = {name: kind for kind, names in _NUMBERS.items() for name in names.split()}
"""Functions and methods of torch that return a Python number, with its kind."""


def number_of(op: str) -> str | None:
    """The kind of Python number that an opaque operator returns; None where it returns anything else."""
    return NUMBERS.get(_name(op))


def traits_of_opaque(op: str) -> tuple[Trait, ...]:
    """The traits of an opaque operator, such as `torch.Tensor.chunk` or `torch.ops.aten.chunk.default`."""
    return (Views(),) if _name(op) in VIEWS else ()


def _name(op: str) -> str:
    """The name of a function or method of torch; nothing for those of others."""
    framework, *_, name = op.removeprefix("torch.ops.").split(".")[:2] if op.startswith("torch.ops.") else op.split(".")
    return name if framework in ("torch", "aten") else ""
