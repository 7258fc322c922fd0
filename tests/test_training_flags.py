"""What forward does with `self.training` is followed after preparation, or refused in training; never forgotten."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import qir
from qir import QirError
from tests.comparing import same
from tests.torchvision_cpu import torchvision_models


class Net(nn.Module):
    """A model whose forward is a function of itself and its input."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("var", torch.ones(4))
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, self.linear(x))


class DropPath(nn.Module):
    """Stochastic depth, as many packages write it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * x.new_empty((x.shape[0], 1, 1)).bernoulli_(0.5)


def stochastic_depth() -> nn.Module:
    """torchvision's layer. It is left out of the test, as an identity, where torchvision is not installed."""
    models = torchvision_models()
    return nn.Identity() if models is None else models.convnext.StochasticDepth(0.4, "row")


def kept_for_each_device(net: Any, x: Tensor) -> Tensor:
    """The same in training, but that the name of a device is asked for in evaluation, as the key of a cache."""
    device = x.device
    y = net.linear(x) + 0 * len("" if net.training else str(device))
    torch._assert(y.ndim == 3, f"not of 3 axes: {y.ndim}")
    return y


FOLLOWED: dict[str, tuple[Callable[[Any, Tensor], Any], Callable[[], dict[str, nn.Module]]]] = {
    "rate of attention": (
        lambda net, x: (
            F.scaled_dot_product_attention(x, x, x, dropout_p=0.4 if net.training else 0.0)
            + F.scaled_dot_product_attention(x, x, x, None, 0.0 if not net.training else 0.2)
        ),
        dict,
    ),
    "rate of dropout": (
        lambda net, x: F.dropout(x, 0.4 if net.training else 0.0) + F.dropout(x, 0.3, net.training),
        dict,
    ),
    "same either way": (lambda net, x: x + len(str(int(net.training))), dict),
    "kept for each device": (kept_for_each_device, dict),
    "batch norm": (lambda net, x: F.batch_norm(x.mT, net.mean, net.var, None, None, net.training), dict),
    "rrelu": (lambda net, x: F.rrelu(x, training=net.training), dict),
    "drop path": (
        lambda net, x: net.path(x) + net.path(net.drop(x)),
        lambda: {"path": DropPath(), "drop": nn.Dropout()},
    ),
    "stochastic depth": (
        lambda net, x: net.deep(x) + net.deep(net.drop(x)),
        lambda: {"deep": stochastic_depth(), "drop": nn.Dropout()},
    ),
    "attention layer": (
        lambda net, x: net.attend(x, x, x, need_weights=False)[0],
        lambda: {"attend": nn.MultiheadAttention(4, 2, dropout=0.4, batch_first=True)},
    ),
    "tracked statistics": (
        lambda net, x: net.norm(x),
        lambda: {"norm": nn.InstanceNorm1d(3, track_running_stats=True)},
    ),
}


def returned(model: nn.Module, x: Tensor, training: bool) -> Any:
    """What the model returns in a mode, with the random numbers of one seed."""
    model.train(training)
    torch.manual_seed(5)
    return model(x)


@fx.wrap  # type: ignore[untyped-decorator]
def drop_some(x: Tensor, rate: float, training: bool, scale: float = 2.0) -> Tensor:
    """Drops values in training; torch.fx does not look into it."""
    return x * scale * (torch.rand_like(x) > rate) if training else x


@pytest.mark.parametrize("options", [{}, {"importer": "fx"}])
def test_a_wrapped_function_is_given_the_flag(options: Any) -> None:
    model, x = Net(lambda net, x: drop_some(x, 0.4, net.training, 3.0)).eval(), torch.rand(2, 3, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,) if options else None, **options)
    for training in (False, True, False):
        assert same(returned(prepared, x, training), returned(model, x, training))


@pytest.mark.parametrize("importer", [None, "fx", "export"])
@pytest.mark.parametrize(("function", "layers"), FOLLOWED.values(), ids=FOLLOWED)
def test_what_follows_the_flag_follows_it_after_preparation(function: Any, layers: Any, importer: Any) -> None:
    model, x = Net(function, **layers()).eval(), torch.rand(2, 3, 4)
    options = {} if importer is None else {"example_inputs": (x,), "importer": importer}
    prepared = qir.prepare_model(model, **options)  # type: ignore[arg-type]
    again = qir.prepare_model(prepared, **({} if importer is None else {"example_inputs": (x,)}))  # type: ignore[arg-type]
    for training in (False, True, False):
        expected = returned(model, x, training)
        assert same(returned(prepared, x, training), expected)
        assert same(returned(again, x, training), expected)
    assert not any(name.startswith("inference_only") for name, _ in prepared.named_modules())


def updates(net: Any, x: Tensor) -> Tensor:
    """Keeps statistics of its own."""
    if net.training:
        net.mean.mul_(0.9).add_(x.mean((0, 1)), alpha=0.1)
    return x - net.mean


def updates_data(net: Any, x: Tensor) -> Tensor:
    """Keeps statistics of its own, which torch does not see."""
    if net.training:
        net.mean.data.mul_(0.9).add_(x.data.mean((0, 1)), alpha=0.1)
    return x - net.mean


