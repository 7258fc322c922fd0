"""Both torch importers give one result: the same layers at the same paths, the same outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import einops
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import qir
from qir.api.preparation import preparation
from qir.api.same_outputs import Examples
from qir.backends.torch_module import emit_torch
from qir.facts import computes
from qir.frontends.torch_export import import_exported
from qir.frontends.torch_table import lowers
from qir.graph import Graph
from tests.comparing import same
from tests.test_aimet_defects import Calls
from tests.torchvision_cpu import torchvision_models


def layers(prepared: fx.GraphModule) -> list[str]:
    """The paths of the layers that are called, in the order of the calls."""
    return [str(node.target) for node in prepared.graph.nodes if node.op == "call_module"]


def prepared_by(importer: Any, model: nn.Module, *inputs: Tensor) -> fx.GraphModule:
    """The prepared model, which returns what the model does."""
    prepared = qir.prepare_model(model.eval(), example_inputs=inputs, importer=importer)
    assert same(prepared(*inputs), model(*inputs))
    return prepared


class Block(nn.Module):
    """Calls of functions between layers, and layers whose names are those of functions."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.linear = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.5, inplace=True)
        self.nothing = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(F.relu(self.linear(x)) + 1)
        x += F.linear(self.nothing(x), self.linear.weight)
        return self.relu(self.dropout(x))


OPERATORS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "arithmetic": lambda x, y: ((2 * x) - (1 - y)) / 3 + x**2,
    "integers": lambda x, y: (x // 2) % 3,
    "comparison": lambda x, y: (x > 0) & ~(y < 1),
    "methods": lambda x, y: x.sub(2).add_(1).clamp_(0).mean(1, keepdim=True),
    "functions": lambda x, y: torch.div(torch.relu(x), torch.sigmoid(y)),
    "in-place": lambda x, y: F.relu_(torch.mul(x, y)),
    "numbered": lambda x, y: torch.add(x, y) + torch.add(y, x).add(x),
}


@pytest.mark.parametrize("function", OPERATORS.values(), ids=OPERATORS)
def test_calls_have_the_same_names(function: Callable[[Tensor, Tensor], Any]) -> None:
    model, inputs = Calls(function), (torch.rand(3, 4), torch.rand(3, 4))
    assert layers(prepared_by("fx", model, *inputs)) == layers(prepared_by("export", model, *inputs))


def test_layers_and_calls_have_the_same_names() -> None:
    model, x = nn.Sequential(Block(), Block(), nn.Identity()), torch.rand(3, 4)
    by_fx, by_export = prepared_by("fx", model, x), prepared_by("export", model, x)
    assert layers(by_fx) == layers(by_export)
    assert dict(by_fx.named_modules()).keys() == dict(by_export.named_modules()).keys()
    assert "0.module_relu_1" in layers(by_fx)


