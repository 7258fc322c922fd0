"""Models and data as runs and the command line name them: files, or functions that make them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from qir.api.graph_files import read_graph
from qir.batches import Batch, batch_files, load_batch
from qir.errors import QirError
from qir.graph import Graph

BATCH = 16
"""How many samples of an array are run at a time where the model takes any number."""


def model_of(text: str) -> Any:
    """The graph in a file, or what `package.module:function` returns."""
    if Path(text).exists() or ":" not in text:
        return read_graph(text)
    made = _called(text)
    if not hasattr(made, "named_modules") and not isinstance(made, Graph):
        raise QirError(f"{text} returns a {type(made).__name__}", help="let it return a torch module")
    return made


def batches_for(model: Any, text: str) -> Iterable[Batch]:
    """Batches of data of the size that the model takes."""
    return batches(text, batch_size(model))


def batch_size(model: Any) -> int | None:
    """The number of samples that a graph takes, None when it takes any."""
    sizes = [value.type.shape[0] for value in model.inputs if value.type.shape] if isinstance(model, Graph) else []
    return next((size for size in sizes if isinstance(size, int)), None)


def batches(text: str, size: int | None = None) -> Iterable[Batch]:
    """Batches of data: of an .npz or .npy file, of a folder of those, or of `package.module:function`.

    Files are split into batches of `size` samples; what is left of a file then is not enough for a batch, and unused.
    """
    path = Path(text)
    if not path.exists() and ":" in text and path.suffix not in (".npz", ".npy"):
        found = _called(text)
        if not isinstance(found, Iterable):
            raise QirError(f"{text} returns a {type(found).__name__}", help="let it yield batches")
        return found
    return _from_files(path, size)


def _from_files(path: Path, size: int | None) -> Iterator[Batch]:
    for file in batch_files(path):
        loaded = load_batch(file)
        names = list(loaded) if isinstance(loaded, Mapping) else None
        arrays = _arrays(loaded)
        sizes = {array.shape[0] if array.ndim else 0 for array in arrays}
        if len(sizes) != 1 or 0 in sizes:
            raise QirError(f"the arrays in {file} do not hold the same number of samples", stage="calibrate",
                           help="let the first axis of each be that of the samples")  # fmt: skip
        step, count = size or BATCH, sizes.pop()
        for start in range(0, count - (count % step if size else 0), step):
            parts = [array[start : start + step] for array in arrays]
            yield parts if names is None else dict(zip(names, parts, strict=True))


def _arrays(loaded: Batch) -> list[np.ndarray]:
    if isinstance(loaded, np.ndarray):
        return [loaded]
    return list(loaded.values() if isinstance(loaded, Mapping) else loaded)


def function_at(text: str) -> Callable[..., Any]:
    """The function at `package.module:function`; the working folder is searched, too."""
    module, _, name = text.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        function = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise QirError(f"can not find {text}: {error}", help="give a file, or package.module:function") from None
    if not callable(function):
        raise QirError(f"{text} is a {type(function).__name__}", help="give a function")
    found: Callable[..., Any] = function
    return found


def _called(text: str) -> Any:
    """What the function at `package.module:function` returns."""
    function = function_at(text)
    try:
        return function()
    except Exception as error:  # whatever the user's function raises
        raise QirError(f"{text} fails: {type(error).__name__}: {error}") from error
