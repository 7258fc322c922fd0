"""What the documented examples promise, and what other preparers got wrong: equal outputs bit for bit, or one error."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from math import sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import qir
from qir import QirError
from tests.comparing import same

fx.wrap("len")
fx.wrap("sqrt")


class Calls(nn.Module):
    """A model that is one function of its inputs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.function(x, y)


def check(model: nn.Module, *inputs: Any, **options: Any) -> fx.GraphModule:
    """The prepared model, which returns what the model does and changes no input."""
    prepared = qir.prepare_model(model.eval(), **options)
    given = deepcopy(inputs)
    assert same(prepared(*given), model(*deepcopy(inputs)))
    assert same(given, inputs)
    return prepared


def layers(prepared: nn.Module, kind: type[nn.Module]) -> list[str]:
    return [name for name, module in prepared.named_modules() if type(module) is kind]


def pair() -> tuple[Tensor, Tensor]:
    torch.manual_seed(3)
    return torch.randn(2, 4, 6, 6), torch.randn(2, 4, 6, 6)


# -- the documented examples -----------------------------------------------------------------------------------------


class FunctionalReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3, 1), nn.Conv2d(4, 8, 3, 1)
        self.fc1, self.fc2 = nn.Linear(8 * 4 * 4, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x)).view(x.shape[0], -1)
        return F.relu(self.fc2(self.fc1(x).relu()))


def test_functional_relus_become_layers_named_in_order() -> None:
    prepared = check(FunctionalReLU(), torch.randn(2, 1, 8, 8))
    assert layers(prepared, nn.ReLU) == ["module_relu", "module_relu_1", "module_relu_2", "module_relu_3"]


class ReusedReLU(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv1(x))
        return self.relu(self.relu(self.conv2(x)).neg())


def test_a_reused_relu_becomes_independent_layers() -> None:
    prepared = check(ReusedReLU(), torch.randn(2, 1, 8, 8))
    assert layers(prepared, nn.ReLU) == ["relu", "module_relu_1", "module_relu_2"]


def test_an_elementwise_add_becomes_a_layer() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            x = self.conv1(x)
            x += self.conv2(y)
            return x

    prepared = check(Net(), torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8))
    assert isinstance(prepared.get_submodule("module_add"), nn.Module)


# -- the limitations page --------------------------------------------------------------------------------------------


class Flag(nn.Module):
    def forward(self, x: Tensor, flag: bool) -> Tensor:
        return x if flag else x * 2


@pytest.mark.parametrize("flag", [True, False])
def test_static_control_flow_takes_a_concrete_argument(flag: bool) -> None:
    x = torch.randn(3)
    assert torch.equal(qir.prepare_model(Flag(), concrete_args={"flag": flag})(x), Flag()(x, flag))


def test_static_control_flow_is_taken_by_torch_export() -> None:
    x = torch.randn(3)
    prepared = qir.prepare_model(Flag(), example_inputs=(x, False), importer="export")
    assert torch.equal(prepared(x, False), x * 2)


@fx.wrap
def doubled_until_large(x: Tensor, y: Tensor) -> Tensor:
    while x.sum() < 10:
        x = x + x.abs() + 1
    return x * x + y * y


def test_a_wrapped_function_keeps_its_dynamic_control_flow() -> None:
    prepared = check(Calls(lambda x, y: doubled_until_large(x, y)), *pair())
    assert torch.equal(prepared(torch.ones(20), torch.ones(20)), torch.full((20,), 2.0))


def test_dynamic_control_flow_is_refused_with_the_line_and_what_was_tried() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x
            return x * 2

    with pytest.raises(QirError) as without:
        qir.prepare_model(Net())
    assert "if x.sum() > 0:" in str(without.value)
    assert "example_inputs" in str(without.value)
    with pytest.raises(QirError) as both:
        qir.prepare_model(Net(), example_inputs=(torch.randn(3),))
    assert "if x.sum() > 0:" in str(both.value)
    assert "torch.export fails too" in str(both.value)


