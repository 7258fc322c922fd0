"""Which lines of code are the user's own."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from types import CodeType

import keras

from qir.errors import Loc
from qir.source_paths import packages_folder, shortened

_INNER = tuple(f"{packages_folder()}/{package}/" for package in ("torch", "jax", "numpy", "optree"))
_KERAS = str(Path(keras.__file__).parent) + "/"
_HERE = str(Path(__file__).parent) + "/"


@cache
def is_users(file: str) -> bool:
    """Whether the file is neither Keras's, nor a backend's, nor a part of a frontend, nor of layers that qir emits."""
    return is_a_layers(file) and "/keras_layers.py" not in file


@cache
def is_a_layers(file: str) -> bool:
    """Whether the code of a layer that is not Keras's own may be in the file."""
    return not file.startswith(("<", _KERAS, _HERE, *_INNER)) and "importlib" not in file


def users_line(until: CodeType) -> tuple[str, int]:
    """File and line of the innermost frame that is the user's, above the one that runs `until`; empty for none."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not until:
        if is_users(frame.f_code.co_filename):
            return shortened(frame.f_code.co_filename), frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return "", 0


def location(until: CodeType, scope: str) -> Loc:
    """The user's line that is running, in the code of the layer at `scope`."""
    return Loc(*users_line(until), scope)
