"""Sizes that a model computes: from torch over both importers to ONNX, for a batch of another length too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import Graph
from qir.backends.onnx_emit import emit_onnx
from qir.frontends.torch_export import import_exported
from qir.frontends.torch_fx import import_torch
from qir.operators.python_numbers import NUMBERS, known_size
from qir.types import ScalarType, TensorType
from tests.comparing import same

SIZES: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "expand": lambda x, y: y.expand(x.shape[0], -1, -1) + 0,
    "expand before": lambda x, y: y[0].expand(x.size(0), x.size(1), -1, -1) + 0,
    "broadcast_to": lambda x, y: torch.broadcast_to(y, (x.shape[0], 3, 4)) * 2,
    "repeat": lambda x, y: y.repeat(x.shape[0], 1, 2),
    "view": lambda x, y: x.reshape(x.shape[0], x.shape[1] * x.shape[2], -1),
    "view of parts": lambda x, y: x.reshape(x.shape[0], -1, 2, x.shape[-1] // 2),
    "unflatten": lambda x, y: x.unflatten(2, (x.shape[1], -1)),
    "flatten in the middle": lambda x, y: x.flatten(0, 2),
    "flatten from the end": lambda x, y: x.flatten(-2),
    "slice": lambda x, y: x[:, : y.shape[1]] * 2,
    "slice from": lambda x, y: x[..., x.shape[-1] // 2 :] * 2,
    "slice of several": lambda x, y: x[None, :, 1 : y.shape[1], 0] * 2,
    "slice with a step": lambda x, y: x[:, :, : y.shape[2] : 2] * 2,
    "narrow": lambda x, y: x.narrow(1, 1, y.shape[1] - 1) * 2,
    "pad": lambda x, y: F.pad(x, (0, x.shape[3] - 3, 1, -x.shape[2] % 4), value=0.5),
    "interpolate": lambda x, y: F.interpolate(x, size=(x.shape[2] * 2, x.shape[3] + 1)),
    "interpolate bilinear": lambda x, y: F.interpolate(x, size=[x.shape[2] * 2, x.shape[3] * 2], mode="bilinear"),
    "arange": lambda x, y: torch.arange(x.shape[0], device=x.device)[:, None] + x[:, 0, 0],
    "arange of halves": lambda x, y: x + torch.arange(0, x.shape[3], dtype=x.dtype, device=x.device) / 2,
    "zeros": lambda x, y: torch.cat([x, torch.zeros((x.shape[0], 1, 5, x.shape[3]), device=x.device)], 1),
    "ones": lambda x, y: x[:, 0] + torch.ones((x.shape[0], x.size(2), 1), dtype=x.dtype),
    "full": lambda x, y: x[:, :, 0, 0] + torch.full((x.shape[0], 1), 0.5),
    "chunk": lambda x, y: torch.cat(x.reshape(x.shape[0], -1).chunk(2, 1), 0),
    "unbind": lambda x, y: torch.stack(x.reshape(x.shape[0], 5, -1).unbind(1), 0),
    "numbers": lambda x, y: x * (x.shape[2] * 2 - x.shape[1] + x.shape[3] % 3) + x.shape[3] // 3,
    "device": lambda x, y: x.to(y.device) + y.sum().to(device=x.device, dtype=x.dtype),
    "stated device": lambda x, y: x.to("cpu") + x.to(torch.device("cpu"), torch.float64).float(),
}


class Sized(nn.Module):
    """A function of an input and a constant."""

    y: Tensor

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("y", torch.arange(12.0).reshape(1, 3, 4) / 8)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.y)


def image(batch: int) -> Tensor:
    return torch.randint(-16, 16, (batch, 5, 5, 4), generator=torch.Generator().manual_seed(batch)) / 8


def has_types(graph: Graph) -> bool:
    values = [value for node in graph.nodes() for value in node.results]
    return all(value.type.dtype is not None and value.type.rank is not None for value in values)


def imported(model: nn.Module, importer: str) -> Graph:
    if importer == "fx":
        return import_torch(model, [image(2)])
    return import_exported(model, [image(2)])


@pytest.mark.parametrize("importer", ["fx", "export"])
@pytest.mark.parametrize("function", SIZES.values(), ids=SIZES)
def test_computed_sizes_reach_onnx(function: Callable[[Tensor, Tensor], Any], importer: Any) -> None:
    model = Sized(function).eval()
    prepared = qir.prepare_model(model, example_inputs=[image(2)], importer=importer)
    assert prepared.meta["opaque_calls"] == []
    graph = imported(model, importer)
    assert has_types(graph)
    emitted = emit_onnx(qir.Pipeline.parse("legalize-onnx").run(graph))
    session = onnxruntime.InferenceSession(emitted.SerializeToString())
    for batch in (2, 3):
        expected = model(image(batch))
        assert same(prepared(image(batch)), expected)
        (result,) = session.run(None, {session.get_inputs()[0].name: image(batch).numpy()})
        assert result.dtype == expected.numpy().dtype
        np.testing.assert_array_equal(result, expected.numpy())


def test_folding_numbers_needs_no_tensors() -> None:
    graph = Graph()
    x = graph.input("x", TensorType("f32", ("batch", 3, 8)))
    sizes = [graph.add("qir.AxisSize", [x], {"axis": axis}).result for axis in range(3)]
    ceiling = graph.add("qir.FloorDivide", [graph.add("Neg", [sizes[2]]).result, graph.constant(3)]).result
    assert [known_size(size) for size in sizes] == ["batch", 3, 8]
    assert known_size(ceiling) == -3
    assert known_size(graph.add("qir.FloorDivide", [sizes[2], graph.constant(0)]).result) is None
    assert known_size(graph.add("Mul", [sizes[0], graph.constant(2)]).result) is None


@pytest.mark.parametrize("op", NUMBERS)
def test_numbers_are_typed_and_folded_as_python_does(op: str) -> None:
    graph = Graph()
    count = len(NUMBERS_GIVEN) if op not in ("Neg", "Abs") else 1
    node = graph.add(op, [graph.constant(number) for number in NUMBERS_GIVEN[:count]])
    expected = NUMBERS[op](*NUMBERS_GIVEN[:count])
    assert node.result.type == ScalarType(type(expected).__name__)
    assert known_size(node.result) == expected


NUMBERS_GIVEN = (7, 2)


class Unforeseen(nn.Module):
    """Calls that stay opaque, one of which returns a tuple."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(x @ x.transpose(-1, -2))
        return torch.special.i0e(values).expand(x.shape[0], -1).softmax(-1), vectors


