"""Progress bars on long work."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from importlib.util import find_spec
from typing import TypeVar

T = TypeVar("T")


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items as they come, with a progress bar on stderr (if it is a terminal) and a line at the end.

    `total` is how many there are, where the items do not tell.
    """
    started, steps = time.perf_counter(), 0
    shown = items
    if sys.stderr.isatty() and find_spec("rich"):
        from rich.console import Console
        from rich.progress import track as bar

        total = len(items) if isinstance(items, Sized) else total
        shown = bar(items, description=what, total=total, console=Console(stderr=True), transient=True)
    for steps, item in enumerate(shown, 1):  # noqa: B007  (the count is for the line below)
        yield item
    print(f"{what}: {steps} steps in {time.perf_counter() - started:.1f} s", file=sys.stderr)
