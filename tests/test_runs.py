"""Runs as TOML files: refused with a reason, executed to the same bytes, written again from what they wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import parser

from qir import QirError
from qir.__main__ import main
from qir.api.run import execute
from qir.runs.run import METADATA, OUTPUTS, Run, embedded
from qir.runs.versions import versions

MODEL = """
<ir_version: 8, opset_import: ["": 21]>
net (float[n,3,8,8] x) => (float[n,4] y)
<float[4,3,3,3] w = {%s}, float[4] b = {0.1, -0.2, 0.3, 0}>
{ [conv] a = Conv<pads = [1,1,1,1]>(x, w, b) [act] c = Relu(a) [pool] p = GlobalAveragePool(c) [flat] y = Flatten(p) }
"""
FILES = {"onnx": "net.int8.onnx", "encodings": "net.encodings", "graph": "net.qir", "report": "report.json",
         "certificate": "certificate.json", "page": "page.html"}  # fmt: skip
RUN = Run("net.onnx", "data.npy", outputs=FILES)
BUILD = """
import numpy as np, torch
from torch import nn

def model():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()

def data():
    for _ in range(3):
        yield torch.randn(2, 3, 8, 8)

def rough():
    for _ in range(3):
        yield np.random.standard_normal((2, 3, 8, 8)).astype(np.float32)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    random = np.random.default_rng(0)
    weights = ", ".join(f"{value:.4f}" for value in random.standard_normal(108))
    onnx.save(parser.parse_model(MODEL % weights), str(tmp_path / "net.onnx"))
    np.save(tmp_path / "data.npy", random.standard_normal((12, 3, 8, 8)).astype(np.float32))
    (tmp_path / "run_model.py").write_text(BUILD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "run_model", raising=False)
    return tmp_path


def written(folder: Path, run: Run = RUN) -> dict[str, bytes]:
    """What the run writes into `folder`, by name."""
    folder.mkdir(exist_ok=True)
    execute(run).write(folder)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -- the file --------------------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
RUNS = st.builds(
    Run,
    model=TEXTS,
    data=st.none() | TEXTS,
    target=TEXTS,
    seed=st.integers(0, 2**32 - 1),
    threads=st.integers(1, 64),
    passes=st.none() | st.lists(TEXTS, max_size=3).map(tuple),
    outputs=st.dictionaries(st.sampled_from(list(OUTPUTS)), TEXTS, max_size=2).map(
        lambda found: {kind: f"{kind}{name}x{OUTPUTS[kind]}" for kind, name in found.items() if "/" not in name}
    ),
    versions=st.dictionaries(TEXTS, TEXTS, max_size=2),
    hashes=st.dictionaries(TEXTS, TEXTS, max_size=2),
)


@given(RUNS)
def test_a_run_reads_back_from_its_text(run: Run) -> None:
    assert Run.parse(str(run)) == run


@pytest.mark.parametrize(
    ("text", "said", "help"),
    [
        ("model = 'a'", "does not begin with qir-run = 1", "the number of the format"),
        ("qir-run = 2\nmodel = 'a'", "does not begin with qir-run = 1", ""),
        ("qir-run = 1", "has no model", "write model = "),
        ("qir-run = 1\nmodel = 3", "model in the run is no string", ""),
        ("qir-run = 1\nmodel = 'a'\npases = []", "unknown key 'pases'", "did you mean 'passes'?"),
        ("qir-run = 1\nmodel = 'a'\nzzz = []", "unknown key 'zzz'", "it may have: qir-run, model, data"),
        ("qir-run = 1\nmodel = 'a'\nseed = -1", "seed in the run is -1", "from 0 to 4294967295"),
        ("qir-run = 1\nmodel = 'a'\nseed = true", "seed in the run is True", ""),
        ("qir-run = 1\nmodel = 'a'\nthreads = 0", "threads in the run is 0", "from 1 to"),
        ("qir-run = 1\nmodel = 'a'\npasses = 'a,b'", "are no list of strings", 'passes = ["fold'),
        ("qir-run = 1\nmodel = 'a'\n[outputs]\nonxx = 'a.onnx'", "unknown output 'onxx'", "did you mean 'onnx'?"),
        (
            "qir-run = 1\nmodel = 'a'\n[outputs]\nonnx = 'a.txt'",
            "the output onnx in the run is 'a.txt'",
            "end in .onnx",
        ),
        (
            "qir-run = 1\nmodel = 'a'\n[outputs]\nreport='a.json'\nlatency='a.json'",
            "two outputs in the run have one",
            "",
        ),
        ("qir-run = 1\nmodel = 'a'\n[versions]\nonnx = 1", "versions in the run is no table of strings", ""),
        ("qir-run = 1\nmodel = 'a'\noutputs = 3", "outputs in the run is no table of strings", ""),
        ("qir-run = ", "the run is no TOML", ""),
    ],
)
def test_what_is_no_run_is_refused(text: str, said: str, help: str) -> None:
    with pytest.raises(QirError) as caught:
        Run.parse(text)
    assert said in caught.value.message
    assert help in (caught.value.help or "")