REFUSED: dict[str, Callable[[Any, Tensor], Any]] = {
    "a branch": lambda net, x: F.dropout(x) if net.training else x,
    "a number": lambda net, x: x * (1.0 if net.training else 0.5),
    "arithmetic": lambda net, x: x + int(net.training),
    "the contrary": lambda net, x: F.dropout(x, 0.5, not net.training),
    "another result": lambda net, x: (x, x + 1) if net.training else x,
    "an error": lambda net, x: x if not net.training else x.foo(),
    "statistics": updates,
    "statistics by data": updates_data,
}


@pytest.mark.parametrize("importer", [None, "fx", "export"])
@pytest.mark.parametrize("function", REFUSED.values(), ids=REFUSED)
def test_what_can_not_follow_it_is_refused_in_training(function: Any, importer: Any) -> None:
    model, x = Net(function).eval(), torch.rand(2, 3, 4)
    options = {} if importer is None else {"example_inputs": (x,), "importer": importer}
    prepared = qir.prepare_model(model, **options)  # type: ignore[arg-type]
    again = qir.prepare_model(deepcopy(prepared))
    assert same(returned(prepared, x, False), returned(model, x, False))
    for module in (prepared, again):
        with pytest.raises(QirError, match=r"asks for self.training at .*test_training_flags.py:\d+"):
            returned(module, x, True)
        module.inference_only.enabled = False  # type: ignore[union-attr]
        torch.manual_seed(5)
        module(x)
    assert not model.mean.any()


def test_an_attention_that_holds_a_hook_drops_its_shares_in_training() -> None:
    attend = nn.MultiheadAttention(4, 2, dropout=0.4, batch_first=True)
    attend.out_proj.register_forward_hook(lambda *_: None)  # no lowering takes a layer whole that holds a hook
    model, x = Net(lambda net, x: net.attend(x, x, x), attend=attend).eval(), torch.rand(2, 3, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer="export")
    assert same(returned(prepared, x, True), returned(model, x, True))
    assert not same(returned(prepared, x, True), returned(prepared, x, False))


@pytest.mark.parametrize("importer", ["fx", "export"])
def test_a_hook_of_a_layer_that_asks_for_its_flag_is_followed(importer: Any) -> None:
    model, x = nn.Sequential(nn.utils.spectral_norm(nn.Linear(4, 4)), nn.BatchNorm1d(4)).eval(), torch.rand(2, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer=importer)
    for training in (False, True):
        assert same(returned(prepared, x, training), returned(model, x, training))


def test_the_text_of_a_graph_says_that_it_is_one_of_inference() -> None:
    graph = qir.import_model(Net(REFUSED["a branch"]).eval(), (torch.rand(2, 3, 4),))
    assert "asks for self.training" in graph.inference_only
    assert qir.parse(str(graph)).inference_only == graph.inference_only == graph.copy().inference_only


class Frozen(nn.Module):
    """Keeps the statistics of its batch norm in training, or counts how often it is trained, or does nothing more."""

    def __init__(self, own: str) -> None:
        super().__init__()
        self.linear, self.norm, self.own = nn.Linear(4, 4), nn.BatchNorm1d(4), own
        self.register_buffer("count", torch.zeros(1))

    def train(self, mode: bool = True) -> Frozen:
        super().train(mode)
        if self.own == "frozen":
            self.norm.eval()
        if self.own == "counts":
            self.count += 1
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x)) + self.count


@pytest.mark.parametrize("importer", ["fx", "export"])
@pytest.mark.parametrize("own", ["nothing", "frozen", "counts"])
def test_modes_that_a_model_sets_itself_are_refused_in_training(own: str, importer: Any) -> None:
    model, x = nn.Sequential(Frozen(own), nn.Dropout()).eval(), torch.rand(8, 4)
    count = float(model[0].count)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer=importer)
    assert float(model[0].count) == count
    torch.manual_seed(5)
    assert same(prepared(x), model(x))
    if own == "nothing":
        assert same(returned(prepared, x, True), returned(model, x, True))
    else:
        with pytest.raises(QirError, match=r"Frozen.train .*test_training_flags.py:\d+. sets the modes of 0"):
            prepared.train()(x)


def test_a_layer_that_is_kept_whole_sets_its_modes_itself() -> None:
    model, x = nn.Sequential(Frozen("frozen"), nn.Dropout()).eval(), torch.rand(8, 4)
    prepared = qir.prepare_model(model, module_classes_to_exclude=[Frozen], example_inputs=(x,))
    for training in (True, False):
        assert same(returned(prepared, x, training), returned(model, x, training))


def view_outlives(x: Tensor) -> Tensor:
    """Changes what may be a view or a copy and reads its base, so that torch has to make the program functional."""
    x.reshape(x.shape[0], -1).add_(1)
    return x


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.Dropout(0.5, inplace=True), nn.BatchNorm1d(3)])
def test_what_a_functional_program_forgets_is_refused_in_training(layer: nn.Module) -> None:
    model, x = Net(lambda net, x: view_outlives(net.layer(x)), layer=layer).eval(), torch.rand(2, 3, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer="export")
    assert same(prepared(x), model(x))
    with pytest.raises(QirError, match="follows train"):
        prepared.train()(x)


def test_a_dropout_that_drops_nothing_may_be_forgotten() -> None:
    model, x = Net(lambda net, x: view_outlives(net.layer(x)), layer=nn.Dropout(0.0)).eval(), torch.rand(2, 3, 4)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer="export")
    for training in (False, True):
        assert same(returned(prepared, x, training), returned(model, x, training))
