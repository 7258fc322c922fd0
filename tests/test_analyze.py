"""`qir.analyze`: what it measures is so, and a grid that does not fit is named first."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

import qir
from qir.analysis.results import Analysis, decibels, ranked, read_analysis
from qir.api.analyze import subject_of
from qir.backends.torch_quantizers import quantizers_of
from qir.backends.torch_replay import Replay, rounding
from qir.encodings.encoding import Encoding, ProductEncoding
from qir.errors import QirError
from qir.graph import Graph
from qir.pages.analysis import as_html
from qir.quantizers import quantizers, replace_encodings
from tests.models import SMALL, TORCHVISION
from tests.quantizing import quantized

MODELS = ("reused_layers", "inverted_residual", "fire", "squeeze_excite", "perceptron", "tied_head", "digits_net")


def free_grids(graph: Graph) -> list[Encoding]:
    """The grids of a graph whose scale is its own, in order."""
    found = dict.fromkeys(node.attrs["encoding"] for node in quantizers(graph))
    return [encoding for encoding in found if not isinstance(encoding, ProductEncoding)]


def planted(given: qir.Quantized, encoding: Encoding, factor: float) -> tuple[qir.Quantized, set[str | None]]:
    """The model with one scale wrong, and the quantizers that have it."""
    assert encoding.scale is not None
    graph = given.graph.copy()
    wrong = replace(encoding, scale=np.asarray(encoding.scale * factor, np.float32))
    replace_encodings(graph, {encoding: wrong})
    named = {node.module for node in quantizers(graph) if node.attrs["encoding"] is wrong}
    return replace(given, graph=graph), named


def first_of(found: Analysis) -> set[str]:
    return {found.quantizers[0].name, *found.quantizers[0].tied}


# -- what it names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("factor", [8, 1 / 8])
def test_a_wrong_scale_is_named_first(name: str, factor: float) -> None:
    given = quantized(SMALL[name])
    data = [SMALL[name].inputs(batch=4, seed=20)]
    for encoding in free_grids(given.graph)[(0 if factor > 1 else 1) :: 5]:
        model, names = planted(given, encoding, factor)
        found = qir.analyze(model, data)
        assert first_of(found) == names
        assert not found.quantizers[0].fits
        stretch = found.quantizers[0].stretch
        assert stretch is not None
        assert abs(np.log2(stretch / factor)) < 1.5


@pytest.mark.slow
@pytest.mark.skipif(not TORCHVISION, reason="torchvision is not installed")
def test_a_wrong_scale_of_a_resnet_is_named_first() -> None:
    example = TORCHVISION["resnet18"]
    given = quantized(example)
    grids = free_grids(given.graph)
    model, names = planted(given, grids[len(grids) // 2], 8)
    assert first_of(qir.analyze(model, [example.inputs(batch=1, seed=20)])) == names


@pytest.mark.parametrize("name", MODELS)
def test_grids_that_were_calibrated_on_the_data_fit(name: str) -> None:
    found = qir.analyze(quantized(SMALL[name]), [SMALL[name].inputs(batch=4, seed=seed) for seed in range(20, 24)])
    assert not found.misfits


@pytest.mark.parametrize("number", [0, 2, -1])
def test_a_wrong_scale_in_a_file_is_named_first(number: int) -> None:
    model = quantized(SMALL["fire"]).onnx()
    wrong = [t for t in model.graph.initializer if t.name.endswith("scale") and t.dims == []][number]
    wrong.CopyFrom(numpy_helper.from_array(np.asarray(8 * numpy_helper.to_array(wrong), np.float32), wrong.name))
    (rounded,) = (n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear" and wrong.name in n.input)
    (found,) = qir.analyze(model, [SMALL["fire"].inputs(batch=4, seed=20)]).misfits
    assert found.tensor == rounded


@pytest.mark.parametrize(
    ("scale", "factor"),
    [("narrow.weight", 8), ("wide.weight", 8), ("wide.weight", 1 / 8), ("narrow.bias", 8), ("squeeze.bias", 1 / 8)],
)
def test_a_wrong_scale_of_integer_weights_contradicts_their_bias(scale: str, factor: float) -> None:
    model = quantized(SMALL["fire"]).onnx()
    (wrong,) = (t for t in model.graph.initializer if t.name == f"{scale}_q_scale")
    wrong.CopyFrom(numpy_helper.from_array(np.float32(factor) * numpy_helper.to_array(wrong), wrong.name))
    first = qir.analyze(model, [SMALL["fire"].inputs(batch=4, seed=20)]).quantizers[0]
    assert first.tensor == scale
    assert first.stretch == pytest.approx(factor, rel=1e-3)


def test_what_computes_no_quantized_tensor_has_the_bias_wrong() -> None:
    model = quantized(SMALL["perceptron"]).onnx()
    (wrong,) = (t for t in model.graph.initializer if t.name == "4.weight_q_scale")
    wrong.CopyFrom(numpy_helper.from_array(8 * numpy_helper.to_array(wrong), wrong.name))
    first = qir.analyze(model, [SMALL["perceptron"].inputs(batch=4, seed=20)]).quantizers[0]
    assert (first.tensor, first.stretch) == ("4.bias", pytest.approx(1 / 8, rel=1e-3))


def test_a_wrong_scale_of_a_simulator_is_named_first() -> None:
    example = SMALL["digits_net"]
    data = [example.inputs(batch=4, seed=seed) for seed in range(3)]
    sim = qir.QuantizationSimModel(example.model(), data[0])
    sim.compute_encodings(data)
    assert not qir.analyze(sim, data).misfits
    path, quantizer = quantizers_of(sim.model)[2]
    encoding = quantizer.encoding
    quantizer.set_encoding(replace(encoding, scale=np.asarray(encoding.scale * 8, np.float32)))
    assert path in first_of(qir.analyze(sim, data))


def test_values_that_happen_to_lie_on_another_grid_are_no_reason() -> None:
    x = torch.randint(17, (64, 12), generator=torch.Generator().manual_seed(0)) / 16
    given = qir.quantize(SMALL["perceptron"].model(), data=[1.05 * x])
    found = {quantizer.name: quantizer for quantizer in qir.analyze(given, [x]).quantizers}["input_quantizer"]
    assert found.fits
    assert found.fitted_sqnr == pytest.approx(6.02 * 8 + 1.76, abs=0.01)


def test_a_value_that_calibration_did_not_see_ranks_behind_a_wrong_scale() -> None:
    given = quantized(SMALL["perceptron"])
    data = SMALL["perceptron"].inputs(batch=64, seed=20)[0]
    data[0, 0] = 8.0
    assert first_of(qir.analyze(given, [data])) == {"input_quantizer"}
    weight = next(e for e in free_grids(given.graph) if e.axis is not None)
    model, names = planted(given, weight, 8)
    found = qir.analyze(model, [data])
    assert first_of(found) == names
    assert "input_quantizer" in {quantizer.name for quantizer in found.misfits}


# -- what it measures ------------------------------------------------------------------------------------------------


def sqnr(exact: torch.Tensor, rounded: torch.Tensor) -> float | None:
    return decibels(float(exact.double().square().sum()), float((rounded - exact).double().square().sum()))


def with_quantizers(module: Any, paths: Sequence[str], x: Sequence[torch.Tensor]) -> torch.Tensor:
    """What the module returns with these quantizers on, all others off."""
    found = dict(quantizers_of(module))
    with rounding(list(found.values()), [found[path] for path in paths]), torch.no_grad():
        out: torch.Tensor = module(*x)
        return out


def test_outputs_are_those_of_the_simulator_with_that_grid_alone_and_without_it() -> None:
    given = quantized(SMALL["reused_layers"])
    module = given.simulator()
    data = SMALL["reused_layers"].inputs(batch=4, seed=20)
    everything = [path for path, _ in quantizers_of(module)]
    exact = with_quantizers(module, [], data)
    found = qir.analyze(given, [data])
    assert found.floating.sqnr is None
    assert found.quantized.sqnr == sqnr(exact, with_quantizers(module, everything, data))
    for quantizer in found.quantizers:
        paths = [quantizer.name, *quantizer.tied]
        others = [path for path in everything if path not in paths]
        assert quantizer.alone.sqnr == sqnr(exact, with_quantizers(module, paths, data))
        assert quantizer.without.sqnr == sqnr(exact, with_quantizers(module, others, data))
    members = {q.name: [q.name, *q.tied] for q in found.quantizers}
    for layer in found.layers:
        paths = [path for name in layer.quantizers for path in members[name]]
        assert layer.alone.sqnr == sqnr(exact, with_quantizers(module, paths, data))
    weights = [p for q in found.quantizers if q.kind != "activation" for p in members[q.name]]
    assert found.weights.sqnr == sqnr(exact, with_quantizers(module, weights, data))


@pytest.mark.parametrize("room", [0, 100_000, 1 << 30])
def test_a_replay_gives_the_bits_of_a_run(room: int) -> None:
    given = quantized(SMALL["inverted_residual"])
    module = given.simulator()
    batches = [SMALL["inverted_residual"].inputs(batch=2, seed=seed) for seed in range(3)]
    found = dict(quantizers_of(module))
    replay = Replay(module, batches, list(found.values())[::2], room)
    assert len(replay.kept) == {0: 0, 100_000: 1, 1 << 30: 3}[room]
    for paths in ([], list(found)[:1], list(found)[3:], list(found)):
        got = list(replay.outputs([found[path] for path in paths]))
        assert all(torch.equal(out[0], with_quantizers(module, paths, x)) for out, x in zip(got, batches, strict=True))


def test_the_error_of_a_layer_alone_is_that_of_its_own_roundings() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> Any:
            return self.second(self.first(x))

    torch.manual_seed(0)
    model, x = Two().eval(), torch.randn(16, 8)
    given = qir.quantize(model, data=[x])
    first, second = qir.analyze(given, [x]).layers
    modules = dict(quantizers_of(given.simulator()))
    with torch.no_grad():
        hidden = model.first(x)
        weight = modules["second.weight_quantizer"](model.second.weight)
        bias = modules["second.bias_quantizer"](model.second.bias)
        alone = nn.functional.linear(modules["first.output_quantizer"](hidden), weight, bias)
        if "second.output_quantizer" in modules:
            alone = modules["second.output_quantizer"](alone)
        assert second.own_sqnr == sqnr(model(x), alone)
    assert first.own_sqnr == first.sqnr
    assert second.sqnr is not None
    assert second.own_sqnr is not None
    assert second.sqnr < second.own_sqnr


def test_ranges_and_histograms_are_those_of_the_tensors() -> None:
    given = quantized(SMALL["perceptron"])
    x = SMALL["perceptron"].inputs(batch=32, seed=20)[0]
    found = {quantizer.name: quantizer for quantizer in qir.analyze(given, [x[:16], x[16:]]).quantizers}
    inputs = found["input_quantizer"]
    assert (inputs.low, inputs.high) == (float(x.min()), float(x.max()))
    assert sum(inputs.histogram.counts) == x.numel()
    edges = np.linspace(inputs.histogram.low, inputs.histogram.high, len(inputs.histogram.counts) + 1)
    below = np.searchsorted(np.sort(x.numpy().reshape(-1)), edges.astype(np.float32), side="right")
    assert list(np.diff(below)) == inputs.histogram.counts
    encoding = dict(quantizers_of(given.simulator()))["input_quantizer"].encoding
    assert encoding.scale is not None
    assert inputs.grid_high == pytest.approx(float((255 - encoding.zero_point) * encoding.scale))
    beyond = (x > inputs.grid_high + encoding.scale / 2) | (x < inputs.grid_low - encoding.scale / 2)
    assert inputs.clipped == float(beyond.sum()) / x.numel()
    rounded = encoding.dequantize(encoding.quantize(x.numpy()))
    assert inputs.sqnr == sqnr(x, torch.from_numpy(rounded))
    assert found["0.weight_quantizer"].kind == "weight"
    assert found["0.bias_quantizer"].kind == "bias"
    assert found["0.bias_quantizer"].fitted_sqnr is None


def test_tensors_on_one_grid_are_switched_together() -> None:
    found = {
        q.name: q for q in qir.analyze(quantized(SMALL["reused_layers"]), [SMALL["reused_layers"].inputs()]).quantizers
    }
    assert found["relu.output_quantizer"].tied == ["pool.output_quantizer"]
    assert "pool.output_quantizer" not in found


@pytest.mark.parametrize("name", ["nested_outputs", "sizes", "arithmetic", "activations", "tied_head"])
def test_models_of_every_kind_are_analyzed(name: str) -> None:
    try:
        given = quantized(SMALL[name])
    except QirError as error:
        pytest.skip(error.message)
    found = qir.analyze(given, [SMALL[name].inputs(batch=4, seed=20)])
    assert read_analysis(json.loads(found.as_json())) == found


def test_the_model_is_left_as_it_was() -> None:
    example = SMALL["digits_net"]
    data = [example.inputs(batch=4, seed=seed) for seed in range(2)]
    sim = qir.QuantizationSimModel(example.model(), data[0])
    sim.compute_encodings(data)
    sim.exclude_param_from_quantization("bias")
    sim.model.train()
    before = {key: value.clone() for key, value in sim.model.state_dict().items()}
    enabled = {path: quantizer.enabled for path, quantizer in quantizers_of(sim.model)}
    threads = torch.get_num_threads()
    found = qir.analyze(sim, data)
    assert not {path for path, on in enabled.items() if not on} & {q.name for q in found.quantizers}
    assert {path: quantizer.enabled for path, quantizer in quantizers_of(sim.model)} == enabled
    assert all(torch.equal(value, before[key]) for key, value in sim.model.state_dict().items())
    assert all(module.training for module in sim.model.modules())
    assert torch.get_num_threads() == threads


# -- ratings ---------------------------------------------------------------------------------------------------------


def test_labels_and_metrics_rate_every_setting() -> None:
    given = quantized(SMALL["perceptron"])
    x = SMALL["perceptron"].inputs(batch=40, seed=20)[0]
    labels = with_quantizers(given.simulator(), [], [x]).argmax(-1).numpy()
    found = qir.analyze(given, [x[:20], x[20:]], labels=labels)
    assert found.metric == "accuracy"
    assert found.floating.score == 1.0
    module = given.simulator()
    for quantizer in found.quantizers:
        top = with_quantizers(module, [quantizer.name, *quantizer.tied], [x]).argmax(-1).numpy()
        assert quantizer.alone.score == float(np.mean(top == labels))

    def share(outputs: Sequence[np.ndarray], given: Any) -> float:
        assert len(outputs[0]) == len(given) == 40
        return float(np.mean(outputs[0].argmax(-1) == given))

    named = qir.analyze(given, [x[:20], x[20:]], labels=labels, metric=share)
    assert [q.alone for q in named.quantizers] == [q.alone for q in found.quantizers]
    rated = qir.analyze(given, [x[:20]], evaluate=lambda module: float(module(x)[0, 0]))
    assert rated.floating.score == float(with_quantizers(module, [], [x])[0, 0])
    assert len({q.alone.score for q in rated.quantizers}) > 2


def test_without_a_score_the_outputs_rank() -> None:
    found = qir.analyze(quantized(SMALL["fire"]), [SMALL["fire"].inputs(batch=4, seed=20)])
    alone = [q.alone.sqnr for q in found.quantizers if q.alone.sqnr is not None]
    assert alone == sorted(alone)
    scored = [replace(q, alone=replace(q.alone, score=float(-n))) for n, q in enumerate(found.quantizers)]
    assert ranked(scored) == scored[::-1]


# -- the result does not depend on how it was found out --------------------------------------------------------------


def test_the_number_of_processes_changes_nothing() -> None:
    given, data = quantized(SMALL["fire"]), [SMALL["fire"].inputs(batch=4, seed=20)]
    texts = {qir.analyze(given, data, jobs=jobs).as_json() for jobs in (1, 2, 5)}
    assert len(texts) == 1


def work(rank: int, folder: str) -> None:
    """One of several ranks."""
    import torch.distributed as dist

    torch.set_num_threads(1)  # as the process of the tests, whose results they are compared with
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    given, data = quantized(SMALL["fire"]), [SMALL["fire"].inputs(batch=4, seed=20)]
    found = qir.analyze(given, data, folder=f"{folder}/run")
    Path(folder, f"{rank}.json").write_text(found.as_json())
    with pytest.raises(QirError, match="different models, data or options"):
        qir.analyze(given, data, samples=1 + rank)
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_the_number_of_ranks_changes_nothing(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    alone = qir.analyze(quantized(SMALL["fire"]), [SMALL["fire"].inputs(batch=4, seed=20)])
    assert {(tmp_path / f"{rank}.json").read_text() for rank in range(2)} == {alone.as_json()}
    assert not list((tmp_path / "run").iterdir())


# -- resuming --------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


def interrupted_after(count: int, x: torch.Tensor) -> Any:
    """An evaluation that is interrupted after so many calls, and how often it was called."""
    calls: list[int] = []

    def evaluate(module: Any) -> float:
        if len(calls) == count:
            raise Interrupted
        calls.append(1)
        return float(module(x).sum())

    return evaluate, calls


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[qir.Quantized, list[Any], Path]:
    """A model, data, and the folder of a run that was interrupted."""
    given, data = quantized(SMALL["perceptron"]), SMALL["perceptron"].inputs(batch=4, seed=20)
    with pytest.raises(Interrupted):
        qir.analyze(given, [data], evaluate=interrupted_after(5, data[0])[0], folder=tmp_path)
    return given, data, tmp_path


def test_an_interrupted_run_goes_on(stopped: tuple[qir.Quantized, list[Any], Path]) -> None:
    given, data, folder = stopped
    journal = folder / "journal.jsonl"
    assert len(journal.read_text().splitlines()) == 1 + 2 + 5  # what it is about, ranges, errors, settings
    journal.write_text(journal.read_text()[:-20])  # the last line was being written
    evaluate, calls = interrupted_after(10**6, data[0])
    found = qir.analyze(given, [data], evaluate=evaluate, folder=folder)
    whole, all_calls = interrupted_after(10**6, data[0])
    assert found == qir.analyze(given, [data], evaluate=whole)
    assert len(calls) == len(all_calls) - 4
    assert not journal.exists()


def test_another_run_does_not_go_on(stopped: tuple[qir.Quantized, list[Any], Path]) -> None:
    given, data, folder = stopped
    before = (folder / "journal.jsonl").read_text()
    model, _ = planted(given, free_grids(given.graph)[0], 2)
    evaluate = interrupted_after(10**6, data[0])[0]
    for arguments, options, other in (
        ((model, [data]), {"evaluate": evaluate}, "other model"),
        ((given, [[2 * data[0]]]), {"evaluate": evaluate}, "other data"),
        ((given, [data]), {}, "other options"),
        ((given, [data]), {"evaluate": evaluate, "samples": 3}, "other options"),
    ):
        with pytest.raises(QirError) as caught:
            qir.analyze(*arguments, **options, folder=folder)  # type: ignore[arg-type]
        assert caught.value.message.endswith(f"is of a run with {other}")
        assert caught.value.help is not None
        assert (folder / "journal.jsonl").read_text() == before
    (folder / "journal.jsonl").write_text("{}\n")
    with pytest.raises(QirError, match="is damaged"):
        qir.analyze(given, [data], folder=folder)


# -- what comes out, and what is refused -----------------------------------------------------------------------------


def test_the_page_needs_nothing_beside_it() -> None:
    pytest.importorskip("plotly")
    model, names = planted(quantized(SMALL["fire"]), free_grids(quantized(SMALL["fire"]).graph)[2], 8)
    found = qir.analyze(model, [SMALL["fire"].inputs(batch=4, seed=20)], labels=None)
    odd = replace(found.quantizers[0], name="</script><b>odd")
    page = as_html(replace(found, quantizers=[odd, *found.quantizers[1:]]))
    assert 'src="http' not in page
    assert "<b>odd" not in page
    assert page.count("Plotly.newPlot") >= 5
    assert all(q.name in page for q in found.quantizers[1:])
    assert names
    assert page == as_html(replace(found, quantizers=[odd, *found.quantizers[1:]]))


def test_a_document_that_is_none_is_refused() -> None:
    found = qir.analyze(quantized(SMALL["perceptron"]), [SMALL["perceptron"].inputs()])
    document = json.loads(found.as_json())
    for change in ({"version": 2}, {"quantizers": [{}]}, {"samples": "4"}, {"extra": 1}):
        with pytest.raises(QirError):
            read_analysis({**document, **change})
    assert read_analysis(copy.deepcopy(document)) == found


def uncalibrated() -> Graph:
    graph: Graph = qir.parse(
        "graph @g(%x: f32[4]) {\n %q = qir.Quantize %x {encoding=$e} : f32[4]\n return %q\n $e = u8 asymmetric\n}"
    )
    return graph


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": []}, "there is no data"),
        ({"data": [np.zeros((2, 5), np.float32)]}, "the data has shape"),
        ({"data": [np.full((2, 12), np.nan, np.float32)]}, "NaN or infinite"),
        ({"samples": 0}, "0 samples show nothing"),
        ({"jobs": 0}, "0 processes"),
        ({"labels": [1]}, "1 labels for 2 samples"),
        ({"metric": max, "evaluate": max}, "both a metric and an evaluation"),
        ({"metric": lambda outputs, labels: 1 / 0}, "the metric fails: ZeroDivisionError"),
        ({"model": uncalibrated()}, "is not calibrated"),
        ({"model": qir.parse("graph @g(%x: f32[4]) {\n return %x\n}")}, "no quantizers to analyze"),
        ({"model": 3}, "reads no model of type int"),
    ],
)
@pytest.mark.parametrize("jobs", [1, 2])
def test_what_can_not_be_analyzed_is_refused(change: dict[str, Any], message: str, jobs: int) -> None:
    arguments = {"model": quantized(SMALL["perceptron"]), "data": [np.ones((2, 12), np.float32)], "jobs": jobs} | change
    with pytest.raises(QirError, match=message):
        qir.analyze(arguments.pop("model"), arguments.pop("data"), **arguments)


def test_a_model_that_returns_no_floats_needs_a_metric() -> None:
    text = body_of("  %z = ArgMax %q {axis=1} : i64[n,1]")
    x = np.array([[1, 3, 2, 0]], np.float32)
    with pytest.raises(QirError, match="returns no floats"):
        qir.analyze(qir.parse(text), [x])
    found = qir.analyze(qir.parse(text), [x], metric=lambda outputs, _: float(outputs[0].sum()))
    assert found.floating.score == 1.0


def body_of(lines: str) -> str:
    head = "graph @g(%x: f32[n,4]) {\n  %q = qir.Quantize %x {encoding=$e} : f32[n,4] [x_quantizer]\n"
    return f"{head}{lines}\n  return %z\n  $e = u8 asymmetric scale=0.0125 zero_point=0\n}}"


def test_a_subject_keeps_the_names_of_an_onnx_model(tmp_path: Path) -> None:
    quantized(SMALL["fire"]).save(tmp_path / "net.onnx")
    subject = subject_of(tmp_path / "net.onnx")
    assert all(node.attrs["encoding"].calibrated for node in quantizers(subject.graph))
    assert onnx.load(str(tmp_path / "net.onnx")).graph.name == subject.graph.name