def test_a_pass_that_is_misspelt_is_underlined() -> None:
    with pytest.raises(QirError) as caught:
        execute(replace(RUN, passes=("fold-batch-norm", "calibrat")))
    assert "did you mean 'calibrate'?" in str(caught.value)


# -- the same bytes --------------------------------------------------------------------------------------------------


def test_two_executions_write_the_same_bytes(tmp_path: Path) -> None:
    first, second = (written(tmp_path / name) for name in ("a", "b"))
    assert set(first) == {*FILES.values(), "net.safetensors"}
    assert first == second


def shuffled(order: np.ndarray) -> None:
    np.save("data.npy", np.load("data.npy")[order])


def in_a_folder(order: np.ndarray) -> None:
    samples = np.load("data.npy")[order]
    Path("data.npy").unlink()
    Path("data.npy").mkdir()
    for number, batch in enumerate(np.split(samples, [1, 4, 5])):
        np.save(f"data.npy/{number}.npy", batch)


@pytest.mark.parametrize(("change", "method"), [(shuffled, "min-max"), (in_a_folder, "sqnr"), (shuffled, "percentile")])
def test_the_order_and_the_split_of_data_change_no_byte(
    tmp_path: Path, change: Callable[[np.ndarray], None], method: str
) -> None:
    passes = execute(RUN).run.passes
    assert passes is not None
    run = replace(RUN, passes=(*passes[:-1], f"calibrate{{method={method}}}"))
    first = written(tmp_path / "a", run)
    change(np.random.default_rng(1).permutation(12))
    assert written(tmp_path / "b", run) == first


def test_other_samples_change_the_hash(tmp_path: Path) -> None:
    first = execute(RUN).run.hashes
    samples = np.load("data.npy")
    np.save("data.npy", samples[:11])
    second = execute(RUN).run.hashes
    assert first["model"] == second["model"]
    assert first["data"] != second["data"]
    np.save("data.npy", np.concatenate([samples[:11], samples[:1]]))
    assert execute(RUN).run.hashes["data"] not in (first["data"], second["data"])


@pytest.mark.parametrize("data", ["run_model:data", "run_model:rough"])
def test_a_seed_makes_functions_give_the_same(tmp_path: Path, data: str) -> None:
    run = Run("run_model:model", data, seed=3, outputs={"onnx": "a.onnx", "report": "r.json"})
    state = torch.get_rng_state(), np.random.get_state()
    first = written(tmp_path / "a", run)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1][1])  # type: ignore[index]
    torch.rand(1)
    assert written(tmp_path / "b", run) == first
    assert written(tmp_path / "c", replace(run, seed=4))["a.onnx"] != first["a.onnx"]


def test_nothing_that_is_written_names_a_folder_of_this_machine(tmp_path: Path) -> None:
    run = replace(RUN, model="run_model:model", data="run_model:data")
    for name, content in written(tmp_path / "out", run).items():
        assert str(tmp_path).encode() not in content, name
        assert os.getcwd().encode() not in content, name


def test_what_is_written_says_how_it_was_made(tmp_path: Path) -> None:
    done = execute(RUN)
    done.write(tmp_path)
    model = onnx.load("net.int8.onnx")
    assert {entry.key: entry.value for entry in model.metadata_props} == {METADATA: str(done.run)}
    for kind in ("onnx", "report", "certificate", "page"):
        assert embedded(FILES[kind]) == (kind, done.run)
    assert done.run.versions == versions()
    assert done.run.passes is not None
    assert done.run.passes[-1] == "calibrate"
    assert set(done.run.hashes) == {"model", "data"}
    report = json.loads(Path("report.json").read_text())
    assert "speedup" not in report
    assert report["signal_to_noise"]["y"] > 20
    assert "How this was made" in Path("page.html").read_text()


def test_latency_is_a_file_of_its_own(tmp_path: Path) -> None:
    execute(replace(RUN, outputs={"latency": "latency.json"})).write(tmp_path)
    assert json.loads(Path("latency.json").read_text())["speedup"] > 0


