"""Empirical bias correction: what rounding shifts in the mean of a layer's result, its bias takes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from qir.backends.torch_quantizers import quantizers_of


def correct_biases(module: nn.Module, layers: Sequence[nn.Module], run: Callable[[], object]) -> list[nn.Module]:
    """Move the biases of `layers` so that the mean of each channel of their results is what it is without rounding.

    `layers` stand in the order of execution below `module`, whose quantizers are calibrated; `run` puts data through
    it, the same at every call. A layer is corrected after those before it. Returns the layers that have a bias.
    (Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019, section 4.2.)
    """
    having = [
        layer for layer in layers if all(isinstance(getattr(layer, name, None), Tensor) for name in ("weight", "bias"))
    ]
    found = [(quantizer, quantizer.enabled) for _, quantizer in quantizers_of(module)]
    for quantizer, _ in found:
        quantizer.enabled = False
    try:
        wanted = _means(having, run)
    finally:
        for quantizer, enabled in found:
            quantizer.enabled = enabled
    for layer, mean in zip(having, wanted, strict=True):
        (shifted,) = _means([layer], run)
        with torch.no_grad():
            layer.get_parameter("bias").add_(mean - shifted)
    return having


def _means(layers: Sequence[nn.Module], run: Callable[[], object]) -> list[Tensor]:
    """The mean of every channel of each layer's results, over all data, in float64 until the end."""
    sums: dict[nn.Module, Tensor] = {}
    counts: dict[nn.Module, int] = dict.fromkeys(layers, 0)

    def see(layer: nn.Module, inputs: object, result: Tensor) -> None:
        channels = result.detach().movedim(_channel_axis(layer), -1).flatten(0, -2).double()
        sums[layer] = sums.get(layer, 0) + channels.sum(0)
        counts[layer] += len(channels)

    hooks = [layer.register_forward_hook(see) for layer in layers]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return [(sums[layer] / counts[layer]).to(layer.get_parameter("bias").dtype) for layer in layers]


def _channel_axis(layer: nn.Module) -> int:
    """The second axis for a convolution, whose weight has spatial axes; the last one for a matrix product."""
    return 1 if isinstance(layer.weight, Tensor) and layer.weight.ndim > 2 else -1
