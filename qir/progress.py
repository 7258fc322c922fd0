"""Progress bars on long work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import TypeVar

T = TypeVar("T")


def track(items: Sequence[T], what: str) -> Iterator[T]:
    """The items, with a progress bar on stderr while they are taken (if it is a terminal) and a line at the end."""
    started = time.perf_counter()
    if sys.stderr.isatty() and find_spec("rich"):
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, description=what, console=Console(stderr=True), transient=True)
    else:
        yield from items
    print(f"{what}: {len(items)} steps in {time.perf_counter() - started:.1f} s", file=sys.stderr)
