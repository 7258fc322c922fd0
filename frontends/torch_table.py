"""The whole table of torch lowerings, and how a lowering is tried. Both torch importers read it here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qir.errors import QirError
from qir.frontends import (  # noqa: F401  (they fill the table)
    torch_activations,
    torch_answers,
    torch_attention,
    torch_copies,
    torch_counting,
    torch_creation,
    torch_einops,
    torch_elements,
    torch_functions,
    torch_indexing,
    torch_layers,
    torch_more_layers,
    torch_norms,
    torch_pooling,
    torch_products,
    torch_recurrent,
    torch_reductions,
    torch_scatter,
    torch_shapes,
    torch_sorting,
    torch_tensors,
    torch_transformer,
    torch_windows,
)
from qir.frontends.torch_lowerings import Builder, Lowering, Unlowered, lowers

__all__ = ["lowers", "tried"]


def tried(build: Builder, lowering: Lowering | None, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What the lowering makes of the call; where it does not cover the arguments or there is none, Unlowered."""
    if lowering is None:
        return Unlowered("nothing lowers it yet")
    try:
        return lowering(build, *args, **kwargs)
    except (Unlowered, TypeError, QirError) as reason:
        build.undo()
        if isinstance(reason, TypeError) and "argument" not in str(reason):
            raise
        return Unlowered(str(reason.message if isinstance(reason, QirError) else reason))
