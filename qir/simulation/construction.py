"""How a simulator comes about: the model's graph, the pipeline that places its quantizers, and the module."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qir.api.preparation import PREPARE, copy_training_flags, preparation
from qir.api.prepare_arguments import unwrapped
from qir.api.quantize import quantization
from qir.api.same_outputs import Examples
from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pipeline
from qir.simulation.schemes import QuantizationDataType

if TYPE_CHECKING:
    from torch import fx, nn


def placement(
    target: str | None,
    config_file: str | Path | None,
    output_bw: int,
    param_bw: int,
    data_type: QuantizationDataType,
) -> Pipeline:
    """What turns a graph into a simulator: `quantization` without its calibration, or AIMET's own steps."""
    if target is None:
        config = json.dumps(str(DEFAULT_CONFIG if config_file is None else config_file))
        options = f"config={config} output_bw={output_bw} param_bw={param_bw} data_type={data_type.name}"
        return Pipeline.parse(f"decompose,{PREPARE},insert-quantizers{{{options}}},propagate-encodings")
    widths = {"output_bw": output_bw, "param_bw": param_bw}
    options = " ".join(f"{name}={bits}" for name, bits in widths.items() if bits != PROFILE_BITS)
    if data_type is QuantizationDataType.float:
        options += " data_type=float"
    return Pipeline.of(*quantization(target, insert=options).passes[:-1])


PROFILE_BITS = 8
"""The width that leaves the choice to a target profile."""

DEFAULT_CONFIG = "default_config"
"""AIMET's config when no file is given."""


def prepared(model: nn.Module | Graph, dummy_input: Any) -> Graph:
    """The graph of a model, prepared."""
    if isinstance(model, Graph):
        return model.copy()
    from qir.backends.torch_quantizers import Quantizer

    if any(isinstance(module, Quantizer) for module in model.modules()):
        raise QirError("the model holds quantizers already", help="give the float model")
    positional, keywords = arguments_of(dummy_input) if dummy_input is not None else ((), {})
    given = None if dummy_input is None else list(positional)
    return preparation(model, Examples(given, dict(keywords))).graph


def emitted(graph: Graph, model: nn.Module | Graph, in_place: bool) -> fx.GraphModule:
    """The simulator's module, with the training flags of the model."""
    from qir.backends.torch_module import emit_torch

    module = emit_torch(graph, share=in_place)
    if not isinstance(model, Graph):
        copy_training_flags(module, unwrapped(model))
    return module


def arguments_of(batch: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
    """A batch as positional and keyword arguments of the model."""
    if isinstance(batch, Mapping):
        return (), batch
    return (tuple(batch), {}) if isinstance(batch, list | tuple) else ((batch,), {})
