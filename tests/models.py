"""The models that tests and benchmarks run, by name: SMALL ones written for it, and those of TORCHVISION."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

import tests.small_cnns
import tests.small_models  # noqa: F401  (fills the table)
from examples.digits import DigitsNet
from tests.model_table import SMALL as SMALL
from tests.model_table import Example, takes
from tests.torchvision_cpu import torchvision_models

takes((1, 8, 8), cnn=True)(DigitsNet)


def torchvision_model(name: str) -> nn.Module:
    """A model of torchvision with random weights for small images and 100 classes."""
    options: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    model: nn.Module = getattr(torchvision_models(), name)(weights=None, num_classes=100, **options)
    if name == "vgg11_bn":
        model.classifier = nn.Sequential(nn.Linear(512 * 49, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 100))
    return model


_TORCHVISION = ("resnet18", "resnet50", "mobilenet_v2", "vgg11_bn", "efficientnet_b0", "squeezenet1_1", "densenet121",
                "googlenet")  # fmt: skip

TORCHVISION = (
    {name: Example(name, partial(torchvision_model, name), ((3, 64, 64),), is_cnn=True) for name in _TORCHVISION}
    if torchvision_models() is not None
    else {}
)
"""Models of torchvision; none where it is not installed."""
