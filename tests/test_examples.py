"""The examples keep their promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import digits_qat, keras_digits, keras_subclassed, keras_text_classification, quantsim_resnet18
from tests.torchvision_cpu import torchvision_models


@pytest.mark.slow
def test_digits_with_fewer_bits(tmp_path: Path) -> None:
    assert digits_qat.main(tmp_path) == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"W8A8.onnx", "W4A8.onnx", "W4A4_trained.onnx"} <= names


@pytest.mark.slow
@pytest.mark.skipif(torchvision_models() is None, reason="torchvision is not installed")
def test_quantsim_of_a_resnet18(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert quantsim_resnet18.main(tmp_path, images=32) == 0
    assert "checkpoint computes the same: yes" in capsys.readouterr().out
    names = {path.name for path in tmp_path.iterdir()}
    assert {"resnet18.onnx", "resnet18.encodings", "resnet18_torch.encodings", "resnet18.pth", "resnet18.safetensors",
            "resnet18_qdq.onnx", "resnet18.ckpt"} <= names  # fmt: skip


@pytest.mark.slow
@pytest.mark.slow
def test_keras_digits_in_8_bits(tmp_path: Path) -> None:
    assert keras_digits.main(tmp_path) == 0
    assert (tmp_path / "digits.onnx").exists()


def test_a_keras_transformer_classifies_texts(capsys: pytest.CaptureFixture[str]) -> None:
    accuracies = keras_text_classification.main(count=128, epochs=1)
    assert accuracies["prepared"] == accuracies["Keras"]
    assert abs(accuracies["onnxruntime"] - accuracies["Keras"]) < 0.05
    assert "8 layers, prepared 19" in capsys.readouterr().out


def test_a_subclassed_keras_model_around_a_functional_one(capsys: pytest.CaptureFixture[str]) -> None:
    prepared = keras_subclassed.main()
    assert "nothing says what the inputs of Classifier are" in capsys.readouterr().out
    assert [layer.name for layer in prepared.layers if "mean" in layer.name] == ["mean", "module_mean_1"]
