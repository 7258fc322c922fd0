"""Arrays from numpy's files, as commands are given them."""

from __future__ import annotations

from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from qir.errors import QirError
from qir.graph import Graph


def read_inputs(path: Path, graph: Graph) -> list[np.ndarray]:
    """An array for every input of `graph` from an .npz file: by the input's name, or else in order."""
    try:
        with np.load(path, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, BadZipFile, AttributeError, TypeError) as error:
        raise QirError(f"can not read {path}: {error}", help="write it with numpy.savez(path, x=…)") from None
    names = [value.hint for value in graph.inputs]
    if all(name in arrays for name in names):
        return [arrays[name] for name in names]
    if len(arrays) == len(names):
        return list(arrays.values())
    raise QirError(
        f"{path} holds {len(arrays)} arrays and the graph has {len(names)} inputs",
        help=f"name the arrays {', '.join(names)}",
    )


def read_labels(path: Path) -> np.ndarray:
    """The array in an .npy file, a label for each sample."""
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise QirError(f"can not read labels from {path}: {error}", help="write them with numpy.save") from None
