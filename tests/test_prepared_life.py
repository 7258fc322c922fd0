"""What a prepared module goes through afterwards, imported by either importer: saved, copied, compiled, trained."""

from __future__ import annotations

import io
import socket
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, fx, nn

import qir
from tests.comparing import same


class Net(nn.Module):
    """Convolutions with batch norm, a layer called twice, tied weights, functional calls, a buffer that is not kept."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.mix = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.register_buffer("shift", torch.randn(4, 1, 1), persistent=False)
        self.head, self.tail = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tail.weight = self.head.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(self.mix(self.stem(x))) * self.scale + self.shift
        x = F.relu(x).mean((2, 3))
        return self.tail(F.gelu(self.head(x)))  # type: ignore[no-any-return]


def image(seed: int = 0) -> Tensor:
    """A batch of images."""
    return torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


def made(importer: Any) -> tuple[Net, fx.GraphModule]:
    """A model, and the module prepared from it."""
    torch.manual_seed(0)
    model = Net().eval()
    return model, qir.prepare_model(model, example_inputs=(image(),), importer=importer)


IMPORTERS = pytest.mark.parametrize("importer", ["fx", "export"])


@IMPORTERS
def test_state_goes_both_ways_and_through_a_file(importer: str) -> None:
    model, prepared = made(importer)
    assert list(prepared.state_dict()) == list(model.state_dict())
    other = Net().eval()
    other.load_state_dict(prepared.state_dict())
    file = io.BytesIO()
    torch.save(other.state_dict(), file)
    file.seek(0)
    prepared.load_state_dict(torch.load(file))
    for part in (prepared, deepcopy(prepared)):
        x = image(1)
        assert same(part(x), model(x))
        assert part.get_submodule("head").weight is part.get_submodule("tail").weight


class Versioned(nn.Module):
    """Takes a state of the first version for one in other units."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def _load_from_state_dict(
        self, state: dict[str, Tensor], prefix: str, metadata: dict[str, Any], *rest: Any
    ) -> None:
        if metadata.get("version", 1) == 1:
            state = {**state, f"{prefix}scale": state[f"{prefix}scale"] / 2}
        super()._load_from_state_dict(state, prefix, metadata, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


@IMPORTERS
def test_state_says_of_which_version_it_is(importer: Any) -> None:
    for model in (Versioned(), nn.Sequential(Versioned())):
        state = qir.prepare_model(model.eval(), example_inputs=(torch.rand(2, 4),), importer=importer).state_dict()
        before = {name: tensor.clone() for name, tensor in state.items()}
        model.load_state_dict(state)
        assert same(dict(model.state_dict()), before)


@IMPORTERS
def test_parameters_come_in_the_order_of_the_model(importer: str) -> None:
    model, prepared = made(importer)
    assert [name for name, _ in prepared.named_parameters()] == [name for name, _ in model.named_parameters()]


class AnotherOrder(nn.Module):
    """Makes its layers in another order than it calls them, and one of them under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.scale = nn.Parameter(torch.ones(4))
        self.first = nn.Sequential(nn.Linear(4, 4), self.norm)
        self.unused = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.last(self.first(x))) * self.scale


@IMPORTERS
def test_state_comes_in_the_order_of_the_model_and_not_of_its_calls(importer: Any) -> None:
    model = AnotherOrder().eval()
    prepared = qir.prepare_model(model, example_inputs=(torch.rand(2, 4),), importer=importer)
    assert list(prepared.state_dict()) == list(model.state_dict())
    assert [name for name, _ in prepared.named_parameters()] == [name for name, _ in model.named_parameters()]


@IMPORTERS
def test_nothing_that_is_written_to_one_reaches_the_other(importer: str) -> None:
    model, prepared = made(importer)
    before, twin = deepcopy(model.state_dict()), deepcopy(prepared.state_dict())
    with torch.no_grad():
        for value in prepared.state_dict().values():
            value.add_(1)
        assert same(model.state_dict(), before)
        for value in model.state_dict().values():
            value.zero_()
    expected = {name: value + 1 for name, value in twin.items()}
    expected["tail.weight"] = expected["head.weight"] = twin["head.weight"] + 2  # it is one tensor
    assert same(dict(prepared.state_dict()), expected)


@IMPORTERS
def test_in_place_shares_the_tensors(importer: Any) -> None:
    model = Net().eval()
    prepared = qir.prepare_model(model, example_inputs=(image(),), importer=importer, in_place=True)
    assert all(a is b for a, b in zip(prepared.parameters(), model.parameters(), strict=True))


@IMPORTERS
def test_it_trains_as_the_model_does(importer: str) -> None:
    model, prepared = made(importer)
    for module in (model, prepared):
        module.train()
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        for seed in range(5):
            optimizer.zero_grad()
            module(image(seed)).square().sum().backward()
            optimizer.step()
    assert same(dict(prepared.state_dict()), dict(model.state_dict()))


@IMPORTERS
@pytest.mark.slow
def test_it_compiles_as_one_graph_and_exports(importer: str) -> None:
    model, prepared = made(importer)
    x = image(2)
    torch._dynamo.reset()
    assert same(torch.compile(prepared, fullgraph=True, backend="eager")(x), model(x))
    assert same(torch.export.export(prepared, (x,)).module()(x), model(x))


def _process(rank: int, importer: str, port: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    _, prepared = made(importer)
    parallel = nn.parallel.DistributedDataParallel(prepared.train())
    parallel(image(rank)).square().sum().backward()
    torch.save({name: value.grad for name, value in prepared.named_parameters()}, f"{folder}/{rank}.pt")
    dist.barrier()  # a process that leaves early breaks the connections of the other
    dist.destroy_process_group()


@IMPORTERS
@pytest.mark.slow
def test_two_processes_share_its_gradients(importer: str, tmp_path: Any) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    torch.multiprocessing.spawn(_process, (importer, port, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert same(first, second)
    assert all(gradient.abs().sum() > 0 for name, gradient in first.items() if "stem.0.bias" not in name)
