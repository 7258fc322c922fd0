"""Batches of data for a graph: as users give them, and as arrays in the order of the graph's inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from qir.errors import QirError
from qir.graph import Graph, Value
from qir.torch_signature import TorchSignature
from qir.types import NUMPY, TensorType

Batch = np.ndarray | Sequence[np.ndarray] | Mapping[str, np.ndarray]


def peeked(data: Iterable[Batch]) -> tuple[Batch, Iterable[Batch]]:
    """The first batch, and all of them: an iterator loses none. Raises QirError when there is none."""
    if hasattr(data, "shape"):
        raise QirError("the calibration data is one array", help="give batches: data=[x], or data=x.split(32)")
    iterator = iter(data)
    try:
        first = next(iterator)
    except StopIteration:
        raise QirError("there is no calibration data", help="give one batch at least") from None
    return first, chain([first], iterator) if iterator is data else data


def arrays_of(graph: Graph, batch: Batch, number: int) -> list[np.ndarray]:
    """The arrays of a batch in the order of the graph's inputs. Raises QirError when they do not fit."""
    names = [value.hint for value in graph.inputs]
    where = f"calibration batch {number}"
    if isinstance(graph.signature, TorchSignature):
        batch = _inputs(graph.signature, batch)
    if isinstance(batch, Mapping):
        if set(batch) != set(names):
            raise QirError(f"{where} holds {', '.join(sorted(batch))}", help=f"the inputs are {', '.join(names)}")
        arrays = [_array(batch[name]) for name in names]
    else:
        arrays = [_array(part) for part in ([batch] if hasattr(batch, "shape") else batch)]
    if len(arrays) != len(names):
        raise QirError(f"{where} holds {len(arrays)} arrays", help=f"the inputs are {', '.join(names)}")
    for value, array in zip(graph.inputs, arrays, strict=True):
        _check(value, array, where)
    return arrays


def _inputs(signature: TorchSignature, batch: Batch) -> Batch:
    if isinstance(batch, Mapping):
        return signature.named_inputs(batch)
    return batch if hasattr(batch, "shape") else signature.inputs(batch)


def _array(data: Any) -> np.ndarray:
    return np.asarray(data.detach().cpu().numpy() if hasattr(data, "detach") else data)


def _check(value: Value, array: np.ndarray, where: str) -> None:
    type = value.type
    if not isinstance(type, TensorType):
        return
    if type.dtype is not None and array.dtype != NUMPY[type.dtype]:
        help = f"convert it: array.astype({NUMPY[type.dtype].name!r})"
        raise QirError(f"{where}: %{value.hint} is {type.dtype} and the data {array.dtype}", help=help)
    sizes = type.shape
    if sizes is not None:
        fits = len(sizes) == array.ndim and all(
            not isinstance(a, int) or a == b for a, b in zip(sizes, array.shape, strict=True)
        )
        if not fits:
            raise QirError(f"{where}: %{value.hint} is {type} and the data has shape {list(array.shape)}",
                           help="give whole batches, with the axis of the batch first")  # fmt: skip
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        raise QirError(f"{where}: the data for %{value.hint} holds NaN or infinite values")


def given_batches(step: str, data: Iterable[Batch] | None, file: str | None) -> Iterator[Batch]:
    """The batches that the pass called `step` was given, as they are or as a file. Raises QirError when it has none."""
    if data is not None:
        yield from data
    elif file is not None:
        yield from map(load_batch, batch_files(Path(file)))
    else:
        raise QirError(f"{step} has no data", stage=step, help=f"pass data=batches, or {step}{{file=data.npz}}")


def batch_files(path: Path) -> list[Path]:
    """The file, or the .npy and .npz files of the folder by name. Raises QirError for a folder without any."""
    if not path.is_dir():
        return [path]
    found = sorted(inner for inner in path.iterdir() if inner.suffix in (".npy", ".npz"))
    if not found:
        raise QirError(f"there is no calibration data in {path}", stage="calibrate",
                       help="put .npy or .npz files there, a batch in each")  # fmt: skip
    return found


def load_batch(path: Path) -> Batch:
    """The array of an .npy file; the arrays of an .npz file by name, or in order where they were saved without names.

    Raises QirError when it can not be read.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        unnamed = loaded.files == [f"arr_{number}" for number in range(len(loaded.files))]
        return [loaded[name] for name in loaded.files] if unnamed else {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise QirError(f"can not read calibration data from {path}: {error}", stage="calibrate",
                       help="write it with numpy.savez(path, input_name=array)") from None  # fmt: skip
