"""What `bench.qat` measures: the simulator of qir, and those of other tools where they are installed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir


@dataclass(frozen=True)
class Simulated:
    """A module that rounds, how it is calibrated, by batches and by samples, and how many quantizers it has."""

    module: nn.Module
    calibrate: Callable[[Sequence[Tensor]], None]
    quantizers: int
    by_sample: Callable[[Sequence[Tensor]], None] | None = None


Build = Callable[[nn.Module, Tensor, str], Simulated]
"""Makes the simulator of a float model; the last argument is the observer, `min-max` or `histogram`."""


def qir_simulator(model: nn.Module, example: Tensor, observer: str) -> Simulated:
    """8 bits everywhere that AIMET's default config says."""
    return _qir(model, example, {"min-max": "tf", "histogram": "tf_enhanced"}[observer])


def qir_learned(model: nn.Module, example: Tensor, observer: str) -> Simulated:
    """The same with trainable scales."""
    end = {"min-max": "tf_init", "histogram": "tf_enhanced_init"}[observer]
    return _qir(model, example, f"training_range_learning_with_{end}")


def _qir(model: nn.Module, example: Tensor, scheme: str) -> Simulated:
    from qir.backends.torch_quantizers import quantizers_of

    sim = qir.QuantizationSimModel(model, example, quant_scheme=scheme)

    def run(module: nn.Module, batches: Sequence[Tensor]) -> None:
        for batch in batches:
            module(batch)

    count = len(quantizers_of(sim.model))
    return Simulated(sim.model, lambda batches: sim.compute_encodings(run, batches), count, sim.compute_encodings)


def aimet(model: nn.Module, example: Tensor, observer: str) -> Simulated:
    """AIMET on its own prepared model."""
    from aimet_torch.common.defs import QuantScheme  # type: ignore[import-not-found]
    from aimet_torch.model_preparer import prepare_model  # type: ignore[import-not-found]
    from aimet_torch.quantsim import QuantizationSimModel  # type: ignore[import-not-found]

    scheme = {"min-max": QuantScheme.min_max, "histogram": QuantScheme.post_training_tf_enhanced}[observer]
    sim = QuantizationSimModel(prepare_model(model.eval()), example, quant_scheme=scheme, config_file="default")

    def calibrate(batches: Sequence[Tensor]) -> None:
        with torch.no_grad():
            sim.compute_encodings(lambda module: [module(batch) for batch in batches])

    return Simulated(sim.model, calibrate, len(list(sim.quantizers())))


def brevitas(model: nn.Module, example: Tensor, observer: str) -> Simulated:
    """Brevitas, by layers."""
    from brevitas.graph.calibrate import calibration_mode  # type: ignore[import-not-found]
    from brevitas_examples.imagenet_classification.ptq.ptq_common import (  # type: ignore[import-not-found]
        quantize_model,
    )

    module = quantize_model(
        model.eval(), "layerwise", weight_bit_width=8, act_bit_width=8, bias_bit_width=32,
        weight_quant_granularity="per_channel", act_quant_percentile=100 if observer == "min-max" else 99.999,
        act_quant_type="sym", scale_factor_type="float_scale", quant_format="int", weight_narrow_range=True,
        weight_param_method="stats", act_param_method="stats", layerwise_first_last_bit_width=8,
    )  # fmt: skip

    def calibrate(batches: Sequence[Tensor]) -> None:
        with torch.no_grad(), calibration_mode(module):
            for batch in batches:
                module(batch)

    return Simulated(module, calibrate, sum("Proxy" in type(inner).__name__ for inner in module.modules()))


def torchao(model: nn.Module, example: Tensor, observer: str) -> Simulated:
    """torchao's PT2E flow with the x86 quantizer, which takes no layer that is called twice: on a prepared model."""
    import torchao.quantization.pt2e as pt2e  # type: ignore[import-not-found]
    import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86  # type: ignore[import-not-found]
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e  # type: ignore[import-not-found]

    if observer != "min-max":
        raise NotImplementedError("its training observers are moving averages")
    prepared, several = qir.prepare_model(model.eval()).train(), torch.cat([example, example])
    exported = torch.export.export(prepared, (several,), dynamic_shapes=({0: torch.export.Dim.AUTO},)).module()
    config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
    module = prepare_qat_pt2e(exported, x86.X86InductorQuantizer().set_global(config))

    def calibrate(batches: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for batch in batches:
                module(batch)

    pt2e.allow_exported_model_train_eval(module)
    return Simulated(module, calibrate, sum("FakeQuant" in type(inner).__name__ for inner in module.modules()))


def modelopt(model: nn.Module, example: Tensor, observer: str) -> Simulated:
    """ModelOpt's INT8 default, whose calibration is part of building."""
    import modelopt.torch.quantization as mtq  # type: ignore[import-not-found]

    if observer != "min-max":
        raise NotImplementedError("its default is the maximum")
    config = deepcopy(mtq.INT8_DEFAULT_CFG)
    module = mtq.quantize(model.eval(), config, lambda inner: inner(example))

    def calibrate(batches: Sequence[Tensor]) -> None:
        with torch.no_grad():
            mtq.quantize(module, config, lambda inner: [inner(batch) for batch in batches])

    return Simulated(module, calibrate, sum("TensorQuantizer" in type(inner).__name__ for inner in module.modules()))


SUBJECTS: dict[str, Build] = {"qir": qir_simulator, "qir, learned": qir_learned}
PEERS: dict[str, tuple[str, Build]] = {
    "AIMET": ("aimet_torch", aimet),
    "Brevitas": ("brevitas_examples", brevitas),
    "torchao": ("torchao", torchao),
    "ModelOpt": ("modelopt", modelopt),
}


def installed() -> dict[str, Build]:
    """The simulators that there are here."""
    found = dict(SUBJECTS)
    for name, (package, build) in PEERS.items():
        with suppress(ImportError, ValueError):
            if find_spec(package) is not None:
                found[name] = build
    return found


class _Layer(nn.Module):
    """Attention and a feed-forward part, each behind a layer norm."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(size), nn.LayerNorm(size)
        self.q, self.k, self.v, self.o = (nn.Linear(size, size) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(size, 4 * size), nn.Linear(4 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, size = x.shape
        normed = self.norm1(x)
        split = [f(normed).view(batch, length, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v)]
        scores = split[0] @ split[1].transpose(-2, -1) / math.sqrt(size // self.heads)
        mixed = (F.softmax(scores, -1) @ split[2]).transpose(1, 2).reshape(batch, length, size)
        x = x + self.o(mixed)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    """A text encoder of four layers, 256 wide, for 128 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1000, 256)
        self.layers = nn.Sequential(*(_Layer(256, 4) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(256), nn.Linear(256, 10)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.layers(self.tokens(ids))).mean(1))


def models() -> dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]]:
    """By name: what makes a float model, and what makes a batch of this size for it."""
    from tests.torchvision_cpu import torchvision_models

    found: dict[str, Any] = {"encoder": (Encoder, lambda batch: torch.randint(0, 1000, (batch, 128)))}
    if (torchvision := torchvision_models()) is not None:
        found["resnet18"] = torchvision.resnet18, lambda batch: torch.randn(batch, 3, 224, 224)
    return found