class SizesBetween(nn.Module):
    """Computes with sizes between calls, which are numbered by what computes; layers of several calls."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.conv = nn.PReLU(4), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        y = (self.act(x) * 2).view(batch, channels // 2 * 2, height * width)
        y = y.mul(3).reshape(batch, channels, height, width) + torch.tensor(0.5)
        y = self.conv(F.pad(y, (0, 4 - width % 4, 0, height * 0))) + 1
        return einops.reduce(y, "b c h w -> b c", "mean") + y.mean((2, 3))


def test_names_do_not_count_what_computes_with_sizes() -> None:
    model, x = SizesBetween(), torch.rand(3, 4, 5, 5)
    by_fx, by_export = (layers(prepared_by(importer, model, x)) for importer in ("fx", "export"))
    assert by_fx == by_export
    assert by_fx[:4] == ["act", "module_mul", "module_mul_1", "_constant_0"]
    assert by_fx[4:] == ["module_add", "module_pad", "conv.module_pad", "conv", "module_add_1", "module_mean",
                         "module_mean_1", "module_add_2"]  # fmt: skip


@pytest.mark.parametrize("kind", [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout])
@pytest.mark.parametrize("inplace", [False, True])
def test_dropout_layers_follow_train_in_both(kind: type[nn.Module], inplace: bool) -> None:
    model = nn.Sequential(nn.Flatten(), kind(0.5, inplace=inplace), nn.Flatten())  # type: ignore[call-arg]
    x = torch.rand(2, 4)
    model = nn.Sequential(nn.Conv2d(1, 4, 1), kind(0.5, inplace=inplace)) if kind is nn.Dropout2d else model
    x = torch.rand(2, 1, 3, 3) if kind is nn.Dropout2d else x
    for importer in ("fx", "export"):
        prepared = prepared_by(importer, model, x).train()
        torch.manual_seed(3)
        expected = model.train()(x.clone())
        torch.manual_seed(3)
        assert same(prepared(x.clone()), expected), importer


class ShapeArithmetic(nn.Module):
    """Numbers from shapes, and a check."""

    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        torch._assert(x.ndim == 4, f"{x.shape} has not four axes")
        batch, channels, height, width = x.shape
        y = x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.size())
        a, b = y.chunk(2, 1)
        a = F.interpolate(a, size=y.shape[-2:])
        return (a + b * x.dim()).reshape(a.shape[0], -1), x.numel()


@pytest.mark.parametrize("importer", ["fx", "export"])
def test_numbers_checks_and_views_are_no_layers(importer: str) -> None:
    prepared = prepared_by(importer, ShapeArithmetic(), torch.rand(3, 4, 5, 5))
    assert {name.rpartition("module_")[2] for name in layers(prepared)} == {"interpolate", "mul", "add"}
    again = torch.rand(5, 4, 5, 5)
    assert same(prepared(again), ShapeArithmetic()(again))


def test_without_examples_numbers_checks_and_views_are_no_layers() -> None:
    prepared = qir.prepare_model(ShapeArithmetic())
    assert {name.rpartition("module_")[2] for name in layers(prepared)} == {"interpolate", "mul", "add", "reshape"}
    x = torch.rand(2, 6, 4, 4)
    assert same(prepared(x), ShapeArithmetic()(x))


class Fixed(nn.Module):
    """Computes otherwise for other sizes."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] == 3 else x


def test_sizes_that_were_fixed_while_exporting_are_checked_in_calls() -> None:
    x = torch.rand(3, 4)
    prepared = prepared_by("export", Fixed(), x)
    with pytest.raises(qir.QirError, match=r"x has the shape \(5, 4\); torch.export recorded the model for \(3, any\)"):
        prepared(torch.rand(5, 4))
    assert same(prepared(torch.rand(3, 7) * 0 + 1), torch.full((3, 7), 2.0))


class Encoder(nn.Module):
    """Reads its length, and branches on it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.mix = nn.Embedding(10, 8), nn.Embedding(32, 8), nn.Linear(8, 8)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        if ids.shape[1] > 32:
            raise ValueError("too long")
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        scores = x @ self.mix(x).transpose(1, 2)
        if mask is not None:
            scores = scores.masked_fill(mask[:, None] == 0, -1e9)
        return scores.softmax(-1) @ x


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_batch_and_length_stay_symbolic_in_an_exported_model(batch: int, masked: bool) -> None:
    def inputs(batch: int, length: int) -> dict[str, Tensor]:
        mask = {"mask": torch.randint(0, 2, (batch, length))} if masked else {}
        return {"ids": torch.randint(0, 10, (batch, length)), **mask}

    model = Encoder().eval()
    prepared = qir.prepare_model(model, example_keywords=inputs(batch, 7))
    for sizes in ((batch, 7), (5, 7), (3, 20), (1, 4)):
        given = inputs(*sizes)
        assert same(prepared(**given), model(**given)), sizes


@pytest.mark.slow
def test_batch_and_length_stay_symbolic_in_a_transformers_encoder() -> None:
    torchvision_models()  # transformers imports torchvision where it is installed
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = transformers.BertModel(transformers.BertConfig(vocab_size=50, **sizes)).eval()
    given = {"input_ids": torch.randint(0, 50, (1, 9)), "attention_mask": torch.ones(1, 9, dtype=torch.long)}
    prepared = qir.prepare_model(model, example_keywords=given)
    for batch, length in ((1, 9), (4, 9), (2, 15), (3, 2)):
        mask = torch.ones(batch, length, dtype=torch.long)
        mask[:, -1] = 0
        again = {"input_ids": torch.randint(0, 50, (batch, length)), "attention_mask": mask}
        assert same(prepared(**again)["last_hidden_state"], model(**again)["last_hidden_state"])


class PartOfAPartChanged(nn.Module):
    """Changes what may be a view or a copy and reads its base later, so its program is made functional."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        view = x.transpose(1, 2)
        x.reshape(x.shape[0], -1).mul_(2)
        x[:, 1].zero_()
        return view.reshape(x.shape[0], -1).to(torch.float64)


