"""How benches end: what they found, printed, and the exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, RenderableType

WIDTH = 130
"""Columns that a table may take where the terminal is narrower, or there is none."""


def report(tables: Iterable[RenderableType], failed: Iterable[str]) -> int:
    """Print tables, and to standard error what failed; the exit code, 1 if anything did."""
    console, failures = Console(), list(failed)
    console.width = max(console.width, WIDTH)
    for table in tables:
        console.print(table)
    for name in failures:
        print(f"FAILED: {name}", file=sys.stderr)
    return 1 if failures else 0
