"""The command line on mutated files and arguments; `python -m bench.fuzz` runs as many as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzzing import Fuzz


@pytest.mark.parametrize("seed", range(4))
def test_mutated_commands_end_with_an_exit_code(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a mutated path may be a plain name
    fuzz = Fuzz(seed, tmp_path / "files")
    for _ in range(40):
        fuzz.step()
    assert fuzz.failures == []
