"""A simulator trains like any module: mixed precision, accumulation, several processes, batch norms afterwards."""

from __future__ import annotations

import os
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import qir
from qir.api.preparation import PREPARE
from qir.backends.torch_module import emit_torch
from qir.backends.torch_quantizers import Quantizer, learn_ranges, quantizers_of
from qir.backends.torch_training import reestimate_batch_norm
from qir.encodings.encoding import ProductEncoding
from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pipeline


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


def images(seed: int, count: int = 8) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def simulator(learned: bool = False) -> Any:
    """A small network with a quantizer on the input, the weights and the bias of the convolution."""
    torch.manual_seed(0)
    graph = qir.import_model(Block().eval(), [images(0)])
    Pipeline.parse(PREPARE).run(graph)
    quantize_convolutions(graph)
    module = emit_torch(graph).train()
    for _, quantizer in quantizers_of(module):
        if not isinstance(quantizer.encoding, ProductEncoding):
            of = (
                module.get_parameter("conv.weight").detach().numpy()
                if quantizer.encoding.axis == 0
                else images(0).numpy()
            )
            quantizer.set_encoding(quantizer.encoding.with_range(*quantizer.encoding.ranges(of)))
    if learned:
        learn_ranges(module)
    return module


def quantize_convolutions(graph: Graph) -> None:
    from qir.encodings.encoding import Encoding

    act, weight = Encoding("u8"), Encoding("i4", True, 0)
    grids = [act, weight, ProductEncoding(input=act, weight=weight)]
    for node in [node for node in graph.nodes() if node.op == "Conv"]:
        for port, grid in enumerate(grids):
            path = f"{node.module}.quantizer_{port}"
            made = graph.add("qir.Quantize", [node.operands[port]], {"encoding": grid}, module=path)
            graph.set_operand(node, port, made.result)


def loss_of(module: nn.Module, seed: int, count: int = 8) -> Tensor:
    return module(images(seed, count)).square().mean()


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("learned", [False, True])
def test_a_step_under_autocast_rounds_in_float32(learned: bool) -> None:
    module = simulator(learned)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(module, 1)
    loss.backward()
    assert {tensor.dtype for tensor in gradients(module).values()} == {torch.float32}
    assert all(torch.isfinite(tensor).all() for tensor in gradients(module).values())
    for _, quantizer in quantizers_of(module):
        encoding = quantizer.encoding
        assert encoding.scale is not None
        assert encoding.scale.dtype == np.float32


@pytest.mark.parametrize("learned", [False, True])
def test_gradients_add_up_over_steps(learned: bool) -> None:
    module = simulator(learned)
    parts = []
    for seed in (1, 2):
        alone = deepcopy(module)
        loss_of(alone, seed).backward()
        parts.append(gradients(alone))
        loss_of(module, seed).backward()
    for name, gradient in gradients(module).items():
        torch.testing.assert_close(gradient, parts[0][name] + parts[1][name], msg=name)


def test_a_learned_scale_trains_with_the_weights_and_is_exported() -> None:
    module = simulator(learned=True)
    before = {path: quantizer.encoding.scale for path, quantizer in quantizers_of(module)}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    for seed in range(3):
        optimizer.zero_grad()
        loss_of(module, seed).backward()
        optimizer.step()
    after = {path: quantizer.encoding.scale for path, quantizer in quantizers_of(module)}
    assert all(not np.array_equal(before[path], after[path]) for path in before)
    x, weight, bias = (after[f"conv.quantizer_{port}"] for port in range(3))
    assert x is not None
    assert weight is not None
    np.testing.assert_array_equal(bias, x * weight)


# -- several processes ----------------------------------------------------------------------------------------------


def _rank(rank: int, kind: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.set_num_threads(1)
    module = simulator(learned=True)
    if kind == "ddp":
        wrapped = nn.parallel.DistributedDataParallel(module)
    else:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        wrapped = fully_shard(module, mesh=init_device_mesh("cpu", (2,)))
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
    for seed in range(2):
        optimizer.zero_grad()
        loss_of(wrapped, 2 * seed + rank).backward()
        optimizer.step()
    encodings = {path: quantizer.encoding for path, quantizer in quantizers_of(module)}
    torch.save({path: torch.from_numpy(np.array(e.scale)) for path, e in encodings.items()}, f"{folder}/{rank}.pt")
    dist.barrier()  # a process that leaves early breaks the connections of the other
    dist.destroy_process_group()
    os._exit(0)  # threads of gloo that are still there abort an interpreter that winds down


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_encodings_stay_in_step_across_processes(kind: str, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_rank, (kind, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    untrained = {path: quantizer.encoding.scale for path, quantizer in quantizers_of(simulator())}
    for path, scale in first.items():
        assert torch.equal(scale, second[path])
        assert not np.array_equal(scale.numpy(), untrained[path])


# -- batch norms ----------------------------------------------------------------------------------------------------


def test_batch_norms_take_the_mean_of_the_batches() -> None:
    module = simulator()
    batches = [images(seed) for seed in range(5)]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    seen: list[Tensor] = []
    handle = module.get_submodule("norm").register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    undo = reestimate_batch_norm(module, batches, 3)
    handle.remove()
    assert len(seen) == 3
    norm = module.get_submodule("norm")
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0))
    assert norm.momentum == 0.1
    assert module.training
    undo.undo()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_modes_are_put_back_after_an_error() -> None:
    module = simulator()
    with pytest.raises(RuntimeError):
        reestimate_batch_norm(module, [torch.randn(2, 5, 6, 6)])
    assert all(inner.training for inner in module.modules())
    assert module.get_submodule("norm").momentum == 0.1


def test_re_estimation_needs_batch_norms_and_batches() -> None:
    with pytest.raises(QirError, match="no batch norm"):
        reestimate_batch_norm(nn.Linear(2, 2), [torch.randn(2, 2)])
    with pytest.raises(QirError, match="no batch to"):
        reestimate_batch_norm(simulator(), [])


def test_a_disabled_quantizer_is_not_learned() -> None:
    module = simulator()
    for _, quantizer in quantizers_of(module):
        quantizer.enabled = False
    assert learn_ranges(module) == []
    assert isinstance(quantizer, Quantizer)
