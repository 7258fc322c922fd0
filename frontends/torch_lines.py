"""Which lines of code are the user's own, and how their files are named."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch

_TORCH = str(Path(torch.__file__).parent) + "/"
_PACKAGES = str(Path(torch.__file__).parent.parent)
_HERE = str(Path(__file__).parent) + "/"


@cache
def is_users(file: str) -> bool:
    """Whether the file is neither torch's nor a part of a frontend."""
    return not file.startswith(("<", "torch/", _TORCH, _HERE)) and "importlib" not in file


def shortened(file: str) -> str:
    """A path relative to the installed packages or the working folder, from where linecache still finds it."""
    for folder in (_PACKAGES, os.getcwd()):
        if file.startswith(folder + "/"):
            return file[len(folder) + 1 :]
    return file
