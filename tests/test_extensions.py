"""A package that is installed beside qir adds passes, a target profile, operators, lowerings and emissions to it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from qir import QirError, extensions
from qir.placement import targets

ROOT = Path(__file__).parent.parent
SHOWN = """
import torch, qir
from torch import nn
from qir_lab.functions import squash

torch.fx.wrap("squash")

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return torch.clamp(squash(self.linear(x), limit=2.0), -3.0, 3.0)

torch.manual_seed(0)
model, x = Net().eval(), torch.randn(8, 4)
prepared = qir.prepare_model(model)
print(prepared.meta["opaque_calls"], torch.equal(prepared(x), model(x)))
graph = qir.import_model(model)
print([node.op for node in qir.Pipeline.parse("drop-squashes").run(graph).nodes()])
quantized = qir.quantize(model, data=[x], target="lab-npu")
print(quantized.target.name, sorted({node.op_type for node in quantized.onnx().graph.node} - {"Identity"}))
"""


class Installed:
    """A folder with the package in it, as pip installs it, and qir."""

    def __init__(self, folder: Path) -> None:
        source, self.folder = folder / "source", folder
        shutil.copytree(ROOT / "tests" / "package", source, ignore=shutil.ignore_patterns("__pycache__"))
        offline = ["--no-index", "--no-build-isolation", "--no-deps", "--quiet"]
        self.run("-m", "pip", "install", *offline, "--target", str(folder / "site"), str(source))

    def run(self, *arguments: str) -> str:
        paths = os.pathsep.join([str(self.folder / "site"), str(ROOT)])
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def qir(self, *arguments: str) -> str:
        return self.run("-m", "qir", *arguments)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("installed"))


@pytest.mark.slow
def test_the_command_line_knows_its_pass_operator_and_target(installed: Installed):
    assert "drop-squashes           Drop a clamp behind a squash" in installed.qir("passes")
    assert "lab-npu       the NPU of the lab" in installed.qir("targets")
    assert "  - MaxPool" in installed.qir("targets", "diff", "ort-x86-vnni", "lab-npu")
    file = installed.folder / "net.qir"
    lines = ("%a = qir_lab.Squash %x : f32[4]", "%b = Clip %a, 0.0, 6.0 : f32[4]", "%c = Relu %b : f32[4]")
    file.write_text("graph @g(%x: f32[4]) {\n" + "".join(f"  {line}\n" for line in lines) + "  return %c\n}\n")
    assert "left: its limits are below 1.0" in installed.qir("explain", "drop-squashes", str(file))
    assert "Tanh" in installed.qir("opt", str(file), "-p", "drop-squashes,legalize-onnx")
    check = "from qir.testing import check_docstring; from qir_lab.drop_squashes import DropSquashes"
    installed.run("-c", f"{check}; check_docstring(DropSquashes)")


@pytest.mark.slow
def test_a_model_that_calls_its_functions_is_prepared_rewritten_and_quantized(installed: Installed):
    shown = installed.run("-c", SHOWN).splitlines()
    assert shown[0] == "[] True"
    assert shown[1] == "['qir.Linear', 'qir_lab.Squash']"
    assert shown[2].startswith("lab-npu [")
    assert "'Tanh'" in shown[2]


def listing(monkeypatch: pytest.MonkeyPatch, group: str, name: str, value: str) -> None:
    entry = EntryPoint(name, value, group)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry] if group == entry.group else [])
    targets._installed.cache_clear()


def test_a_package_that_can_not_be_imported_is_named(monkeypatch: pytest.MonkeyPatch):
    listing(monkeypatch, "qir.torch", "lost", "no_such_package.lowerings")
    with pytest.raises(
        QirError, match="no_such_package.lowerings, listed as 'lost' in 'qir.torch', can not be imported"
    ):
        extensions.load_modules("qir.torch")


@pytest.mark.parametrize(
    ("package", "message"),
    [("no_such_package", "'lost-npu' is not to be had from no_such_package"), ("qir", "no target profile 'lost-npu'")],
)
def test_a_profile_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, package: str, message: str):
    listing(monkeypatch, "qir.targets", "lost-npu", package)
    assert "lost-npu" in targets.target_names()
    with pytest.raises(QirError, match=message):
        targets.target("lost-npu")
    monkeypatch.undo()
    targets._installed.cache_clear()
    assert "lost-npu" not in targets.target_names()
