"""Checkpoints: a simulator comes back bit for bit, from one file that holds nothing to execute."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import qir
from qir.api.preparation import Examples, preparation
from qir.backends.torch_checkpoint import load_checkpoint, save_checkpoint
from qir.backends.torch_module import emit_torch
from qir.backends.torch_quantizers import learn_ranges, quantizers_of
from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding
from qir.errors import QirError
from qir.graph import Graph
from qir.quantizers import quantizers, replace_encodings
from tests.comparing import tensors
from tests.models import SMALL
from tests.test_encodings_apply import quantize_floats, quantized_everywhere, uncalibrated


def same(first: Any, second: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))


def outputs(module: nn.Module, inputs: list[torch.Tensor]) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        return module(*inputs)


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_simulator_comes_back_bit_equal(name: str, tmp_path: Path) -> None:
    graph, inputs = quantized_everywhere(SMALL[name]), SMALL[name].inputs()
    module = emit_torch(graph)
    save_checkpoint(tmp_path / "sim.ckpt", graph, module, {"scheme": "min-max", "frozen": ["a.b"], "percentile": 99.9})
    back, again, extra = load_checkpoint(tmp_path / "sim.ckpt", graph)
    assert str(back) == str(graph)
    assert same(outputs(module, inputs), outputs(again, inputs))
    assert extra == {"scheme": "min-max", "frozen": ["a.b"], "percentile": 99.9}
    assert all(
        torch.equal(a, b) for a, b in zip(module.state_dict().values(), again.state_dict().values(), strict=True)
    )


def trained(graph: Graph, inputs: list[torch.Tensor], **options: bool) -> torch.fx.GraphModule:
    """A module of the graph after two steps of training, with everything set that can be set."""
    module = emit_torch(graph).train()
    if options.get("learn"):
        learn_ranges(module)
    optimizer = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.01)
    for _ in range(2):
        optimizer.zero_grad()
        sum(t.float().square().mean() for t in tensors(module(*inputs))).backward()
        optimizer.step()
    first = next(module.parameters())
    first.requires_grad_(False)
    next(module.children()).eval()
    quantizers_of(module)[0][1].enabled = False
    return module


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_training_changed_comes_back(learn: bool, dtype: torch.dtype | None, tmp_path: Path) -> None:
    example = SMALL["digits_net"]
    graph, inputs = quantized_everywhere(example), example.inputs()
    module = trained(graph, inputs, learn=learn)
    if dtype is not None:
        inputs = [x.to(dtype) for x in inputs]
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if tensor.is_floating_point() and ".grid." not in name:
                tensor.data = tensor.data.to(dtype)
    save_checkpoint(tmp_path / "sim.ckpt", graph, module)
    _, again, _ = load_checkpoint(tmp_path / "sim.ckpt")
    assert [m.training for m in module.modules()] == [m.training for m in again.modules()]
    kept = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    assert kept == {name: parameter.requires_grad for name, parameter in again.named_parameters()}
    assert [q.enabled for _, q in quantizers_of(module)] == [q.enabled for _, q in quantizers_of(again)]
    for (key, old), (other, new) in zip(module.state_dict().items(), again.state_dict().items(), strict=True):
        assert key == other
        assert old.dtype == new.dtype
        assert torch.equal(old, new), key
    assert same(outputs(deepcopy(module), inputs), outputs(again, inputs))
    optimizer = torch.optim.SGD(again.parameters(), 0.01)
    sum(t.float().square().mean() for t in tensors(again(*inputs))).backward()
    optimizer.step()


def test_an_uncalibrated_simulator_comes_back_uncalibrated(tmp_path: Path) -> None:
    graph = uncalibrated(quantized_everywhere(SMALL["perceptron"]))
    save_checkpoint(tmp_path / "sim.ckpt", graph, emit_torch(graph))
    back, _, _ = load_checkpoint(tmp_path / "sim.ckpt")
    assert str(back) == str(graph)


def test_every_kind_of_grid_comes_back(tmp_path: Path) -> None:
    graph = quantized_everywhere(SMALL["perceptron"])
    weight = next(node for node in quantizers(graph) if node.operands[0].weight and node.operands[0].type.rank == 2)
    shape = weight.operands[0].type.static
    assert shape is not None
    inputs = SMALL["perceptron"].inputs()
    kinds = [
        Encoding("i4", True, 0, block_axis=1, block_size=1),
        LowPowerEncoding("i4", True, 0, block_axis=1, block_size=1),
        FloatEncoding("f8e4m3"), Encoding("u3", True, unsigned=True), FloatEncoding("bf16"),
    ]  # fmt: skip
    for kind in kinds:
        made = kind.with_range(*kind.ranges(weight.operands[0].array))
        replace_encodings(graph, {weight.attrs["encoding"]: made})
        module = emit_torch(graph)
        save_checkpoint(tmp_path / "sim.ckpt", graph, module)
        back, again, _ = load_checkpoint(tmp_path / "sim.ckpt")
        assert str(back) == str(graph)
        assert same(outputs(module, inputs), outputs(again, inputs))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "sim.ckpt"
    graph = quantized_everywhere(SMALL["digits_net"])
    save_checkpoint(path, graph, emit_torch(graph), {"scheme": "min-max"})
    return path


def test_other_readers_of_safetensors_read_the_file(saved: Path) -> None:
    with safetensors.safe_open(str(saved), "numpy") as file:
        assert file.metadata()["format"] == "qir.checkpoint.1"
        graph = qir.parse(file.metadata()["graph"])
        keys = set(file.keys())
    assert {value.weight.paths[0] for value in graph.weights() if value.weight and value.weight.paths} <= keys


def test_a_checkpoint_of_another_model_is_refused(saved: Path) -> None:
    for name in ("perceptron", "inverted_residual"):
        with pytest.raises(QirError, match="of another model"):
            load_checkpoint(saved, quantized_everywhere(SMALL[name]))
    same_model = uncalibrated(quantized_everywhere(SMALL["digits_net"]))
    load_checkpoint(saved, same_model)
    fewer = same_model.copy()
    last = quantizers(fewer)[-1]
    fewer.replace(last.result, last.operands[0])
    fewer.erase(last)
    with pytest.raises(QirError, match="another placement"):
        load_checkpoint(saved, fewer)


def test_a_module_of_another_graph_is_refused(tmp_path: Path) -> None:
    graph = quantized_everywhere(SMALL["digits_net"])
    with pytest.raises(QirError, match="another graph"):
        save_checkpoint(tmp_path / "x", graph, emit_torch(quantized_everywhere(SMALL["perceptron"])))
    with pytest.raises(QirError, match="JSON"):
        save_checkpoint(tmp_path / "x", graph, emit_torch(graph), {"callback": print})
    with pytest.raises(QirError, match="too large"):
        save_checkpoint(tmp_path / "x", graph, emit_torch(graph), {"seed": 2**70})
    double = emit_torch(graph).double()
    with torch.no_grad():
        for parameter in double.parameters():
            parameter.add_(1e-12)
    with pytest.raises(QirError, match="float64 in the module"):
        save_checkpoint(tmp_path / "x", graph, double)
    assert not list(tmp_path.iterdir())


def test_what_is_no_checkpoint_is_refused(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(QirError, match="can not read"):
        load_checkpoint(path)
    whole = saved.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 2], whole[:-1], b"\xff" * 64):
        path.write_bytes(content)
        with pytest.raises(QirError, match="safetensors"):
            load_checkpoint(path)
    from qir.weights_file import write_tensors

    write_tensors(path, {"a": np.zeros(3, np.float32)})
    with pytest.raises(QirError, match="is no checkpoint"):
        load_checkpoint(path)


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def put(path: Path, header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_checkpoint_is_refused_or_whole(saved: Path, data: st.DataObject) -> None:
    header, content = parts(saved)
    path = saved.with_name("damaged.ckpt")
    kind = data.draw(st.sampled_from(["settings", "graph", "tensor", "header"]))
    if kind == "tensor":
        at = data.draw(st.integers(0, len(content) - 1))
        content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    elif kind == "header":
        keys = sorted(header)
        key = data.draw(st.sampled_from(keys))
        header[key] = data.draw(st.sampled_from([None, {}, header[keys[1]], {"format": "qir.checkpoint.1"}]))
    else:
        text = header["__metadata__"][kind]
        at, count = data.draw(st.integers(0, len(text))), data.draw(st.integers(0, 30))
        added = data.draw(st.sampled_from(["", "0", '"x"', "[", "{}", "null", "%x", "\n", ","]))
        header["__metadata__"][kind] = text[:at] + added + text[at + count :]
    put(path, header, content)
    try:
        _, module, _ = load_checkpoint(path)
    except QirError:
        return
    assert isinstance(module, torch.fx.GraphModule)


def test_nothing_in_a_checkpoint_is_executed(saved: Path) -> None:
    header, content = parts(saved)
    settings_ = json.loads(header["__metadata__"]["settings"])
    bad = '[1, {"type": "os.system", "context": "\\"true\\"", "children_spec": []}]'
    settings_["module"]["signature"] = {"leaves": [0], "names": ["x"], "spec": bad, "sizes": None}
    header["__metadata__"]["settings"] = json.dumps(settings_)
    path = saved.with_name("hostile.ckpt")
    put(path, header, content)
    with pytest.raises(QirError, match="signature"):
        load_checkpoint(path)


def test_layers_that_text_can_not_hold_need_the_graph(tmp_path: Path) -> None:
    example = SMALL["perceptron"]
    model, inputs = example.model(), example.inputs()
    x = inputs[0]
    whole = next(inner for inner in model.modules() if isinstance(inner, nn.Linear))
    graph = quantize_floats(preparation(model, Examples(inputs), excluded=[whole]).graph)
    module = emit_torch(graph)
    save_checkpoint(tmp_path / "sim.ckpt", graph, module)
    _, again, _ = load_checkpoint(tmp_path / "sim.ckpt", graph)
    assert same(outputs(module, [x]), outputs(again, [x]))
    with pytest.raises(QirError, match="text can not hold"):
        load_checkpoint(tmp_path / "sim.ckpt")


class Picks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x).abs()[:, 0] + torch.linalg.eigh(x @ x.mT)[0][0]


def test_calls_that_qir_does_not_know_come_back_by_name(tmp_path: Path) -> None:
    x = torch.randn(3, 4)
    graph = preparation(Picks(), Examples([x])).graph
    assert any(node.definition.opaque for node in graph.nodes())
    module = emit_torch(graph)
    save_checkpoint(tmp_path / "sim.ckpt", graph, module)
    _, again, _ = load_checkpoint(tmp_path / "sim.ckpt")
    assert same(outputs(module, [x]), outputs(again, [x]))
