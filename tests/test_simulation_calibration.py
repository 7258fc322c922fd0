"""compute_encodings: what the grids of a simulator are afterwards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qir import QuantizationSimModel
from qir.backends.onnx_qdq import session


def clamped() -> nn.Module:
    """Convolutions and clamps; 255 steps of float32(7.97 / 255) end above 7.97."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels, gain, clamp in ((3, 30.0, nn.ReLU6()), (8, 1.0, nn.ReLU6()), (8, 30.0, nn.Hardtanh(0, 7.97))):
        conv = nn.Conv2d(channels, 8, 3, padding=1)
        nn.init.uniform_(conv.weight, -gain / 8, gain / 8)
        layers += [conv, clamp]
    return nn.Sequential(*layers, nn.Conv2d(8, 4, 1), nn.ReLU()).eval()


def batches(count: int = 3) -> list[Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, 8, 8, generator=random) for _ in range(count)]


def calibrated(scheme: str, target: str | None = None) -> QuantizationSimModel:
    sim = QuantizationSimModel(clamped(), batches(1)[0], scheme, target=target)
    sim.compute_encodings(batches())
    return sim


def grids(sim: QuantizationSimModel) -> dict[str, Tensor]:
    found = {name: tensor.clone() for name, tensor in sim.model.state_dict().items() if "quantizer." in name}
    assert found
    return found


@pytest.mark.parametrize("scheme", ["tf", "tf_enhanced", "percentile"])
def test_clamps_fuse_into_what_is_before_them(scheme: str) -> None:
    shipped = calibrated(scheme, "ort-x86-vnni").quantized()
    assert shipped.float_operators() == []
    running, x = session(shipped.onnx()), batches(1)[0]
    (expected,) = running.run(None, {running.get_inputs()[0].name: x.numpy()})
    np.testing.assert_array_equal(shipped.simulator("integer")(x).detach().numpy(), expected)


@pytest.mark.parametrize("scheme", ["tf", "training_range_learning_with_tf_init"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_dtype_of_a_model_leaves_its_grids_alone(scheme: str, dtype: torch.dtype) -> None:
    sim = calibrated(scheme)
    before, document = grids(sim), sim.encodings()
    sim.model.to(dtype)
    after = grids(sim)
    assert all(
        tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]) for name, tensor in before.items()
    )
    assert sim.encodings() == document
    assert sim.model(batches(1)[0].to(dtype)).dtype == dtype
    sim.compute_encodings([batch.to(dtype) for batch in batches()])
    assert all(after[name].dtype == tensor.dtype for name, tensor in grids(sim).items())
