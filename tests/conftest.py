"""Collects golden/*.qir: each file is a test (`qir.testing` says what is in one)."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("KERAS_HOME", str(Path(tempfile.gettempdir()) / "qir-keras"))

pytest_plugins = ["qir.testing"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: small models are slower on several, and tests run side by side."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> pytest.Collector | None:
    return GoldenFile.from_parent(parent, path=file_path) if file_path.suffix == ".qir" else None


class GoldenFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        yield Golden.from_parent(self, name=self.path.stem)


class Golden(pytest.Item):
    def runtest(self) -> None:
        from qir.testing import check_golden

        check_golden(self.path, self.config)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from qir.testing import Mismatch

        return str(excinfo.value) if excinfo.errisinstance(Mismatch) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, self.path.name
