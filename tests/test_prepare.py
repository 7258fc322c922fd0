"""`qir.prepare_model`: what it takes, what it promises, what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import QirError


class BranchOnShape(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 8:
            x = F.pad(x, (0, 8 - x.shape[-1] % 8))
        return F.relu(self.conv(x))


class WritesItem(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(x)
        y[:, 0] = y[:, 1] * 2.0
        return y + x


class AsksForType(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.rnn(x)
        return y, state[0] if isinstance(state, tuple) else state


class BranchOnData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class KeywordsAndDicts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, batch: dict[str, Tensor], scale: float = 2.0) -> dict[str, Any]:
        if len(batch) > 1:
            return {"sum": self.fc(batch["x"]) + batch["y"], "n": len(batch)}
        return {"sum": self.fc(batch["x"]) * scale, "n": 1}


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (BranchOnShape(), (torch.randn(2, 3, 13, 13),)),
        (WritesItem(), (torch.randn(2, 3, 4, 4),)),
        (AsksForType(), (torch.randn(2, 5, 4),)),
        (KeywordsAndDicts(), ({"x": torch.randn(2, 4), "y": torch.randn(2, 4)},)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_symbolic_tracing_can_not_take_is_exported(model: nn.Module, inputs: tuple[Any, ...]) -> None:
    model.eval()
    prepared = qir.prepare_model(model, example_inputs=inputs)
    expected, actual = (torch.utils._pytree.tree_leaves(module(*inputs)) for module in (model, prepared))
    assert len(expected) == len(actual)
    for a, b in zip(expected, actual, strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
    assert set(prepared.state_dict()) == set(model.state_dict())


def test_a_batch_of_another_size_passes_through_an_exported_model() -> None:
    model = BranchOnShape().eval()
    prepared = qir.prepare_model(model, example_inputs=(torch.randn(2, 3, 13, 13),))
    x = torch.randn(5, 3, 13, 13)
    assert torch.equal(prepared(x), model(x))


def test_both_importers_name_the_same_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)).eval()
    x = (torch.randn(2, 3, 4, 4),)
    fx, exported = (qir.prepare_model(model, example_inputs=x, importer=importer) for importer in ("fx", "export"))
    assert [type(part) for part in fx.modules()][1:] == [type(part) for part in exported.modules()][1:]
    assert [path for path, _ in fx.named_modules()] == [path for path, _ in exported.named_modules()]


def test_an_exported_model_follows_train_and_eval() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            return F.dropout(self.drop(self.norm(self.conv(x))), 0.3, self.training)

    model, x = Net().eval(), torch.randn(2, 3, 8, 8)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer="export")
    results = []
    for module in (model, prepared):
        module.train()
        torch.manual_seed(1)
        results.append(module(x))
    assert torch.equal(*results)
    assert all(torch.equal(value, prepared.state_dict()[name]) for name, value in model.state_dict().items())


def test_a_branch_on_data_is_shown_with_the_users_line() -> None:
    with pytest.raises(QirError, match="torch.fx can not trace this model") as caught:
        qir.prepare_model(BranchOnData(), example_inputs=(torch.randn(3),))
    assert "return x * 2 if x.sum() > 0 else x" in str(caught.value)
    assert "torch.export fails too" in str(caught.value)


def test_without_example_inputs_the_error_asks_for_them() -> None:
    with pytest.raises(QirError, match="example_inputs"):
        qir.prepare_model(BranchOnShape())


def test_excluded_modules_stay_whole() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    model = nn.Sequential(inner, nn.ReLU()).eval()
    x = torch.randn(2, 3, 6, 6)
    by_instance = qir.prepare_model(model, modules_to_exclude=[inner])
    by_class = qir.prepare_model(model, module_classes_to_exclude=[nn.Conv2d])
    assert isinstance(by_instance.get_submodule("0"), nn.Sequential)
    assert torch.equal(by_instance(x), model(x))
    assert torch.equal(by_class(x), model(x))


def test_concrete_arguments_choose_a_branch() -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor, deep: bool) -> Tensor:
            return F.relu(x) if deep else x

    prepared = qir.prepare_model(Net(), concrete_args={"deep": True})
    assert torch.equal(prepared(torch.tensor([-1.0])), torch.tensor([0.0]))


def test_the_training_flags_of_the_model_are_kept_module_by_module() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(), nn.ReLU()))
    model.train()
    model[1].eval()
    prepared = qir.prepare_model(model)
    flags = {path: module.training for path, module in model.named_modules()}
    assert {path: module.training for path, module in prepared.named_modules()} == flags


def test_wrappers_are_looked_through() -> None:
    model, x = nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.randn(2, 3)
    for wrapped in (torch.compile(model), nn.DataParallel(model)):
        assert torch.equal(qir.prepare_model(wrapped)(x), model(x))


def test_in_place_shares_the_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    assert qir.prepare_model(model, in_place=True).get_submodule("0").weight is model[0].weight
    assert qir.prepare_model(model).get_submodule("0").weight is not model[0].weight


def test_new_layers_are_mapped_to_the_users_lines() -> None:
    prepared = qir.prepare_model(BranchOnShape(), example_inputs=(torch.randn(2, 3, 13, 13),))
    assert any(name.startswith("module_relu") and "test_prepare.py:" in line
               for name, line in prepared.meta["new_layers"].items())  # fmt: skip


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        x = self.act(self.norm(self.conv(x)))
        return self.act(x - 1 if y is None else x - y)


def test_a_traced_graph_module_is_prepared() -> None:
    model, x = Small().eval(), torch.randn(2, 3, 5, 5)
    prepared = qir.prepare_model(torch.fx.symbolic_trace(model, {"y": None}), example_inputs=(x,))
    assert torch.equal(prepared(x), model(x))
    assert {"module_sub", "module_act_1"} <= {name for name, _ in prepared.named_children()}


def test_an_exported_program_is_prepared() -> None:
    model, x = Small().eval(), torch.randn(2, 3, 5, 5)
    program = torch.export.export(model, (x,))
    for options in ({}, {"example_inputs": (x,)}):
        prepared = qir.prepare_model(program, **options)  # type: ignore[arg-type]
        assert torch.equal(prepared(x), model(x))
        assert set(prepared.state_dict()) == set(model.state_dict())
        assert {"module_sub", "module_act_1"} <= {name for name, _ in prepared.named_children()}


def test_keyword_examples_are_exported_and_given_in_calls() -> None:
    model, x, y = Small().eval(), torch.randn(2, 3, 5, 5), torch.randn(4, 1, 1)
    for examples in ({"example_inputs": (x,), "example_keywords": {"y": y}}, {"example_keywords": {"x": x, "y": y}}):
        prepared = qir.prepare_model(model, **examples)  # type: ignore[arg-type]
        keywords: dict[str, Any] = examples["example_keywords"]  # type: ignore[assignment]
        given = examples.get("example_inputs", ())
        assert torch.equal(prepared(*given, **keywords), model(x, y))
    with pytest.raises(QirError, match="torch.fx takes no keyword examples"):
        qir.prepare_model(model, example_keywords={"x": x}, importer="fx")


def test_a_dictionary_of_another_class_is_returned_in_it() -> None:
    from collections import OrderedDict

    class Pyramid(nn.Module):
        def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
            return OrderedDict([("0", F.relu(x)), ("pool", x * 2)])

    x = torch.randn(3)
    prepared = qir.prepare_model(Pyramid(), example_inputs=(x,), importer="export")
    assert type(prepared(x)) is OrderedDict
    assert list(prepared(x)) == ["0", "pool"]


def test_a_prepared_model_can_be_prepared_and_quantized_again() -> None:
    model, x = Small().eval(), torch.randn(2, 3, 5, 5)
    prepared = qir.prepare_model(model)
    again = qir.prepare_model(prepared, example_inputs=(x,))
    assert [name for name, _ in again.named_modules()] == [name for name, _ in prepared.named_modules()]
    graph = qir.import_model(prepared, (x,))
    assert not any(node.definition.opaque for node in graph.nodes())


def test_a_failing_example_is_told_from_a_failing_import() -> None:
    with pytest.raises(QirError, match="the model fails on the example inputs"):
        qir.prepare_model(nn.Sequential(nn.Linear(3, 3)), example_inputs=(torch.randn(2, 4),), importer="fx")


@pytest.mark.parametrize("drop", [F.dropout, F.dropout2d, F.alpha_dropout], ids=lambda drop: str(drop.__name__))
@pytest.mark.parametrize("importer", ["fx", "export"])
def test_a_tensor_that_is_dropped_and_read_stays_two_tensors(drop: Any, importer: Any) -> None:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return drop(x, 0.5, self.training) * 2 + x

    model, x = Net(), torch.randn(2, 3, 4, 4)
    prepared = qir.prepare_model(model.eval(), example_inputs=(x,), importer=importer)
    results = []
    for module in (model.train(), prepared.train()):
        torch.manual_seed(3)
        results.append(module(x))
    assert torch.equal(*results)


def test_calls_that_stay_opaque_are_reported_with_reason_and_line() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.erfinv(self.inner(x))
            return torch.fft.fft(x).abs()

    model, x = Model(), torch.rand(2, 4)
    for importer in ("fx", "export"):
        prepared = qir.prepare_model(model, [model.inner], example_inputs=(x,), importer=importer)  # type: ignore[arg-type]
        whole, erfinv, fft, *_ = prepared.meta["opaque_calls"]
        assert (whole.path, whole.reason) == ("inner", "it is to stay whole")
        assert erfinv.path == "module_erfinv"
        assert erfinv.reason == "a special function without an ONNX operator"
        assert "fft" in fft.call
        assert fft.reason == "nothing lowers it yet"
        assert str(fft).endswith(fft.line)
        assert "test_prepare.py:" in fft.line


MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
IMAGES = torch.randn(2, 3, 8, 8)


@pytest.mark.parametrize(("arguments", "named", "advice"), [
    ({"model": None}, "a NoneType", "torch.nn.Module"), ({"model": nn.ReLU}, "the class ReLU", "torch.nn.Module"),
    ({"model": torch.relu}, "builtin_function", "torch.nn.Module"), ({"model": "model.pt"}, "a str", "torch.nn.Module"),
    ({"modules_to_exclude": ["0"]}, "which is no module", "the module"),
    ({"modules_to_exclude": [nn.Conv2d]}, "which is no module", "module_classes_to_exclude"),
    ({"module_classes_to_exclude": [MODEL[0]]}, "which is no class", "modules_to_exclude"),
    ({"concrete_args": {"flag": 1}}, "no argument 'flag'", "it has: input"),
    ({"concrete_args": [1]}, "is a list", "dict"),
    ({"example_keywords": {"image": IMAGES}}, "no argument 'image'", "it has: input"),
])  # fmt: skip
def test_wrong_arguments_are_told(arguments: dict[str, Any], named: str, advice: str) -> None:
    with pytest.raises(QirError, match=named) as caught:
        qir.prepare_model(**{"model": MODEL, **arguments})
    assert advice in str(caught.value.help)


@pytest.mark.parametrize("importer", ["auto", "export"])
@pytest.mark.parametrize(
    "examples", [IMAGES, [IMAGES], (IMAGES,), {"input": IMAGES}], ids=["tensor", "list", "tuple", "dict"]
)
def test_examples_are_given_as_they_are_at_hand(examples: Any, importer: Any) -> None:
    assert torch.equal(qir.prepare_model(MODEL, example_inputs=examples, importer=importer)(IMAGES), MODEL(IMAGES))


def test_data_that_is_no_batches_is_told() -> None:
    with pytest.raises(QirError, match="one array") as caught:
        qir.quantize(MODEL, data=IMAGES)
    assert "data=[x]" in str(caught.value.help)