def test_a_certificate_of_a_file_says_how_the_file_was_made(capsys: pytest.CaptureFixture[str]) -> None:
    execute(replace(RUN, outputs={"onnx": "net.int8.onnx"})).write(Path())
    assert main(["certify", "net.int8.onnx", "--report", "parity.html", "--json", "parity.json"]) == 0
    assert '<pre id="qir-run">qir-run = 1' in Path("parity.html").read_text()
    assert json.loads(Path("parity.json").read_text())["qir-run"].startswith("qir-run = 1\n")


# -- inputs ----------------------------------------------------------------------------------------------------------


def test_files_that_passes_read_are_hashed(tmp_path: Path) -> None:
    Path("rules.toml").write_text('[[rule]]\nop = "Conv"\nweight = "i4"\n')
    Path("mine.toml").write_text('extends = "ort-x86-vnni"\n')
    run = replace(RUN, target="mine.toml", passes=("infer-shapes", "insert-quantizers{rules=rules.toml}", "calibrate"))
    first = execute(run)
    assert set(first.run.hashes) == {"model", "data", "rules.toml", "mine.toml"}
    assert first.run.passes == ("infer-shapes", "insert-quantizers{target=mine.toml rules=rules.toml}", "calibrate")
    Path("rules.toml").write_text('[[rule]]\nop = "Conv"\nweight = "i8"\n')
    with pytest.raises(QirError, match="rules.toml is not what the run was made with"):
        execute(first.run)


@pytest.mark.parametrize(("name", "changed"), [("net.onnx", "model"), ("data.npy", "data")])
def test_a_run_with_hashes_refuses_other_inputs(name: str, changed: str) -> None:
    run = execute(RUN).run
    assert execute(run).run == run
    if changed == "data":
        np.save("data.npy", np.load("data.npy") + 1)
    else:
        weights = ", ".join(["0.5"] * 108)
        onnx.save(parser.parse_model(MODEL % weights), "net.onnx")
    with pytest.raises(QirError, match=f"{name} is not what the run was made with"):
        execute(run)


def test_a_run_without_data_writes_a_float_model(tmp_path: Path) -> None:
    done = execute(Run("net.onnx", passes=("infer-shapes",), outputs={"onnx": "float.onnx"}))
    done.write(tmp_path)
    assert set(done.run.hashes) == {"model"}
    assert [node.op_type for node in onnx.load("float.onnx").graph.node] == [
        "Conv", "Relu", "GlobalAveragePool", "Flatten"]  # fmt: skip
    with pytest.raises(QirError, match="reports need data"):
        replace(done, run=replace(done.run, outputs={"report": "r.json"})).write(tmp_path)
    with pytest.raises(QirError, match="is a torch module, which is imported with data"):
        execute(Run("run_model:model", passes=()))


def test_data_that_no_pass_reads_are_hashed_all_the_same() -> None:
    assert execute(replace(RUN, passes=("infer-shapes",))).run.hashes["data"] == execute(RUN).run.hashes["data"]


# -- the command line ------------------------------------------------------------------------------------------------


