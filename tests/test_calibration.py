"""The calibrate pass and `calibrate_module`: data streams, and encodings depend on the values alone."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qir
from qir.backends.torch_calibration import calibrate_module
from qir.backends.torch_module import emit_torch
from qir.backends.torch_quantizers import quantizers_of
from qir.calibration.calibration import NARROWEST_CHANNEL, Calibration
from qir.calibration.observers import NonFiniteError
from qir.encodings.encoding import Encoding, FloatEncoding, ProductEncoding
from qir.errors import QirError
from qir.evaluate import reference
from qir.passes.calibrate import Calibrate
from qir.quantizers import quantizers

METHODS = ["min-max", "sqnr", "percentile", "mse", "entropy"]
RNG = np.random.default_rng(11)


class Net(nn.Module):
    """A convolution, a clamp, a residual and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.conv(x))
        x = x + self.again(x)
        return self.head(x.mean((2, 3)))


def images(count: int = 34) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((count, 3, 8, 8)).astype(np.float32)


def placed() -> qir.Graph:
    """The net with quantizers, before calibration."""
    graph = qir.import_model(Net(), [torch.zeros(2, 3, 8, 8)])
    for step in qir.quantization(data=[]).passes[:-1]:
        step.run(graph)
    return graph


def scales(graph: qir.Graph) -> list[list[Any]]:
    """Every encoding, exactly."""
    return exact(node.attrs["encoding"] for node in quantizers(graph))


def exact(encodings: Iterable[Encoding]) -> list[list[Any]]:
    """Dtypes, scales and zero points, as JSON keeps them."""
    return [[e.dtype, np.asarray(e.scale).tolist(), np.asarray(e.zero_point).tolist()] for e in encodings]


def watched() -> qir.Graph:
    """A graph whose tensors do not depend on the batch size: a quantizer before and after a Relu."""
    return qir.parse(
        """
        graph @g(%x: f32[N,4,6]) {
          %x_q = qir.Quantize %x {encoding=$x} : f32[N,4,6]
          %relu = Relu %x_q : f32[N,4,6] [relu]
          %relu_q = qir.Quantize %relu {encoding=$y} : f32[N,4,6]
          return %relu_q
          $x = i8 symmetric axis=1
          $y = u8 asymmetric
        }
        """
    )


@pytest.mark.parametrize("method", METHODS)
def test_encodings_do_not_depend_on_the_split_nor_on_the_order(method: str) -> None:
    data = np.random.default_rng(1).standard_normal((34, 4, 6)).astype(np.float32) * np.array(
        [[[1], [10], [0.1], [99]]], np.float32
    )
    shuffled = np.random.default_rng(2).permutation(data)
    found = []
    for batches in (
        [data],
        np.array_split(data, 3),
        np.array_split(data, 17),
        np.array_split(shuffled, 5),
        list(shuffled[:, None]),
    ):
        graph = watched()
        Calibrate(data=batches, method=method).run(graph)  # type: ignore[arg-type]
        found.append(scales(graph))
    assert all(other == found[0] for other in found)


