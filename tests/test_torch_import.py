"""Graphs of torch models: valid, readable as text, typed; and errors at the user's line where there can be none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

import qir
from qir.types import TensorType
from qir.verify import verify
from tests.comparing import tensors
from tests.model_table import Example
from tests.models import SMALL, TORCHVISION

EVERY = pytest.mark.parametrize(
    "example",
    [pytest.param(example, id=name) for name, example in SMALL.items()]
    + [pytest.param(example, id=name, marks=pytest.mark.slow) for name, example in TORCHVISION.items()],
)


@EVERY
@pytest.mark.parametrize("with_inputs", [False, True], ids=["symbolic", "typed"])
def test_graph_is_valid_and_survives_its_text(example: Example, with_inputs: bool) -> None:
    graph = qir.import_model(example.model(), example.inputs() if with_inputs else None)
    verify(graph)
    assert qir.parse(str(graph)) == graph


@EVERY
def test_output_types_are_those_of_the_outputs(example: Example) -> None:
    model, inputs = example.model(), example.inputs(batch=5)
    graph = qir.import_model(model, inputs)
    known = 0
    for value, tensor in zip(graph.outputs, tensors(model(*inputs)), strict=True):
        if isinstance(value.type, TensorType) and value.type.shape is not None:
            sizes = zip(value.type.shape, tensor.shape, strict=True)
            assert all(size == actual for size, actual in sizes if isinstance(size, int))
            known += 1
    assert known or any(node.definition.opaque for node in graph.nodes()) or example.name == "sizes"


@EVERY
def test_importing_twice_gives_one_text(example: Example) -> None:
    model = example.model()
    assert str(qir.import_model(model)) == str(qir.import_model(model))


def test_weights_are_read_by_reference_and_tied_ones_are_one_value() -> None:
    model = SMALL["tied_head"].model()
    graph = qir.import_model(model)
    (tied,) = [value for value in graph.weights() if value.weight and "head.weight" in value.weight.paths]
    assert tied.weight.paths == ("embedding.weight", "head.weight")
    assert tied.weight.data is model.head.weight
    assert len(tied.uses) == 2


def test_nodes_know_their_layer_their_line_and_the_module_around_them() -> None:
    graph = qir.import_model(SMALL["inverted_residual"].model())
    nodes = {node.module: node for node in graph.nodes()}
    assert nodes["stem.conv"].scope == "stem"
    assert nodes["project"].scope == ""
    assert "self.project" in nodes["project"].loc.source
    addition = next(node for node in graph.nodes() if node.op == "Add")
    assert addition.module is None
    assert addition.loc.source.strip().startswith("x = x + self.norm")


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # the user's line
            return x
        return -x


class ViewReadLater(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        view = x.view(-1)
        x.mul_(2)  # the user's line
        return x.sum() + view.sum()


class PartChanged(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x + 1
        x[:, 0].mul_(2)  # the user's line
        return x.sum()


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)  # the user's line
        return x + self.count


class Loops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for row in x:  # the user's line
            x = x + row
        return x


@pytest.mark.parametrize("build", [Branches, ViewReadLater, PartChanged, Counts, Loops])
def test_what_can_not_be_imported_is_one_error_at_the_users_line(build: Callable[[], nn.Module]) -> None:
    with pytest.raises(qir.QirError) as caught:
        qir.prepare_model(build())
    message = str(caught.value)
    assert "# the user's line" in message
    assert "test_torch_import.py" in message
    assert message.startswith("error[import]: ")
    assert "help: " in message


def test_a_failed_import_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Dropout(), Branches()).train()
    with pytest.raises(qir.QirError):
        qir.import_model(model)
    assert all(module.training is True for module in model.modules())


def test_an_argument_that_no_lowering_takes_leaves_the_call_whole() -> None:
    graph = fx.Graph()
    graph.output(graph.call_function(torch.quantile, (graph.placeholder("x"), 0.5), {"interpolation": "nearest"}))
    imported = qir.import_model(fx.GraphModule(nn.Module(), graph), [torch.zeros(2, 4)])
    (node,) = imported.nodes()
    assert node.definition.opaque
    assert node.op == "torch.quantile"


class Sizes(nn.Module):
    """A function of a tensor and its sizes."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x * 2)


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.reshape(x.shape[:-1] + (2, -1)),  # noqa: RUF005
        lambda x: x.view(x.size()[:-1] + (2, 3)),  # noqa: RUF005
        lambda x: x.reshape((-1,) + x.shape[1:] * 1),
        lambda x: x.reshape(x.shape[0], x.shape[1:].numel()),
        lambda x: x.new_zeros(x.size()) + x.new_full((x.shape[0], 1, 1), 2.0) + x.new_tensor(3.0),
        lambda x: x.data + x,
    ],
)
def test_sizes_are_put_together(function: Callable[[Tensor], Tensor], typed: bool) -> None:
    model, x = Sizes(function), torch.rand(2, 3, 6)
    prepared = qir.prepare_model(model, example_inputs=(x,), importer="fx") if typed else qir.prepare_model(model)
    other = torch.rand(4, 3, 6)
    assert torch.equal(prepared(other), model(other))
