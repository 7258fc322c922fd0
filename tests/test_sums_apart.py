"""A sum before a layer norm is shipped so that onnxruntime does not fuse both, where the target's profile says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qir
from qir.backends.onnx_qdq import executed_operators, session


class Residual(nn.Module):
    """A linear layer, its input added, and a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(64, 64), nn.LayerNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.linear(x) + x)
        return out


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile without sums apart."""
    path = tmp_path_factory.mktemp("profiles") / "mine.toml"
    path.write_text('extends = "ort-x86-vnni"\n[operators]\nsum_before = []\n')
    return path


def quantized(target: str) -> qir.Quantized:
    torch.manual_seed(0)
    return qir.quantize(Residual().eval(), data=[torch.randn(4, 16, 64)], target=target)


def test_the_profile_decides_whether_onnxruntime_fuses_the_sum(profile: Path) -> None:
    apart, fused = (quantized(target).onnx() for target in ("ort-x86-vnni", str(profile)))
    assert [node.op_type for node in apart.graph.node if node.op_type in ("Add", "Sum")].count("Sum") == 1
    assert "Sum" not in [node.op_type for node in fused.graph.node]
    operators = [{each.op for each in executed_operators(model)} for model in (apart, fused)]
    assert [{"SkipLayerNormalization"} <= ops for ops in operators] == [False, True]
    x = np.random.default_rng(0).standard_normal((2, 16, 64)).astype(np.float32)
    ours, theirs = (session(model).run(None, {model.graph.input[0].name: x})[0] for model in (apart, fused))
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_profile_in_a_file_serves_everything_that_a_quantized_model_does(profile: Path, tmp_path: Path) -> None:
    found = quantized(str(profile))
    found.save(tmp_path / "net.onnx")
    assert [note.op for note in found.float_operators()] == [
        note.op for note in quantized("ort-x86-vnni").float_operators()
    ]
    assert found.simulator("integer")(torch.zeros(1, 16, 64)).shape == (1, 16, 64)
