"""What improves a calibrated simulator without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qir.simulation.construction import arguments_of
from qir.simulation.quantsim import QuantizationSimModel


def correct_biases(sim: QuantizationSimModel, batches: Sequence[Any]) -> list[str]:
    """Move biases so that the mean of every channel of a layer with a rounded weight is what it is in float.

    `batches` are tensors, sequences of positional arguments or mappings of keyword arguments; they are run once, and
    once more for every layer. Returns the paths of the layers that were corrected: those that have a bias. Four-bit
    weights profit most. (AIMET calls this empirical bias correction.)
    """
    from qir.backends.torch_bias_correction import correct_biases as correct

    def run() -> None:
        for positional, keywords in map(arguments_of, batches):
            sim.model(*positional, **keywords)

    layers = {layer.module: layer.name for layer in sim.layers() if "weight" in layer.param_quantizers}
    return [layers[layer] for layer in correct(sim.model, list(layers), run)]
