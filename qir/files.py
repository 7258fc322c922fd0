"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from qir.errors import QirError


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, then give it that name. Raises QirError for an unwritable folder."""
    write_all({Path(path): write})


def write_all(writers: Mapping[Path, Callable[[Path], object]]) -> None:
    """Let every writer fill a file, then give all of them their names; when one fails, none of them.

    Raises QirError for an unwritable folder, and for a name that a folder has.
    """
    staged: dict[Path, Path] = {}
    try:
        for path in writers:
            if path.is_dir():
                raise QirError(f"can not write {path}: it is a folder", help="choose another name")
        for path, write in writers.items():
            staged[path] = _stage(path)
            write(staged[path])
        for path, beside in staged.items():
            beside.chmod(0o666 & ~_umask())
            beside.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        for beside in staged.values():
            beside.unlink(missing_ok=True)


def _stage(path: Path) -> Path:
    """A new empty file beside `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    return Path(name)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    write_with(path, lambda beside: beside.write_text(text))


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    write_with(path, lambda beside: beside.write_bytes(data))


def _unwritable(path: Path, error: OSError) -> QirError:
    return QirError(f"can not write {path}: {error.strerror}", help="choose a folder that exists and is writable")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