class LenAndSqrt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, kernel_size=2, stride=2, padding=2, bias=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        x = self.conv(inputs[0])
        return x / sqrt(len(x))


def test_wrapped_python_functions_are_called_when_the_model_runs() -> None:
    model = LenAndSqrt()
    prepared = check(model, torch.randn(2, 3, 8, 8))
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(prepared(x), model(x))


class Custom(nn.Module):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * F.softplus(x).sigmoid()


class WithCustom(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.custom = nn.Conv2d(3, 8, kernel_size=2), Custom()

    def forward(self, inputs: Tensor) -> Any:
        return self.custom(self.conv1(inputs))


def test_an_excluded_module_is_not_traced_through() -> None:
    model = WithCustom()
    prepared = check(model, torch.randn(2, 3, 5, 5), modules_to_exclude=[model.custom])
    assert isinstance(prepared.get_submodule("custom"), Custom)
    assert not any(name.startswith("module_") for name, _ in prepared.named_modules())


@fx.wrap
def indices(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0], device=x.device)


def test_tensor_constructors() -> None:
    def constant(x: Tensor, y: Tensor) -> Tensor:
        return x + torch.arange(6, device=torch.device("cpu"))

    def of_a_size(x: Tensor, y: Tensor) -> Tensor:
        return x + torch.arange(x.shape[0], device=x.device)[:, None, None, None]

    check(Calls(constant), *pair())
    check(Calls(lambda x, y: x + indices(x)[:, None, None, None]), *pair())
    check(Calls(of_a_size), *pair(), example_inputs=pair())


# -- defects P1 to P17 -----------------------------------------------------------------------------------------------


def test_p1_an_argument_named_like_a_layer_is_no_reuse() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 4)

        def forward(self, lin: Tensor) -> Any:
            return self.lin(lin)

    prepared = check(Net(), torch.randn(2, 4))
    assert [name for name, _ in prepared.named_children()] == ["lin"]


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "p2 softmax method": lambda x, y: x.softmax(1),
    "p2 torch.softmax": lambda x, y: torch.softmax(x, 1),
    "p3 softplus beta": lambda x, y: F.softplus(x, 2.0),
    "p3 hardshrink lambda": lambda x, y: F.hardshrink(x, 0.2),
    "p3 prelu weight": lambda x, y: F.prelu(x, y[0, :, 0, 0]),
    "p4 add alpha": lambda x, y: torch.add(x, y, alpha=2),
    "p6 cat tensors=": lambda x, y: torch.cat(tensors=[x, y], dim=1),
    "p7 cat of split": lambda x, y: torch.cat(x.split(2), 1),
    "p7 cat of chunk": lambda x, y: torch.cat(x.chunk(2, 1), 0),
    "p8 cat axis=": lambda x, y: torch.cat([x, y], axis=1),  # type: ignore[call-overload]
    "p9 masked_fill": lambda x, y: x.masked_fill(y > 0, 0.5) + x,
    "p10 conv2d with computed weight and bias": lambda x, y: F.conv2d(x, y[:, :, :3, :3] * 2, bias=y[0, :2, 0, 0]),
    "p11 where method": lambda x, y: x.where(y > 0, y),
    "p13 silu": lambda x, y: F.silu(x) * torch.sigmoid(y),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_p2_to_p13_functions(function: Callable[[Tensor, Tensor], Any]) -> None:
    check(Calls(function), *pair())


def test_p5_keywords_of_reused_layers_are_kept() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            return x * scale

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.scaled = nn.ReLU(), Scaled()

        def forward(self, x: Tensor) -> Any:
            x = self.act(input=self.act(input=x) - 1)
            return self.scaled(self.scaled(x, scale=2.0), scale=3.0)

    model = Net()
    check(model, torch.randn(2, 4))
    check(model, torch.randn(2, 4), modules_to_exclude=[model.scaled])