def test_a_program_that_is_made_functional_has_no_calls_that_nothing_lowers() -> None:
    x = torch.rand(2, 3, 4)
    graph = import_exported(PartOfAPartChanged(), [x])
    assert not [node for node in graph.nodes() if node.definition.opaque]
    prepared = emit_torch(qir.Pipeline.parse("lift-functionals,unroll-modules").run(graph))
    assert same(prepared(x), PartOfAPartChanged()(x))


class Function(nn.Module):
    """A function of one tensor."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def filled_parts(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:] = torch.tensor(2.5).clone()
    y[:, :1] += x[:, 1:2] * torch.sqrt(torch.tensor(128))
    return y


def halves(x: Tensor) -> Tensor:
    a, b = torch.cat([x, x + 1]).chunk(2)
    return a * b


@pytest.mark.parametrize("function", [filled_parts, halves])
def test_an_exported_program_has_no_opaque_calls(function: Callable[[Tensor], Tensor]) -> None:
    graph = import_exported(Function(function), [torch.rand(2, 3)])
    assert not [node for node in graph.nodes() if node.definition.opaque]
    prepared = prepared_by("export", Function(function), torch.rand(2, 3))
    again = torch.rand(5, 3)
    assert same(prepared(again), function(again))


def test_parts_of_a_computed_size_stay_whole() -> None:
    model = Function(lambda x: torch.cat([x, x]).split(x.shape[0])[1] + 1)
    assert same(prepared_by("export", model, torch.rand(2, 3))(torch.ones(4, 3)), torch.full((4, 3), 2.0))


SEVERAL: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "normalize": lambda x, y: F.normalize(x) + F.normalize(y, dim=0),
    "local response norm": lambda x, y: F.local_response_norm(torch.stack([x, y]), 3),
    "reciprocal": lambda x, y: 1 / (x + 1) + (2 / (y + 1)),
    "softsign": lambda x, y: F.tanhshrink(F.softsign(x)) * F.softmin(y, dim=1),
    "largest of parts": lambda x, y: F.adaptive_max_pool1d(x, 2) + F.adaptive_max_pool1d(y, 2),
    "norms of windows": lambda x, y: F.lp_pool1d(x[None], 2.0, 2) + F.lp_pool1d(y[None], 2.0, 2),
    "several results": lambda x, y: F.adaptive_max_pool1d(x, 2, return_indices=True),
    "listed places": lambda x, y: x[:, [0, 2]] + y[..., [1, 3]],
    "computed repetitions": lambda x, y: x.repeat_interleave(y.shape[0] // 3 + 1, dim=0) + 1,
}


@pytest.mark.parametrize("function", SEVERAL.values(), ids=SEVERAL)
def test_functions_of_several_operators_are_one_call(function: Callable[[Tensor, Tensor], Any]) -> None:
    model, inputs = Calls(function), (torch.rand(3, 4), torch.rand(3, 4))
    assert_one_result(model, *inputs)


def assert_one_result(model: nn.Module, *inputs: Tensor) -> None:
    """Both importers give the same modules, state and operators, and keep equally many calls opaque."""
    by_fx, by_export = (preparation(model.eval(), Examples(inputs), importer=each) for each in ("fx", "export"))
    for made in (by_fx, by_export):
        assert same(made.module(*inputs), model(*inputs))
    traced, recorded = (dict(made.module.named_modules()) for made in (by_fx, by_export))
    assert {path: type(module).__name__ for path, module in traced.items()} == {
        path: type(module).__name__ for path, module in recorded.items()
    }
    assert by_fx.module.state_dict().keys() == by_export.module.state_dict().keys()
    assert operators(by_fx.graph) == operators(by_export.graph)


def operators(graph: Graph) -> list[str]:
    """Those that compute, sorted."""
    return sorted(node.op for node in graph.nodes() if computes(node))


class Attending(nn.Module):
    """Layers that torch.export records as many calls, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)
        self.encode = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.local, self.drop = nn.LocalResponseNorm(3), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.attend(x, x, x)
        y, weights = self.attend(y, self.drop(x), x, average_attn_weights=False)
        return self.local(self.encode(y)) + weights.sum()


def test_layers_of_several_operators_are_one_call() -> None:
    torch.manual_seed(0)
    model, x = Attending(), torch.rand(3, 5, 8)
    assert_one_result(model, x)
    for importer in ("fx", "export"):
        prepared = prepared_by(importer, model, x).train()
        torch.manual_seed(3)
        expected = model.train()(x)
        torch.manual_seed(3)
        assert same(prepared(x), expected), importer
    assert same(prepared_by("export", model, x)(x[:2, :4]), model(x[:2, :4]))


