"""`qir.ModelValidator`: what each rule finds, in the words and with the lines that a user reads."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import qir
from qir import Finding, ModelValidator
from qir.api import validation as module


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv(x))
        y = F.relu(y + x)
        return self.act(y)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block, self.last = Block(), nn.Hardswish()

    def forward(self, x: Tensor) -> Any:
        return self.last(self.block(x))


class BranchOnShape(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] % 8:
            x = F.pad(x, (0, 3))
        return x


class BranchOnData(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return x * 2


X = torch.randn(2, 3, 5, 5)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    added: list[Any] = []
    monkeypatch.setattr(ModelValidator, "checks", added)
    return added


def line_of(kind: type[nn.Module], text: str) -> int:
    source, first = inspect.getsourcelines(kind)
    return first + next(number for number, line in enumerate(source) if text in line)


def test_each_rule_names_the_call_its_line_and_the_cure() -> None:
    found = ModelValidator.findings(Net(), X)
    line = f"tests/test_validation.py:{line_of(Block, 'F.relu')}"
    again = f"tests/test_validation.py:{line_of(Block, 'return self.act(y)')}"
    assert found == [
        Finding("missing-module", "error", "block", line, "Add has no layer",
                "lift-functionals makes it the layer block.module_add"),
        Finding("functional-call", "error", "block", line, "Relu is a call, not a layer",
                "lift-functionals makes it the layer block.module_relu, a torch.nn.ReLU"),
        Finding("reused-layer", "error", "block.act", again, "block.act is called again",
                "unroll-modules makes it the layer block.module_act_1, its weights tied"),
    ]  # fmt: skip


def test_a_prepared_model_has_no_findings(capsys: pytest.CaptureFixture[str]) -> None:
    prepared = qir.prepare_model(Net())
    assert ModelValidator.findings(prepared, X) == []
    assert ModelValidator.validate_model(prepared, X)
    assert "follows the guidelines" in capsys.readouterr().out


def test_an_untraceable_model_that_can_be_exported_is_a_warning() -> None:
    (found,) = [f for f in ModelValidator.findings(BranchOnShape(), torch.randn(2, 5)) if f.rule == "traceable"]
    assert found.severity == "warning"
    assert found.line == f"tests/test_validation.py:{line_of(BranchOnShape, 'if x.shape')}"


def test_a_model_that_no_importer_takes_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    found = ModelValidator.findings(BranchOnData(), torch.randn(3))
    assert [(each.rule, each.severity) for each in found] == [("traceable", "warning"), ("importable", "error")]
    assert not ModelValidator.validate_model(BranchOnData(), torch.randn(3))
    assert "importable" in capsys.readouterr().out


def test_an_opaque_call_says_why() -> None:
    hooked = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    hooked[1].register_forward_hook(lambda *_: None)
    (found,) = ModelValidator.findings(hooked, torch.randn(2, 4))
    assert (found.rule, found.severity) == ("opaque-call", "warning")
    assert "it has hooks or parametrizations" in found.message

    class Transformed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fft.fft(x)

    rules = {finding.rule: finding.message for finding in ModelValidator.findings(Transformed(), torch.randn(2, 4))}
    assert rules["opaque-call"].endswith("stays as it is: nothing lowers it yet")
    assert "missing-module" in rules


def test_excluded_layers_are_not_looked_into() -> None:
    model = Net()
    assert ModelValidator.findings(model, X, layers_to_exclude=[model.block]) == []
    assert ModelValidator.validate_model(model, X, layers_to_exclude=[model.block])
    hidden = nn.Sequential(BranchOnData(), nn.ReLU())
    assert ModelValidator.findings(hidden, torch.randn(3), layers_to_exclude=[hidden[0]]) == []


def test_inputs_may_be_a_sequence_or_keywords() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    a = torch.randn(3)
    for given in ((a, a), [a, a], {"a": a, "b": a}):
        assert [finding.message for finding in ModelValidator.findings(Sum(), given)] == ["Add has no layer"]


def test_added_checks_get_the_keywords_that_they_accept(checks: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def plain(model: nn.Module, model_input: Any) -> bool:
        seen.append("plain")
        return True

    def with_limit(model: nn.Module, model_input: Any, limit: int = 0) -> bool:
        """The model has too many parameters."""
        seen.append(limit)
        return sum(parameter.numel() for parameter in model.parameters()) <= limit

    def with_any(model: nn.Module, model_input: Any, **kwargs: Any) -> bool:
        seen.append(sorted(kwargs))
        return True

    model, x = nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4)
    for check in (plain, with_limit, with_any):
        ModelValidator.add_check(check)
    assert checks == [plain, with_limit, with_any]
    assert ModelValidator.validate_model(model, x, limit=20, other=1)
    assert seen == ["plain", 20, ["limit", "other"]]
    assert not ModelValidator.validate_model(model, x, limit=3)
    assert "with_limit" in capsys.readouterr().out


def test_without_rich_the_table_is_plain_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert not ModelValidator.validate_model(Net(), X)
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["rule", "severity", "module", "line", "message", "fix"]
    assert rows[2].startswith("functional-call  error     block")
