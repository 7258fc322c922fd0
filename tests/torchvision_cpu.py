"""Makes PyPI's torchvision importable beside a CPU build of torch.

PyPI's wheel brings operators in a library that links CUDA. Beside a CPU build of torch that library does not load, and
importing torchvision ends where it wants to describe an operator that is not there. Declared first, it does.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

_DECLARED = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_LIBRARIES: list[torch.library.Library] = []
"""A declaration lasts as long as its library object."""


@cache
def torchvision_models() -> Any:
    """`torchvision.models`, None where torchvision is not installed."""
    if find_spec("torchvision") is None:
        return None
    try:
        return import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _DECLARED:
        library.define(schema)
    _LIBRARIES.append(library)
    return import_module("torchvision.models")
