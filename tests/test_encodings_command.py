"""Encodings on the command line: out of a calibrated graph with `qir encodings`, into one with `load-encodings`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qir.__main__ import main
from tests.test_encodings_apply import TEXT


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.qir"
    path.write_text(TEXT)
    return path


def test_encodings_are_printed(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encodings", str(net)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["version"] == "1.0.0"
    assert [entry["name"] for entry in document["activation_encodings"]] == ["x", "y", "fc"]
    assert [entry["name"] for entry in document["param_encodings"]] == ["w", "b"]


@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0", "2.1.0"])
def test_what_was_written_is_loaded(net: Path, version: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = net.with_name("net.encodings")
    assert main(["encodings", str(net), "--version", version, "-o", str(file)]) == 0
    main(["show", str(net)])
    shown = capsys.readouterr().out
    net.write_text(TEXT.replace("scale=0.5", "scale=9.0").replace("scale=2.0", "scale=3.0"))
    assert main(["opt", str(net), "-p", f"load-encodings{{file={file}}}"]) == 0
    assert capsys.readouterr().out == shown


def test_what_does_not_fit_is_one_message(net: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = net.with_name("net.encodings")
    file.write_text('{"version": "9"}')
    assert main(["opt", str(net), "-p", f"load-encodings{{file={file}}}"]) == 2
    assert "error[json]: $.version: '9' is no known version" in capsys.readouterr().err
    assert main(["opt", str(net), "-p", "load-encodings"]) == 2
    assert "needs the option 'file'" in capsys.readouterr().err
    net.write_text("graph @g(%x: f32[4]) {\n  return %x\n}\n")
    assert main(["encodings", str(net), "-o", str(file)]) == 2
    assert "has no quantizers" in capsys.readouterr().err
    assert file.read_text() == '{"version": "9"}'