def command(*arguments: str, threads: int = 1) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parent.parent)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(threads), "PYTHONPATH": root}
    return subprocess.run([sys.executable, "-m", "qir", *arguments], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_one_thread_and_two_write_the_same_bytes(tmp_path: Path) -> None:
    Path("net.toml").write_text(str(replace(RUN, model="run_model:model", data="run_model:data")))
    found: list[dict[str, bytes]] = []
    for threads in (1, 2):
        done = command("run", "net.toml", "-o", f"out{threads}", threads=threads)
        assert done.returncode == 0, done.stderr
        found.append({path.name: path.read_bytes() for path in Path(f"out{threads}").iterdir()})
    assert set(found[0]) == {*FILES.values(), "net.safetensors"}
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_file_is_written_again_from_itself_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    for name in ("net.onnx", "data.npy"):
        Path(name).rename(f"inputs/{name}")
    Path("inputs/net.toml").write_text(str(RUN))
    done = command("run", "inputs/net.toml", "-o", "out", "--record", "run.qirlog", threads=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"wrote {name}" for name in FILES.values()]
    again = command("reproduce", "out/net.int8.onnx", "--folder", "inputs", threads=2)
    assert again.stdout == "out/net.int8.onnx: written again, byte for byte the same\n", again.stderr
    assert command("replay", "run.qirlog", "--model", "inputs/net.onnx", "--data", "inputs/data.npy").returncode == 0


def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `qir run` execute here."""

    def run(run: Run, folder: Path, output: str, record: str | None, kind: str = "") -> None:
        done = execute(run)
        done.write(Path(output), {kind: done.run.outputs[kind]} if kind else None)

    monkeypatch.setattr("qir.cli.run._in_a_process", run)


def test_every_file_is_written_again_unless_it_was_changed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(monkeypatch)
    Path("net.toml").write_text(str(RUN))
    assert main(["run", "net.toml"]) == 0
    capsys.readouterr()
    for kind in ("onnx", "report", "certificate", "page"):
        assert main(["reproduce", FILES[kind]]) == 0
        assert capsys.readouterr().out == f"{FILES[kind]}: written again, byte for byte the same\n"
    model = onnx.load("net.int8.onnx")
    model.graph.node[0].name += "x"
    onnx.save(model, "net.int8.onnx")
    assert main(["reproduce", "net.int8.onnx"]) == 1
    assert "written again, it differs from byte" in capsys.readouterr().out


def test_other_versions_are_a_warning_or_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(monkeypatch)
    old = replace(RUN, versions={"onnx": "1.0.0", "nonesuch": "3"}, outputs={"onnx": "a.onnx"})
    Path("net.toml").write_text(str(old))
    assert main(["run", "net.toml"]) == 0
    assert capsys.readouterr().err.startswith(
        f"warning: onnx {onnx.__version__} instead of 1.0.0\nwarning: nonesuch not installed instead of 3\n"
    )
    assert main(["run", "net.toml", "--same-versions"]) == 2
    assert "the run was made with other versions: onnx" in capsys.readouterr().err


def test_an_error_of_the_process_is_an_error_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.toml").write_text(str(replace(RUN, model="absent.onnx")))
    before = set(Path().iterdir())
    assert main(["run", "net.toml"]) == 2
    assert "error: can not read absent.onnx" in capsys.readouterr().err
    assert set(Path().iterdir()) == before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("net.onnx", None, "net.onnx does not say how it was made"),
        ("a.json", "{}", "a.json does not say how it was made"),
        ("a.html", "<html></html>", "a.html does not say how it was made"),
        ("absent.onnx", None, "can not read absent.onnx"),
        ("absent.json", None, "can not read absent.json"),
        ("b.json", json.dumps({"qir-run": str(RUN)}), "writes no file of this name"),
        ("c.json", json.dumps({"qir-run": "x"}), "the run in c.json is no TOML"),
    ],
)
def test_what_can_not_be_written_again_is_refused(
    name: str, content: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        Path(name).write_text(content)
    assert main(["reproduce", name]) == 2
    assert said in capsys.readouterr().err


def test_weights_beside_an_onnx_file_are_written_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_this_process(monkeypatch)
    monkeypatch.setattr("qir.backends.onnx_emit.LIMIT", 64)
    monkeypatch.setattr("qir.backends.onnx_emit.LARGE", 16)
    Path("net.toml").write_text(str(replace(RUN, outputs={"onnx": "net.int8.onnx"})))
    assert main(["run", "net.toml"]) == 0
    capsys.readouterr()
    assert main(["reproduce", "net.int8.onnx"]) == 0
    assert "byte for byte the same" in capsys.readouterr().out
    beside = Path("net.int8.onnx.data")
    beside.write_bytes(beside.read_bytes()[:-1] + b"x")
    assert main(["reproduce", "net.int8.onnx"]) == 1


# -- what `qir quantize` writes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["net.onnx", "run_model:model"])
def test_a_quantization_is_a_run(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    in_this_process(monkeypatch)
    data = str(tmp_path / "data.npy") if model == "net.onnx" else "run_model:data"
    options = ["--no-per-channel", "--method", "sqnr", "--json", "s.json", "--record", "run.qirlog"]
    given = ["quantize", model, "--data", data, *options, "--report", "pages/parity.html", "-o", "out/net.int8.onnx"]
    assert main(given) == 0
    kind, run = embedded("out/net.int8.onnx")
    assert (kind, run.data, run.threads) == (
        "onnx",
        "data.npy" if model == "net.onnx" else data,
        torch.get_num_threads(),
    )
    assert run.passes is not None
    assert run.passes[-1] == "calibrate{method=sqnr}"
    assert json.loads(Path("s.json").read_text())["qir-run"] == str(run)
    capsys.readouterr()
    for name in ("out/net.int8.onnx", "pages/parity.html"):
        assert main(["reproduce", name]) == 0
        assert capsys.readouterr().out == f"{name}: written again, byte for byte the same\n"
    assert main(["replay", "run.qirlog"]) == 0


@pytest.mark.slow
def test_a_quantization_on_two_threads_is_written_again_on_two(tmp_path: Path) -> None:
    done = command("quantize", "run_model:model", "--data", "run_model:data", "-o", "net.int8.onnx", threads=2)
    assert done.returncode == 0, done.stderr
    assert embedded("net.int8.onnx")[1].threads == 2
    again = command("reproduce", "net.int8.onnx", threads=1)
    assert again.stdout == "net.int8.onnx: written again, byte for byte the same\n", again.stderr
