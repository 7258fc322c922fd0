"""A simulator trained by several processes: encodings and weights stay in step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from qir import QuantizationSimModel

SCHEMES = ("tf_enhanced", "training_range_learning_with_tf_init")
WORLD = 2


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4), nn.Tanh()).eval()


def simulator(scheme: str, data: torch.Tensor) -> QuantizationSimModel:
    sim = QuantizationSimModel(model(), data[:2], scheme)
    sim.compute_encodings([data])
    return sim


def step(module: nn.Module, data: torch.Tensor) -> torch.Tensor:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    out: torch.Tensor = module(data)
    out.square().mean().backward()
    optimizer.step()
    return out.detach()


def work(rank: int, folder: str) -> None:
    """One process: trains its half of the data under DDP, then under FSDP2, and writes what it ends with."""
    os.environ.update(MASTER_ADDR="127.0.0.1")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
    torch.set_num_threads(1)
    data = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    found = {}
    for scheme in SCHEMES:
        sim = simulator(scheme, data[rank::WORLD])
        parallel = nn.parallel.DistributedDataParallel(sim.model)
        for _ in range(3):
            step(parallel, data[rank::WORLD])
        found[f"{scheme}.ddp"] = {key: value.clone() for key, value in sim.model.state_dict().items()}
        sim = simulator(scheme, data[rank::WORLD])
        expected = sim.model(data).detach()
        sharded = fully_shard(sim.model, mesh=init_device_mesh("cpu", (WORLD,)))
        found[f"{scheme}.fsdp"] = {"equal": torch.tensor(torch.equal(step(sharded, data), expected))}
    torch.save(found, f"{folder}/{rank}.pt")
    dist.barrier()  # a process that leaves early breaks the connections of the other
    dist.destroy_process_group()


@pytest.mark.slow
def test_ddp_keeps_encodings_in_step_and_fsdp_computes_the_same(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=WORLD)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD))
    for scheme in SCHEMES:
        ours, theirs = first[f"{scheme}.ddp"], second[f"{scheme}.ddp"]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        assert bool(first[f"{scheme}.fsdp"]["equal"])
    data = torch.randn(16, 8, generator=torch.Generator().manual_seed(1))
    alone = simulator(SCHEMES[0], data).model.state_dict()
    scales = [key for key in alone if key.endswith("scale") and "weight" not in key]
    assert scales
    assert all(torch.equal(alone[key], first[f"{SCHEMES[0]}.ddp"][key]) for key in scales)
