"""How quick the page of `qir view` is: `python -m bench.view`.

For graphs of 2 000 and 10 000 nodes, in modules and without, in headless Chromium: the seconds that writing the page
takes, its size, the milliseconds until the opened page is painted, and until it is painted with all modules open and
the whole graph in sight; and as the page itself measures them, the longest that placing, drawing, a search and a table
took. Exits with 1 when any of these milliseconds are a thousand or more for 2 000 nodes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qir
from qir import Graph
from tests.browser import Opened, chromium
from tests.large_graphs import in_modules, without_modules

SIZES = (2_000, 10_000)
LIMIT = 1000.0
STEPS = ("place", "draw", "search", "table")


def measured(browser: Any, graph: Graph, folder: Path) -> tuple[float, int, dict[str, float]]:
    """The seconds of writing the page, its size in bytes, and milliseconds."""
    path, started = folder / "page.html", time.perf_counter()
    qir.view(graph, path)
    seconds, tab = time.perf_counter() - started, browser.new_page(viewport={"width": 1500, "height": 900})
    started = time.perf_counter()
    page = Opened(tab, path)
    page.painted()
    opened = time.perf_counter()
    page.press("e", "f")
    page.painted()
    times = {"opened": 1e3 * (opened - started), "all in sight": 1e3 * (time.perf_counter() - opened)}
    page.search("op:add v1")
    page.press("Enter", "t")
    page.painted()
    return seconds, path.stat().st_size, times | {step: page.longest(step) for step in STEPS}


def main() -> int:
    """Print a line for each graph; the exit code."""
    kinds: dict[str, Callable[[int], Graph]] = {"in modules": in_modules, "without modules": without_modules}
    worst = 0.0
    print(f"{'':24}{'written':>10}{'size':>10}" + "".join(f"{step:>14}" for step in ("opened", "all in sight", *STEPS)))
    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        for name, make in kinds.items():
            for size in SIZES:
                seconds, length, found = measured(browser, make(size), Path(folder))
                times = "".join(f"{one:11.1f} ms" for one in found.values())
                print(f"{size:>6} {name:17}{seconds:8.1f} s{length / 1e6:7.2f} MB{times}", flush=True)
                worst = max(worst, *found.values()) if size == SIZES[0] else worst
    return int(worst >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