def test_layers_with_parametrizations_and_hooks_stay_whole() -> None:
    layers = {"conv": nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 1)), "relu": nn.ReLU(),
              "linear": nn.utils.parametrizations.spectral_norm(nn.Linear(5, 5)), "hooked": nn.Linear(5, 5),
              "nothing": nn.Identity(), "pool": nn.AvgPool1d(2, ceil_mode=True)}  # fmt: skip
    layers["hooked"].register_forward_hook(lambda module, args, output: output * 2)
    layers["nothing"].register_forward_hook(lambda module, args, output: output + 1)
    model, x = nn.Sequential(OrderedDict(layers)), torch.rand(3, 4, 5)
    assert_one_result(model, x)
    expected = deepcopy(model).train()(x)
    assert same(prepared_by("export", model, x).train()(x), expected)


class Branching(nn.Module):
    """Is not traced symbolically; its layer holds a hook, so that no lowering takes it, but for the function in it."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.attend.out_proj.register_forward_hook(lambda *_: None)

    def forward(self, x: Tensor) -> Tensor:
        y = F.normalize(x, p=float(len(x.shape)))
        return self.attend(y, y, y)[0]


def test_parts_are_lowered_where_no_lowering_takes_the_whole() -> None:
    graph = import_exported(Branching().eval(), [torch.rand(3, 5, 8)])
    assert operators(graph) == ["qir.MultiheadAttention", "qir.Normalize"]
    prepared_by("export", Branching(), torch.rand(3, 5, 8))


@torch.fx.wrap
def bounded(x: Tensor, limit: float = 1.0) -> Tensor:
    return torch.tanh(x / limit) * limit


def test_a_wrapped_function_that_a_lowering_takes_is_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def lowered(build: Any, x: Any, limit: float = 1.0) -> Any:
        return build("Mul", build("Tanh", build("Div", x, limit)), limit)

    monkeypatch.setitem(lowers.table, bounded, lowered)
    assert_one_result(Function(lambda x: bounded(x + 1, limit=2.0) + 1), torch.rand(3, 4))


@torch.fx.wrap
def squash(x: Tensor) -> Tensor:
    return torch.tanh(x) if x.shape[0] > 1 else x


@torch.fx.wrap
def measured(x: Tensor) -> Tensor:
    return torch.tanh(x) if x.sum() > 0 else x


def test_a_function_that_one_importer_keeps_whole_is_looked_into_by_the_other() -> None:
    x = torch.rand(3, 4)
    kept = preparation(Function(lambda x: squash(x) + 1), Examples())
    assert any(node.definition.opaque for node in kept.graph.nodes())
    seen = preparation(Function(lambda x: squash(x) + 1), Examples([x]))
    assert seen.importer == "torch.export"
    assert not any(node.definition.opaque for node in seen.graph.nodes())
    assert preparation(Function(lambda x: measured(x) + 1), Examples([x])).importer == "torch.fx"


def test_tensors_in_dictionaries_are_inputs_of_their_own() -> None:
    class Nested(nn.Module):
        def forward(self, batch: dict[str, Any]) -> Tensor:
            return F.relu(batch["x"]) + batch["more"]["y"]

    given = {"x": torch.rand(2, 3), "more": {"y": torch.rand(2, 3)}}
    made = preparation(Nested(), Examples([given]))
    assert [value.hint for value in made.graph.inputs] == ["batch_x", "batch_more_y"]
    assert same(made.module(given), Nested()(given))
    whole = qir.quantize(made.graph, data=[[given["x"].numpy(), given["more"]["y"].numpy()]])
    torch.testing.assert_close(whole.simulator()(given), Nested()(given), rtol=0, atol=0.02)


class Together(nn.Module):
    def forward(self, x: Tensor, others: list[Tensor]) -> Tensor:
        return torch.cat([x, *others], 1) * len(others)


@pytest.mark.parametrize("importer", ["auto", "export"])
def test_an_example_that_is_given_twice_is_two_inputs(importer: Any) -> None:
    x, y, z = torch.randn(3, 3, 4)
    prepared = qir.prepare_model(Together(), example_inputs=(x, [x, x]), importer=importer)
    assert torch.equal(prepared(x, [y, z]), Together()(x, [y, z]))