@fx.wrap
def exp(x: Tensor) -> Tensor:
    return x + 100


def test_p12_a_users_function_is_not_taken_for_torchs_of_its_name() -> None:
    check(Calls(lambda x, y: exp(x) + torch.exp(y)), *pair())


def test_p13_a_silu_layer_stays_one() -> None:
    assert layers(check(nn.Sequential(nn.SiLU()), torch.randn(3, 4)), nn.SiLU) == ["0"]


def test_p14_functional_dropout_follows_the_mode() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(x, 0.5, training=self.training)

    model, x = Net(), torch.randn(64)
    prepared = check(model, x)
    model.train()
    prepared.train()
    results = []
    for module in (model, prepared):
        torch.manual_seed(0)
        results.append(module(x))
    assert torch.equal(*results)
    assert not torch.equal(results[0], x)


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x if mask is None else x * mask


def test_p15_optional_tensors_are_left_out_or_given() -> None:
    x = torch.randn(2, 3)
    check(Masked(), x)
    check(Masked(), x, example_inputs=(x,))
    check(Masked(), x, x, example_inputs=(x, x))


def test_p16_arguments_can_be_iterated() -> None:
    class Net(nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return sum((F.relu(x) for x in inputs), torch.zeros(3))

    inputs = (torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(QirError, match="example_inputs"):
        qir.prepare_model(Net())
    check(Net(), *inputs, example_inputs=inputs)


def test_p17_a_model_in_training_is_prepared_in_training() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
    prepared, x = qir.prepare_model(model), torch.randn(4, 3, 5, 5)
    assert all(module.training for module in prepared.modules())
    assert torch.equal(prepared(x), model(x))
    assert all(torch.equal(value, prepared.state_dict()[name]) for name, value in model.state_dict().items())


LEFT_OUT: dict[str, Callable[[Tensor], Any]] = {
    "hardswish": F.hardswish,
    "relu_": torch.relu_,
    "add_": lambda x: x.add_(1),
    "neg": torch.neg,
    "abs": torch.abs,
    "erf": torch.erf,
    "sin": torch.sin,
    "sqrt and log": lambda x: x.abs().sqrt().log(),
    "clamp": lambda x: x.clamp(-1, 1),
    "maximum": lambda x: torch.maximum(x, x.flip(0)),
    "minimum": lambda x: torch.minimum(x, x.roll(1)),
    "topk": lambda x: x.topk(2),
    "std": lambda x: x.std(1),
    "amax and prod": lambda x: x.amax(1) + x.prod(1),
    "einsum": lambda x: torch.einsum("nchw,nkhw->nck", x, x),
    "linear": lambda x: F.linear(x, x[0, 0]),
    "normalize": F.normalize,
    "layer_norm": lambda x: F.layer_norm(x, [6]),
    "instance_norm": F.instance_norm,
    "rms_norm": lambda x: F.rms_norm(x, [6]),
    "conv1d": lambda x: F.conv1d(x[0], x[1, :, :, :3]),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, x.transpose(0, 1)[:, :, :2, :2]),
    "max_pool1d": lambda x: F.max_pool1d(x[0], 2),
    "avg_pool1d": lambda x: F.avg_pool1d(x[0], 2),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x),
    "grid_sample": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),
    "gather": lambda x: x.gather(1, torch.zeros(1, 1, 6, 6, dtype=torch.int64)).exp(),
    "comparison": lambda x: x > 0,
}


@pytest.mark.parametrize("function", LEFT_OUT.values(), ids=LEFT_OUT)
def test_functions_that_were_left_out_become_layers(function: Callable[[Tensor], Any]) -> None:
    prepared = check(Calls(lambda x, y: function(x)), *pair())
    assert any(name.startswith("module_") for name, _ in prepared.named_children())
