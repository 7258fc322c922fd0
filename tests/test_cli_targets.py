"""`qir targets`, and `qir explain --tensor`."""

from __future__ import annotations

from pathlib import Path

import pytest

from qir.__main__ import main
from qir.placement.targets import target_names
from tests.test_targets import RESIDUAL


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_targets_are_listed_with_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "targets")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == target_names()


def test_a_profile_is_shown_whole_with_what_it_extends(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "targets", "show", "ort-x86-avx2")
    assert "weight.dtype = i7" in out.splitlines()
    assert "operators.integer = Conv, Gemm" in out


def test_two_profiles_are_compared(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "ort-x86-vnni"\nopset = 22\n[operators]\nabsorbs_clamp = ["Conv", "PRelu"]')
    _, out, _ = run(capsys, "targets", "diff", "ort-x86-vnni", str(mine))
    lines = out.splitlines()
    assert "opset: 21 -> 22" in lines
    assert lines[lines.index("operators.absorbs_clamp:") :] == [
        "operators.absorbs_clamp:", "  - Gemm", "  - Add", "  - Mul", "  - qir.Linear", "  + PRelu",
    ]  # fmt: skip
    _, out, _ = run(capsys, "targets", "diff", "openvino", "openvino")
    assert out == "openvino and openvino say the same\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show",), "qir targets show takes one name, not 0"),
        (("diff", "openvino"), "qir targets diff takes two names, not 1"),
        (("list", "openvino"), "qir targets list takes no name, not 1"),
        (("show", "ort-x86-vni"), "help: did you mean 'ort-x86-vnni'?"),
    ],
)
def test_what_can_not_be_shown_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    code, out, err = run(capsys, "targets", *arguments)
    assert (code, out) == (2, "")
    assert said in err


@pytest.fixture
def net(tmp_path: Path) -> str:
    path = tmp_path / "net.qir"
    path.write_text(RESIDUAL)
    return str(path)


def test_explain_answers_for_a_tensor(capsys: pytest.CaptureFixture[str], net: str) -> None:
    _, out, _ = run(capsys, "explain", "insert-quantizers", net, "--tensor", "%a")
    assert out.splitlines()[:3] == [
        "insert-quantizers: 0 done, 1 left",
        "",
        "left: it is inside of Conv+Relu, which one kernel computes (ort-x86-vnni: operators.absorbs_clamp)",
    ]
    _, out, _ = run(capsys, "explain", "insert-quantizers", net, "--tensor", "?")
    assert out.startswith("insert-quantizers: 7 done, 1 left")


def test_explain_knows_no_other_tensors(capsys: pytest.CaptureFixture[str], net: str) -> None:
    code, _, err = run(capsys, "explain", "insert-quantizers", net, "--tensor", "w1")
    assert code == 2
    assert "help: did you mean 'w'?" in err
