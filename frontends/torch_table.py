"""The whole table of torch lowerings. Both torch importers read it here."""

from __future__ import annotations

from qir.extensions import load_modules
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
    torch_stacking,
    torch_tensors,
    torch_transformer,
    torch_windows,
)
from qir.frontends.torch_lowerings import lowers
from qir.lowering import tried

__all__ = ["lowers", "tried"]

load_modules("qir.torch")
