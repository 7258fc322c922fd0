"""Which lines of code are the user's own, and how their files are named."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

_TORCH = str(Path(torch.__file__).parent) + "/"
_HERE = str(Path(__file__).parent) + "/"


@cache
def is_users(file: str) -> bool:
    """Whether the file is neither torch's nor a part of a frontend."""
    return not file.startswith(("<", "torch/", _TORCH, _HERE)) and "importlib" not in file
