"""The main job keeps its promises, and says so when it does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.digits import broken_promises, main


@pytest.mark.slow
def test_the_demo_writes_everything_and_keeps_every_promise(tmp_path: Path) -> None:
    assert main(tmp_path) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["equal output values"] == report["output values"] == 3600
    assert not report["float operators"]
    names = {path.name for path in tmp_path.iterdir()}
    assert {"prepared.py", "digits.onnx", "integer.qir"} <= names
    assert sorted(name for name in names if name[0].isdigit())[-1].endswith("_calibrate.qir")


KEPT = {
    "accuracy": {"float model": 98.0, "onnxruntime": 97.5},
    "prepared module equals the model": True,
    "equal output values": 10,
    "output values": 10,
    "float operators": {},
}


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ({}, None),
        ({"equal output values": 9}, "the simulator differs from onnxruntime"),
        ({"float operators": {"FusedConv": "its Relu is not free"}}, "onnxruntime runs FusedConv in float"),
        ({"prepared module equals the model": False}, "the prepared module differs from the model"),
        ({"accuracy": {"float model": 98.0, "onnxruntime": 90.0}}, "quantization costs 8.0 % of accuracy"),
    ],
)
def test_a_broken_promise_is_named(broken: dict[str, object], said: str | None) -> None:
    assert broken_promises({**KEPT, **broken}) == ([said] if said else [])
