"""Simulators in files: AIMET's `save_checkpoint` and `load_checkpoint`, without pickles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qir.pipeline import Pipeline
from qir.simulation.quantsim import QuantizationSimModel
from qir.simulation.schemes import QuantScheme

if TYPE_CHECKING:
    from qir.graph import Graph


def save_checkpoint(quant_sim_model: QuantizationSimModel, file_path: str | Path) -> None:
    """Write a simulator to one safetensors file, whole or not at all. Nothing in it is code."""
    from qir.backends import torch_checkpoint

    sim = quant_sim_model
    settings = {
        "scheme": sim.scheme.name,
        "percentile": sim.percentile,
        "target": sim.target,
        "frozen": sorted(sim.frozen),
        "pipeline": str(sim.pipeline),
    }
    torch_checkpoint.save_checkpoint(file_path, sim.graph, sim.model, settings)


def load_checkpoint(file_path: str | Path, graph: Graph | None = None) -> QuantizationSimModel:
    """The simulator that was saved, its outputs equal bit for bit.

    A model with layers that qir keeps as they are needs `graph`: the `graph` of a simulator made like the one that was
    saved. Raises QirError for a file that is no checkpoint, is damaged, or is of another model.
    """
    from qir.backends import torch_checkpoint

    found, module, settings = torch_checkpoint.load_checkpoint(file_path, graph)
    sim = QuantizationSimModel.__new__(QuantizationSimModel)
    sim.graph, sim.model = found, module
    sim.scheme, sim.percentile = QuantScheme[settings["scheme"]], settings["percentile"]
    sim.target, sim.frozen, sim.notes = settings["target"], set(settings["frozen"]), []
    sim.pipeline = Pipeline.parse(settings["pipeline"])
    return sim
