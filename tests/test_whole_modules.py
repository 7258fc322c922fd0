"""Modules that stay whole, with either importer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import qir
from qir import QirError
from tests.comparing import same


class Branches(nn.Module):
    """Looks at its data, counts its calls, takes keywords and returns a nest."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.calls = 0

    def forward(self, x: Tensor, scale: float = 1.0, *, flag: bool = False) -> dict[str, Any]:
        self.calls += 1
        if x.sum() > 0 and flag:
            return {"y": self.linear(x) * scale, "z": (x, None)}
        return {"y": self.linear(x), "z": (x + 1, None)}


class Net(nn.Module):
    """Calls it twice, in a forward that only torch.export takes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 4), Branches(), nn.Linear(4, 4)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y = self.inner(self.first(x), 2.0, flag=True)
        y = self.inner(y["y"] + y["z"][0])
        result: Tensor = self.last(y["y"])
        if x.shape[0] > 100:
            return result * 2
        return result if mask is None else result * mask


@pytest.mark.parametrize("keywords", [False, True])
@pytest.mark.parametrize("by_class", [False, True])
def test_a_module_stays_whole_while_the_rest_is_exported(keywords: bool, by_class: bool) -> None:
    model, x = Net().eval(), torch.randn(2, 4)
    given: dict[str, Any] = {"example_keywords": {"x": x, "mask": x}} if keywords else {"example_inputs": (x,)}
    excluded: dict[str, Any] = (
        {"module_classes_to_exclude": [Branches]} if by_class else {"modules_to_exclude": [model.inner]}
    )
    prepared = qir.prepare_model(model, **given, **excluded)
    assert model.inner.calls == 0
    assert "forward" not in vars(model.inner)
    assert type(prepared.get_submodule("inner")) is Branches
    assert prepared.state_dict().keys() == model.state_dict().keys()
    for seed in range(4):
        x = torch.randn(2, 4, generator=torch.Generator().manual_seed(seed))
        arguments: dict[str, Any] = {"x": x, "mask": x} if keywords else {"x": x}
        assert same(prepared(**arguments), model(**arguments))


def test_the_weights_of_a_whole_module_are_the_result_s_own() -> None:
    model, x = Net().eval(), torch.randn(2, 4)
    prepared = qir.prepare_model(model, [model.inner], example_inputs=(x,))
    before = prepared(x)
    with torch.no_grad():
        model.inner.linear.weight.zero_()
    assert same(prepared(x), before)
    prepared.load_state_dict(model.state_dict())
    assert same(prepared(x), model(x))


def test_without_excluding_it_the_error_says_how_to() -> None:
    with pytest.raises(QirError) as caught:
        qir.prepare_model(Net().eval(), example_inputs=(torch.randn(2, 4),))
    text = str(caught.value)
    assert "it branches on x.sum() > 0 and flag" in text
    assert 'qir.prepare_model(model, modules_to_exclude=[model.get_submodule("inner")])' in text
    assert "if x.sum() > 0 and flag:" in text
    assert "torch.export fails too" in text


def branching_function(x: Tensor) -> Tensor:
    """A function that looks at its data."""
    if bool(x.sum() > 0):
        return x
    return -x


class Modes(nn.Module):
    """Branches on an argument."""

    def forward(self, x: Tensor, mode: int) -> Tensor:
        return x * 2 if mode == 1 else x


def test_an_error_names_the_function_to_wrap_and_the_argument_to_fix() -> None:
    class Calls(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return branching_function(x)

    fix = r'torch.fx.wrap\("branching_function"\)  # in test_whole_modules.py, which calls it'
    with pytest.raises(QirError, match=fix) as caught:
        qir.prepare_model(Calls())
    assert "give example_inputs=" in str(caught.value)
    with pytest.raises(QirError, match=r'qir.prepare_model\(model, concrete_args=\{"mode": …\}\)'):
        qir.prepare_model(Modes())
    x = torch.randn(2)
    assert same(qir.prepare_model(Modes(), concrete_args={"mode": 1})(x), x * 2)


class Deceiver(nn.Module):
    """Computes otherwise when something looks on."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        if type(x) is Tensor:
            y = y + 1
        return self.c(torch.relu(self.b(y)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("importer", ["fx", "export"])
def test_a_difference_names_the_first_call_that_differs(importer: Any) -> None:
    with pytest.raises(QirError) as caught:
        qir.prepare_model(Deceiver().eval(), example_inputs=(torch.randn(2, 4),), importer=importer)
    text = str(caught.value)
    assert "output 0 of the prepared model differs" in text
    assert "differs first: what is given to the layer b" in text
    assert "test_whole_modules.py:" in text


class Noticing(nn.Module):
    """Computes otherwise where it is exported or compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        if torch.compiler.is_exporting() or torch.compiler.is_compiling():
            y = y + x
        return y.softmax(-1)


@pytest.mark.parametrize("importer", ["auto", "export"])
def test_a_model_that_asks_whether_it_is_exported_is_answered_no(importer: Any) -> None:
    model, x, longer = Noticing().eval(), torch.randn(2, 4), torch.randn(5, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer=importer)
    assert same(prepared(longer), model(longer))
    by_name = qir.prepare_model(model, example_keywords={"x": x})
    assert same(by_name(x=longer), model(longer))
    assert not torch.compiler.is_exporting.__module__.startswith("qir")


class Between(nn.Module):
    """A layer between two calls of functions."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.layer(torch.relu(x)))


def test_a_layer_or_a_call_that_computes_otherwise_is_named() -> None:
    from qir.backends.torch_difference import first_difference

    def found(change: Any) -> str | None:
        model, x = Between(nn.Linear(4, 4)).eval(), torch.randn(2, 4)
        prepared: fx.GraphModule = qir.prepare_model(model)
        change(prepared)
        return first_difference(model, prepared, lambda: model(x), lambda module: module(x), same)

    assert "the layer layer" in str(found(lambda prepared: nn.init.zeros_(prepared.layer.weight)))
    assert "the layer module_relu" in str(found(lambda prepared: setattr(prepared, "module_relu", nn.Sigmoid())))
    assert "the layer module_sigmoid" in str(found(lambda prepared: setattr(prepared, "module_sigmoid", nn.ReLU())))


def test_a_difference_is_named_for_keyword_examples_too() -> None:
    class Sly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return self.a(x) * scale * (3 if type(x) is Tensor else 2)

    with pytest.raises(QirError, match="output 0 of the prepared model differs") as caught:
        qir.prepare_model(Sly(), example_keywords={"x": torch.randn(2, 3), "scale": torch.ones(3)})
    assert "differs first" in str(caught.value)


ROOTS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "LSTM": (lambda: nn.LSTM(4, 6, 2, dropout=0.5, bidirectional=True), 1),
    "GRU": (lambda: nn.GRU(4, 6, batch_first=True), 1),
    "RNN with a state": (lambda: nn.RNN(4, 6), 2),
    "MultiheadAttention": (lambda: nn.MultiheadAttention(4, 2, dropout=0.5), 3),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1),
    "TransformerEncoder": (lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 2), 1),
    "TransformerDecoderLayer": (lambda: nn.TransformerDecoderLayer(4, 2, 8), 2),
}


@pytest.mark.parametrize("importer", ["fx", "auto"])
@pytest.mark.parametrize(("build", "count"), ROOTS.values(), ids=ROOTS)
def test_a_model_that_is_itself_a_layer_is_prepared(build: Callable[[], nn.Module], count: int, importer: Any) -> None:
    model = build().eval()
    state = torch.rand(1, 3, 6)
    x = [torch.rand(5, 3, 4), state if isinstance(model, nn.RNNBase) else torch.rand(5, 3, 4), torch.rand(5, 3, 4)][
        :count
    ]
    prepared = qir.prepare_model(model, example_inputs=x, importer=importer)
    assert set(prepared.state_dict()) == set(model.state_dict())
    for training in (False, True):
        results = []
        for module in (model.train(training), prepared.train(training)):
            torch.manual_seed(1)
            results.append(module(*x))
        assert same(*results)
