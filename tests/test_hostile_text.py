"""Graph text can come from anywhere: what it names is a function of tensors, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qir import Pipeline, parse
from qir.backends.torch_module import emit_torch
from qir.backends.torch_named import framework_object
from qir.errors import QirError

HOSTILE = (
    "torch.os.system", "torch.builtins.eval", "torch.builtins.exec", "torch.builtins.__import__", "torch.load",
    "torch.save", "torch.hub.load", "torch.sys.exit", "torch.from_file", "torch.compile", "torch._operator.call",
    "torch._operator.attrgetter", "torch._operator.methodcaller", "torch.ops.load_library",
    "torch.classes.load_library",
    "torch.utils.cpp_extension.load", "torch.serialization.load", "torch.nn.Module", "torch.fx.symbolic_trace",
    "torch.Tensor.__class__", "torch.torchvision.models.resnet18", "os.system", "torch", "torch.",
)  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_function_of_tensors_is_refused(name: str) -> None:
    with pytest.raises(QirError, match="may call"):
        framework_object(name)


@pytest.mark.parametrize(
    "name",
    ["torch.relu", "torch.Tensor.add", "torch.nn.functional.gelu", "torch.ops.aten.add.Tensor", "torch.zeros",
     "torch._operator.add", "torch.float32", "torch.strided", "torch.builtins.len", "cpu", "torch.special.erf",
     "torch.fft.rfft", "torch.linalg.det", "torch.sym_max"],
)  # fmt: skip
def test_functions_of_tensors_are_known(name: str) -> None:
    assert framework_object(name) is not None


def test_nothing_runs(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    text = f'graph @g(%x: f32[1]) {{\n  %y = torch.os.system %x {{args=("touch {trace}",)}} : ? !0\n  return %y\n}}\n'
    with pytest.raises(QirError, match="may call"):
        emit_torch(Pipeline.parse("lift-functionals,unroll-modules").run(parse(text)))(torch.zeros(1))
    assert not trace.exists()


@pytest.mark.parametrize(("name", "allowed"), [("ndim", True), ("__class__", False), ("__init__", False)])
def test_attributes_that_are_no_property_of_a_tensor_are_refused(name: str, allowed: bool) -> None:
    text = (
        f'graph @g(%x: f32[1]) {{\n  %y = torch.builtins.getattr %x {{args=(%0, "{name}")}} : ? !0\n  return %y\n}}\n'
    )
    graph = Pipeline.parse("lift-functionals,unroll-modules").run(parse(text))
    if allowed:
        assert emit_torch(graph)(torch.zeros(1)) == 1
        return
    with pytest.raises(QirError, match="may not read"):
        emit_torch(graph)