class Wide(nn.Module):
    """Sums of many products: the order in which they are added depends on the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.first, self.second = nn.Linear(700, 300), nn.Linear(300, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


def test_encodings_of_a_net_do_not_depend_on_the_split() -> None:
    data, found = np.random.default_rng(3).standard_normal((34, 700)).astype(np.float32), []
    shuffled = np.random.default_rng(4).permutation(data)
    for batches in ([data], np.array_split(data, 3), np.array_split(data, 17), np.array_split(shuffled, 5)):
        found.append(scales(qir.quantize(Wide(), data=batches).graph))
    assert all(other == found[0] for other in found)


def test_batches_are_run_whole_when_their_samples_depend_on_each_other() -> None:
    graph = qir.parse(
        """
        graph @g(%x: f32[N,4]) {
          %sum = CumSum %x, 0 : f32[N,4] [sum]
          %sum_q = qir.Quantize %sum {encoding=$sum} : f32[N,4]
          return %sum_q
          $sum = u8 asymmetric
        }
        """
    )
    Calibrate(data=[np.ones((1, 4), np.float32), np.ones((51, 4), np.float32), np.ones((2, 4), np.float32)]).run(graph)
    (node,) = quantizers(graph)
    assert float(node.attrs["encoding"].scale) == pytest.approx(51 / 255)


@pytest.mark.parametrize("method", METHODS)
def test_the_pass_and_the_module_find_the_same(method: str) -> None:
    graph = placed()
    module = emit_torch(graph)
    batches = list(torch.from_numpy(images()).split(8))
    by_module = calibrate_module(module, lambda: [module(part) for part in batches], method)
    calls = [
        str(node.target) for node in module.graph.nodes if isinstance(node.target, str) and node.target in by_module
    ]
    Calibrate(data=[batch.numpy() for batch in batches], method=method).run(graph)  # type: ignore[arg-type]
    by_pass = [n.attrs["encoding"] for n in quantizers(graph) if not isinstance(n.attrs["encoding"], ProductEncoding)]
    assert len(calls) == len(by_pass)
    for path, encoding in zip(calls, by_pass, strict=True):
        mine = by_module[path]
        assert mine.scale is not None
        assert encoding.scale is not None
        np.testing.assert_allclose(mine.scale, encoding.scale, rtol=1e-3)  # the pass ends grids within clamps


def test_other_executors_find_the_same_ranges() -> None:
    first, second = placed(), placed()
    Calibrate(data=[images(4)]).run(first)
    Calibrate(data=[images(4)], executor=reference).run(second)
    for one, other in zip(quantizers(first), quantizers(second), strict=True):
        np.testing.assert_allclose(one.attrs["encoding"].scale, other.attrs["encoding"].scale, rtol=1e-4)


def test_data_is_taken_one_batch_at_a_time() -> None:
    alive: list[int] = []

    class Batch(np.ndarray):
        def __del__(self) -> None:
            alive.pop()

    def stream() -> Iterator[np.ndarray]:
        for _ in range(9):
            assert len(alive) <= 1
            alive.append(1)
            yield images(2).view(Batch)

    graph = placed()
    Calibrate(data=stream()).run(graph)
    assert all(node.attrs["encoding"].calibrated for node in quantizers(graph))


def test_quantize_takes_an_iterator_and_keeps_no_batch() -> None:
    batches = [images(2) + i for i in range(3)]
    from_list = qir.quantize(Net(), data=batches)
    from_iterator = qir.quantize(Net(), data=iter(batches))
    assert scales(from_list.graph) == scales(from_iterator.graph)
    with pytest.raises(QirError, match="no calibration data"):
        qir.quantize(Net(), data=iter([]))


@pytest.mark.parametrize("method", ["min-max", "sqnr"])
def test_memory_is_flat_in_the_number_of_batches(method: str) -> None:
    def peak(count: int) -> int:
        graph = placed()
        batch = images(16)
        tracemalloc.start()
        Calibrate(data=(batch + i for i in range(count)), method=method).run(graph)  # type: ignore[arg-type]
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(1)  # tables are built once
    assert peak(60) < peak(6) * 1.1 + 50_000


def test_a_folder_holds_a_batch_in_each_file(tmp_path: Path) -> None:
    data = images(6)
    for index, part in enumerate(np.array_split(data, 3)):
        np.save(tmp_path / f"{index}.npy", part)
    np.savez(tmp_path / "9.npz", x=data[:1])
    (tmp_path / "notes.txt").write_text("no batch")
    whole, parts = placed(), placed()
    Calibrate(data=[data]).run(whole)
    Calibrate(file=str(tmp_path)).run(parts)
    for one, other in zip(quantizers(whole), quantizers(parts), strict=True):
        np.testing.assert_allclose(one.attrs["encoding"].scale, other.attrs["encoding"].scale, rtol=1e-5)


def test_a_folder_without_batches_and_hostile_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(QirError, match="no calibration data in"):
        Calibrate(file=str(tmp_path)).run(placed())
    for name, content in (("broken.npz", b"PK\x03\x04 nothing"), ("broken.npy", b"\x93NUMPY"), ("text.npy", b"hello")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(QirError, match="can not read"):
            Calibrate(file=str(tmp_path / name)).run(placed())
    np.savez(tmp_path / "objects.npz", x=np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(QirError, match="can not read"):
        Calibrate(file=str(tmp_path / "objects.npz")).run(placed())


def test_nan_is_refused_with_the_tensor_the_line_and_the_batch() -> None:
    graph = qir.parse(
        """
        graph @g(%x: f32[N,4]) {
          %root = Sqrt %x : f32[N,4] [root] @ net.py:7
          %root_q = qir.Quantize %root {encoding=$root} : f32[N,4]
          return %root_q
          $root = u8 asymmetric
        }
        """
    )
    module = emit_torch(graph)
    bad = [torch.ones(2, 4), torch.ones(2, 4), -torch.ones(2, 4)]
    with pytest.raises(QirError, match=r"holds NaN in batch 3") as caught:
        Calibrate(data=[batch.numpy() for batch in bad]).run(graph)
    assert "%root" in str(caught.value)
    with pytest.raises(QirError, match=r"root_q_quantizer \(net.py:7\) was given NaN in batch 3"):
        calibrate_module(module, lambda: [module(batch) for batch in bad])


def test_tensors_that_saw_no_data_are_listed_in_one_error() -> None:
    module = emit_torch(placed())
    with pytest.raises(QirError, match="no data reached") as caught:
        calibrate_module(module, lambda: None)
    activations = [path for path, q in quantizers_of(module) if "weight" not in path and "bias" not in path]
    assert len(activations) > 2
    listed = str(caught.value)
    assert all(path in listed for path in activations if not isinstance(_encoding(module, path), ProductEncoding))
    with pytest.raises(QirError, match="no calibration data"):
        Calibrate(data=[]).run(placed())
    with pytest.raises(QirError, match="no calibration data"):
        Calibrate(data=[np.zeros((0, 3, 8, 8), np.float32)]).run(placed())


def _encoding(module: nn.Module, path: str) -> Encoding:
    return dict(quantizers_of(module))[path].encoding


def test_the_module_is_left_as_it_was() -> None:
    module = emit_torch(placed())
    module.train()
    module.conv.eval()  # type: ignore[union-attr, operator]
    flags = [inner.training for inner in module.modules()]
    seen: list[bool] = []

    def run() -> None:
        seen.append(module.training or torch.is_grad_enabled())
        module(torch.from_numpy(images(2)))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate_module(module, run)
    assert seen == [False]
    assert [inner.training for inner in module.modules()] == flags
    assert all(quantizer.observer is None for _, quantizer in quantizers_of(module))


def test_disabled_and_kept_quantizers_have_no_entry() -> None:
    module = emit_torch(placed())
    found = quantizers_of(module)
    (kept, _), (off, disabled) = found[0], found[1]
    disabled.enabled = False
    encodings = calibrate_module(module, lambda: module(torch.from_numpy(images(2))), keep={kept})
    assert kept not in encodings
    assert off not in encodings
    assert len(encodings) > 2


def test_quantizers_that_share_a_grid_get_one_encoding() -> None:
    module = emit_torch(placed())
    encodings = calibrate_module(module, lambda: module(torch.from_numpy(images(2))))
    by_grid: dict[int, set[int]] = {}
    for path, quantizer in quantizers_of(module):
        if path in encodings:
            by_grid.setdefault(id(quantizer.grid), set()).add(id(encodings[path]))
    assert all(len(found) == 1 for found in by_grid.values())


def test_a_grid_ends_within_the_clamp_before_it() -> None:
    graph = placed()
    Calibrate(data=[10 * images(8)], method="min-max").run(graph)
    after = [n.attrs["encoding"] for n in quantizers(graph) if n.operands[0].node and n.operands[0].node.op == "Clip"]
    assert after
    for encoding in after:
        assert float(encoding.dequantize(np.array(encoding.high))) <= 6.0


def test_a_scale_is_no_less_than_the_target_takes() -> None:
    """AIMET writes 1.19e-07, which QNN refuses (reference §7.3, 49)."""
    weight = np.array([[1e-9, -1e-9], [0, 0], [1, -1]], np.float32)
    grid = Encoding("i8", symmetric=True, axis=0)
    fitted = Calibration(minimum_scale=1e-5).fit_weights(grid, [weight])
    assert fitted.scale is not None
    assert fitted.scale.min() >= 1e-5
    assert fitted.scale[2] == np.float32(1 / 127)
    asymmetric = Calibration(minimum_scale=1e-3).fit_weights(Encoding("u8"), [np.array([-1e-9, 3e-9], np.float32)])
    assert asymmetric.scale is not None
    assert asymmetric.scale >= 1e-3
    assert asymmetric.zero_point == 64


def test_a_dead_channel_is_measured_against_its_neighbours() -> None:
    weight = np.array([[1e-12, 0], [0, 0], [1, -0.5]], np.float32)
    fitted = Calibration().fit_weights(Encoding("i8", symmetric=True, axis=0), [weight])
    assert fitted.scale is not None
    np.testing.assert_allclose(fitted.scale, [NARROWEST_CHANNEL / 127, NARROWEST_CHANNEL / 127, 1 / 127], rtol=1e-6)


def test_a_tensor_of_tiny_values_keeps_its_own_range() -> None:
    """AIMET widens it to 0.01 (50)."""
    fitted = Calibration().fit_weights(Encoding("u8"), [np.array([0, 2.55e-6], np.float32)])
    assert fitted.scale is not None
    assert float(fitted.scale) == pytest.approx(1e-8)


def test_constants_and_zeros_have_usable_scales() -> None:
    for value, expected in ((0.0, 1.0), (2.55, 0.01), (-2.55, 0.01)):
        for method in METHODS:
            fitted = Calibration(method).fit_weights(Encoding("u8"), [np.full(9, value, np.float32)])
            assert fitted.scale is not None
            assert float(fitted.scale) == pytest.approx(expected)


def test_float_grids_are_calibrated_by_their_largest_value() -> None:
    graph = watched()
    encodings = {"f8": FloatEncoding("f8e4m3"), "f16": FloatEncoding("f16")}
    for node, encoding in zip(quantizers(graph), encodings.values(), strict=True):
        node.attrs["encoding"] = encoding
    Calibrate(data=[np.full((1, 4, 6), 448.0, np.float32)], method="sqnr").run(graph)
    first, second = (node.attrs["encoding"] for node in quantizers(graph))
    assert float(first.scale) == 1.0
    assert second is encodings["f16"]


def test_nan_in_a_weight_is_refused() -> None:
    with pytest.raises(NonFiniteError):
        Calibration().fit_weights(Encoding("u8"), [np.array([np.nan], np.float32)])


def test_options_are_read_and_checked() -> None:
    text = "calibrate{method=percentile percentile=99.9 minimum_scale=1e-06}"
    assert str(qir.Pipeline.parse(f"insert-quantizers,{text}", placed()).passes[1]) == text
    for bad in ("calibrate{method=magic}", "calibrate{percentile=10}", "calibrate{minimum_scale=-1}"):
        with pytest.raises(QirError):
            qir.Pipeline.parse(f"insert-quantizers,{bad}", placed())


# -- several workers ---------------------------------------------------------------------------------------------------


def _worker(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder}/store{world}"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    data = np.load(Path(folder) / "data.npy")
    mine = np.array_split(data, world - 1 if world == 4 else world)[rank : rank + 1]  # of four, the last has none
    found = {}
    for method in METHODS:
        module = emit_torch(watched())
        encodings = calibrate_module(module, lambda m=module: [m(torch.from_numpy(part)) for part in mine], method)  # type: ignore[misc]
        graph = watched()
        Calibrate(data=mine, method=method).run(graph)  # type: ignore[arg-type]
        found[method] = scales(graph), exact(encodings.values())
    (Path(folder) / f"{world}{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 4])
def test_all_ranks_end_with_the_encodings_of_a_single_process(world: int, tmp_path: Path) -> None:
    data = RNG.standard_normal((30, 4, 6)).astype(np.float32)
    data[7] *= 100
    np.save(tmp_path / "data.npy", data)
    torch.multiprocessing.start_processes(_worker, (world, str(tmp_path)), world, start_method="fork")
    ranks = [json.loads((tmp_path / f"{world}{rank}.json").read_text()) for rank in range(world)]
    for method in METHODS:
        graph = watched()
        Calibrate(data=[data], method=method).run(graph)  # type: ignore[arg-type]
        for rank in ranks:
            assert rank[method] == [scales(graph)] * 2
