"""Prepared models are called as their models are: constant arguments are accepted, and held to their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import qir
from qir import QirError


class Options(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor, double: bool, offset: Tensor | None = None, scale: float = 1.0) -> Tensor:
        x = self.linear(x)
        x = x * 2 if double else x
        return (x if offset is None else x + offset) * scale


class Between(nn.Module):
    def forward(self, x: Tensor, double: bool, y: Tensor) -> Tensor:
        return (x * 2 if double else x) - y


X, Y = torch.randn(3, 4), torch.randn(3, 4)
WAYS: list[dict[str, Any]] = [
    {"concrete_args": {"double": True}},
    {"concrete_args": {"double": True}, "example_inputs": [X]},
    {"concrete_args": {"double": True}, "example_inputs": [X], "importer": "export"},
    {"example_inputs": [X, True]},
    {"example_inputs": [X, True], "importer": "export"},
]


@pytest.mark.parametrize("way", WAYS)
def test_a_constant_argument_is_accepted_and_held_to_its_value(way: dict[str, Any]) -> None:
    model = Options().eval()
    prepared = qir.prepare_model(model, **way)
    fresh = torch.randn(7, 4)
    expected = model(fresh, True)
    assert torch.equal(prepared(fresh, True), expected)
    assert torch.equal(prepared(fresh, double=True), expected)
    with pytest.raises(QirError, match=r"double is True in the prepared model, and was given False"):
        prepared(fresh, False)
    with pytest.raises(QirError, match=r"double is True"):
        prepared(fresh, double=fresh)


@pytest.mark.parametrize("way", WAYS[:3])
def test_a_concrete_argument_at_the_end_may_be_left_out(way: dict[str, Any]) -> None:
    model = Options().eval()
    assert torch.equal(qir.prepare_model(model, **way)(X), model(X, True))


def test_defaults_are_arguments_of_the_prepared_model_too() -> None:
    model = Options().eval()
    prepared = qir.prepare_model(model, concrete_args={"double": False})
    assert torch.equal(prepared(X, False, None, 1.0), model(X, False))
    assert torch.equal(prepared(X, scale=1), model(X, False))
    with pytest.raises(QirError, match="offset is None in the prepared model, and was given a Tensor") as caught:
        prepared(X, offset=Y)
    assert "example_inputs" in str(caught.value.help)


@pytest.mark.parametrize("way", [{}, {"example_inputs": [X, True, Y]},
                                 {"example_inputs": [X, True, Y], "importer": "export"}])  # fmt: skip
def test_a_concrete_argument_between_others_keeps_its_place(way: dict[str, Any]) -> None:
    prepared = qir.prepare_model(Between(), concrete_args={"double": True}, **way)
    assert torch.equal(prepared(X, True, Y), Between()(X, True, Y))
    with pytest.raises(QirError, match="double is True"):
        prepared(X, False, Y)


@pytest.mark.parametrize("way", WAYS)
def test_a_prepared_model_is_a_model_with_the_same_constants(way: dict[str, Any]) -> None:
    model = Options().eval()
    twice = qir.prepare_model(qir.prepare_model(model, **way))
    assert torch.equal(twice(X, True), model(X, True))
    with pytest.raises(QirError, match="double is True"):
        twice(X, False)


@pytest.mark.parametrize("way", WAYS)
def test_a_prepared_model_with_constants_can_be_exported_and_compiled(way: dict[str, Any]) -> None:
    model = Options().eval()
    prepared = qir.prepare_model(model, **way)
    exported = torch.export.export(prepared, (X, True)).module()
    assert torch.equal(exported(X, True), model(X, True))
    compiled = torch.compile(prepared, fullgraph=True, backend="eager")
    assert torch.equal(compiled(X, True), model(X, True))


def test_data_with_constants_calibrates() -> None:
    model = Options().eval()
    quantized = qir.quantize(model, data=[(X, True), (Y, True)])
    assert [value.hint for value in quantized.graph.inputs] == ["x"]
    simulator = quantized.simulator("integer")
    session = onnxruntime.InferenceSession(quantized.onnx().SerializeToString())
    assert np.array_equal(session.run(None, {"x": X.numpy()})[0], simulator(X, True).detach().numpy())
    with pytest.raises(QirError, match="double is True"):
        simulator(X, False)