def test_what_an_opaque_call_returns_has_the_type_of_the_example_run() -> None:
    graph = import_torch(Unforeseen(), [torch.randn(2, 4, 4)])
    assert [str(value.type) for value in graph.outputs] == ["f32[batch,4]", "f32[batch,4,4]"]


class Places(nn.Module):
    """A call that no tensor without memory takes: the shape of its result depends on data."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i0e(torch.nonzero(x).float())


def test_an_example_run_that_needs_data_is_made_with_data() -> None:
    graph = import_torch(Places(), [torch.ones(2, 3)])
    assert str(graph.outputs[0].type) == "f32[?,?]"


class PaddedConvolution(nn.Module):
    """A padded image in a convolution, whose layout onnxruntime chooses."""

    def __init__(self, computed: bool, mode: str) -> None:
        super().__init__()
        self.convolution, self.computed, self.mode = nn.Conv2d(5, 8, 3), computed, mode

    def forward(self, x: Tensor) -> Tensor:
        amount = -x.shape[0] % 5 if self.computed else 1
        return F.relu(self.convolution(F.pad(x, (0, amount, 0, 1), self.mode)))


@pytest.mark.parametrize(("computed", "mode"), [(False, "constant"), (True, "constant"), (False, "reflect")])
def test_a_padded_image_runs_in_the_layout_of_the_runtime(computed: bool, mode: str) -> None:
    graph = import_torch(PaddedConvolution(computed, mode).eval(), [image(2)])
    quantized = qir.quantize(graph, data=[image(2).numpy()])
    model = quantized.onnx()
    assert [len(node.input) < 4 for node in model.graph.node if node.op_type == "Pad"] == [True]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (result,) = session.run(None, {session.get_inputs()[0].name: image(2).numpy()})
    np.testing.assert_array_equal(result, quantized.simulator("integer")(image(2)).detach().numpy())


class ResizedConvolution(nn.Module):
    """A small image resized, to the sizes of another unless stated, in a convolution."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.first, self.second, self.options = nn.Conv2d(5, 8, 3, 2), nn.Conv2d(8, 8, 3), options

    def forward(self, x: Tensor) -> Tensor:
        options = self.options or {"size": x.shape[-2:]}
        return F.relu(self.second(F.interpolate(F.relu(self.first(x)), **options)))


RESIZES = [{}, {"size": (11, 9)}, {"scale_factor": 2.0}, {"scale_factor": 2.0, "mode": "bilinear"}]


@pytest.mark.parametrize("options", RESIZES, ids=str)
def test_a_resized_image_runs_in_the_layout_of_the_runtime(options: dict[str, Any]) -> None:
    x = torch.randn(2, 5, 12, 12, generator=torch.Generator().manual_seed(0))
    quantized = qir.quantize(ResizedConvolution(options).eval(), data=[x.numpy()])
    model = quantized.onnx()
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    assert "axes" not in [attribute.name for attribute in resize.attribute]
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (result,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(result, quantized.simulator("integer")(x).detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("attributes", [{"axes": (3, -2)}, {"axes": (2,), "mode": "linear"}], ids=str)
@pytest.mark.parametrize("shape", [(1, 2, 3, 4), ("n", 2, 3, 4)], ids=str)
@pytest.mark.parametrize("by", ["scales", "sizes"])
def test_a_resize_of_some_axes_is_one_of_all(attributes: dict[str, Any], shape: tuple[Any, ...], by: str) -> None:
    graph = Graph("g")
    x = graph.input("x", TensorType("f32", shape))
    count = len(attributes["axes"])
    amounts = np.array([2, 3][:count], np.float32) if by == "scales" else np.array([7, 5][:count], np.int64)
    operands = [x, None, *([graph.constant(amounts)] if by == "scales" else [None, graph.constant(amounts)])]
    graph.outputs.append(graph.add("Resize", operands, attributes).result)
    whole = qir.Pipeline.parse("legalize-onnx").run(graph.copy())
    assert not any("axes" in node.attrs for node in whole.nodes())
    data = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
    before, after = (onnxruntime.InferenceSession(emit_onnx(each).SerializeToString()) for each in (graph, whole))
    (expected,), (result,) = (session.run(None, {"x": data}) for session in (before, after))
    np.testing.assert_array_equal(result, expected)
