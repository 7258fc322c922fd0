"""Tensors with infinities get no quantizer: those of masks, on their way to the softmax."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qir import Graph
from qir.api.preparation import preparation
from qir.api.same_outputs import Examples
from qir.facts import is_quantizer
from qir.placement.infinities import infinite_values
from qir.simulation.quantsim import QuantizationSimModel
from qir.types import TensorType


class Masked(nn.Module):
    """Scores of which a mask takes some away."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least
        self.linear = nn.Linear(8, 8)
        self.register_buffer("added", torch.triu(torch.full((4, 4), least), 1))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.linear(x) @ x.transpose(-1, -2)
        masked = scores.masked_fill(x[..., :1] > 2, self.least)
        shares = F.softmax(scores + self.added, -1)
        return torch.cat([F.softmax(torch.cat([masked, masked], -1), -1)[..., :4], shares], -2) @ x


@pytest.mark.parametrize("least", [-torch.inf, torch.finfo(torch.float32).min])
def test_masks_are_not_quantized_and_what_they_mask_is(least: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 8)
    model = Masked(least).eval()
    simulator = QuantizationSimModel(model, x)
    simulator.compute_encodings([x])
    quantized = {node.operands[0].node.op for node in simulator.graph.nodes()
                 if is_quantizer(node) and node.operands[0].node is not None}  # fmt: skip
    assert {"qir.Linear", "MatMul", "Softmax"} <= quantized
    assert not {"Where", "Add"} & quantized
    torch.testing.assert_close(simulator.model(x), model(x), rtol=0, atol=0.1)


def test_a_comparison_with_an_infinity_passes_none_on() -> None:
    graph = Graph()
    x = graph.input("x", TensorType("f32", (4,)))
    closed = graph.add("Equal", [x, graph.constant(-torch.inf)]).result
    open_ = graph.add("Where", [closed, graph.constant(0.0), x]).result
    masked = graph.add("Where", [closed, graph.constant(-torch.inf), x]).result
    graph.outputs = [open_, graph.add("Transpose", [masked], {"perm": (0,)}).result]
    found = infinite_values(graph.nodes())
    assert {value for value in found if value.weight is None} == {masked, graph.outputs[1]}
    assert {value.literal for value in found if value.weight is not None} == {-torch.inf}


class Buckets(nn.Module):
    """Learned scores of distances, in buckets that grow with the logarithm; the distance 0 has none."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Embedding(8, 4)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        distance = (torch.arange(6)[None, :] - torch.arange(6)[:, None]).abs()
        far = 2 + torch.log(distance.float() / 2) / 1.1 * 3
        bucket = torch.where(distance < 2, distance, far.to(torch.long).clamp(max=7))
        ticks = distance.float() / 6
        return self.linear(x) * self.scores(bucket) + ticks[..., None]


def test_floats_that_become_integers_are_not_quantized() -> None:
    torch.manual_seed(0)
    x, model = torch.randn(6, 6, 4), Buckets().eval()
    simulator = QuantizationSimModel(preparation(model, Examples([x]), importer="export").graph, x)
    simulator.compute_encodings([x])
    quantized = [node.operands[0].node for node in simulator.graph.nodes() if is_quantizer(node)]
    assert "Log" not in {node.op for node in quantized if node is not None}
    assert "Div" in {node.op for node in quantized if node is not None}, "what is added to floats is like others"
    torch.testing.assert_close(simulator.model(x), model(x), rtol=0, atol=0.1)


def test_a_tensor_without_elements_is_not_quantized() -> None:
    class Empty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([torch.relu(x), x[:, :0] * 2], 1)

    x = torch.randn(2, 3)
    simulator = QuantizationSimModel(Empty(), x)
    simulator.compute_encodings([x])
    assert simulator.model(x).shape == (2, 3)
