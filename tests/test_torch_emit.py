"""What `prepare_model` gives behaves as the model that it was given, bit for bit."""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Iterable
from copy import deepcopy
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import qir
from tests.comparing import same, same_state, tensors, train_step
from tests.model_table import Example
from tests.models import SMALL, TORCHVISION


def each(fast: Iterable[str]) -> pytest.MarkDecorator:
    """Runs a test with every model; with all but the fast ones only where slow tests run."""
    cases = [
        pytest.param(example, id=name, marks=() if name in fast else pytest.mark.slow)
        for name, example in {**SMALL, **TORCHVISION}.items()
    ]
    return pytest.mark.parametrize("example", cases)


EVERY = each(fast=SMALL)
MOSTLY_SLOW = each(fast=("digits_net", "in_place", "recurrent", "sizes", "tied_head"))
BOTH = pytest.mark.parametrize("with_inputs", [False, True], ids=["symbolic", "typed"])


@cache
def prepared(example: Example, with_inputs: bool) -> tuple[nn.Module, fx.GraphModule]:
    """The model and what becomes of it; tests that change them work on copies."""
    model = example.model()
    return model, qir.prepare_model(model, example_inputs=example.inputs() if with_inputs else None)


def tied(module: nn.Module) -> set[frozenset[str]]:
    """The names of each parameter."""
    names = defaultdict(set)
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names[parameter].add(name)
    return {frozenset(group) for group in names.values()}


@EVERY
@BOTH
def test_outputs_are_those_of_the_model(example: Example, with_inputs: bool) -> None:
    model, module = prepared(example, with_inputs)
    for batch in (1, 3):
        inputs = example.inputs(batch, seed=batch)
        assert same(module(*deepcopy(inputs)), model(*deepcopy(inputs)))


@EVERY
@BOTH
def test_training_gives_the_models_outputs_state_and_gradients(example: Example, with_inputs: bool) -> None:
    model, module = map(deepcopy, prepared(example, with_inputs))
    assert same(train_step(module, example.inputs()), train_step(model, example.inputs()))
    assert same_state(module, model)
    parameters = dict(module.named_parameters())
    assert set(parameters) == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == parameters[name].requires_grad, name
        assert same(parameters[name].grad, parameter.grad), name


@EVERY
def test_state_loads_both_ways(example: Example) -> None:
    model, module = map(deepcopy, prepared(example, False))
    train_step(model, example.inputs())
    module.load_state_dict(model.state_dict())
    inputs = example.inputs(seed=7)
    assert same(module.eval()(*deepcopy(inputs)), model.eval()(*deepcopy(inputs)))
    fresh = example.model()
    fresh.load_state_dict(module.state_dict())
    assert same_state(fresh, model)


@EVERY
def test_model_is_unchanged_and_shares_no_memory(example: Example) -> None:
    model = example.model().train()
    before, layout = deepcopy(model.state_dict()), str(model)
    module = qir.prepare_model(model)
    mine = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    other = {tensor.untyped_storage().data_ptr() for tensor in [*module.parameters(), *module.buffers()]}
    assert not mine & other
    assert all(part.training for part in [*model.modules(), *module.modules()])
    assert str(model) == layout
    assert same(dict(model.state_dict()), dict(before))


@EVERY
def test_tied_weights_stay_one_parameter(example: Example) -> None:
    model, module = prepared(example, False)
    assert tied(module) == tied(model)


@EVERY
def test_copies_are_whole(example: Example) -> None:
    model, module = prepared(example, False)
    copies = [deepcopy(module)] + ([pickle.loads(pickle.dumps(module))] if example.pickles else [])
    for copy in copies:
        assert same_state(copy, model)
        assert tied(copy) == tied(model)
        inputs = example.inputs(seed=5)
        assert same(copy(*deepcopy(inputs)), model(*deepcopy(inputs)))


@MOSTLY_SLOW
def test_module_compiles_as_one_graph(example: Example) -> None:
    model, module = prepared(example, False)
    torch._dynamo.reset()
    inputs = example.inputs(seed=9)
    with torch._dynamo.config.patch(allow_rnn=True):
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        assert same(compiled(*deepcopy(inputs)), model(*deepcopy(inputs)))


@MOSTLY_SLOW
def test_module_can_be_exported(example: Example) -> None:
    model, module = prepared(example, False)
    inputs = example.inputs(seed=9)
    exported = torch.export.export(module, tuple(deepcopy(inputs)), strict=False)
    assert same(tensors(exported.module()(*deepcopy(inputs))), tensors(model(*deepcopy(inputs))))


class Block(nn.Module):
    """A residual block of functional calls, with one layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.act = nn.Linear(4, 4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc(x)) + x
        return F.relu(self.act(x + 1) + x)


def test_layers_are_named_after_the_calls_and_the_modules_that_make_them() -> None:
    module = qir.prepare_model(nn.Sequential(Block(), Block()))
    calls = [node.target for node in module.graph.nodes if node.op == "call_module"]
    assert calls == [
        "0.fc", "0.act", "0.module_add", "0.module_add_1", "0.module_act_1", "0.module_add_2", "0.module_relu",
        "1.fc", "1.act", "1.module_add_3", "1.module_add_4", "1.module_act_1", "1.module_add_5", "1.module_relu_1",
    ]  # fmt: skip
    kinds = [type(module.get_submodule(path)).__name__ for path in calls[:7]]
    assert kinds == ["Linear", "ReLU", "Call", "Call", "ReLU", "Call", "ReLU"]


@pytest.mark.slow
@pytest.mark.skipif(not TORCHVISION, reason="torchvision is not installed")
def test_additions_of_a_resnet_are_layers_of_their_blocks() -> None:
    names = [name for name, _ in prepared(TORCHVISION["resnet18"], False)[1].named_modules() if "add" in name]
    assert names[:3] == ["layer1.0.module_add", "layer1.1.module_add_1", "layer2.0.module_add_2"]
    assert len(names) == 8
