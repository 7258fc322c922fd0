"""A headless Chromium for tests of pages; they are skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip

PICTURES = Path(__file__).parent.parent / "build" / "screenshots"
"""Where tests leave what a page looks like, to be looked at."""


class Opened:
    """A page in the browser. What it logs, throws and asks for from elsewhere is in `complaints`."""

    def __init__(self, page: Any, path: Path, fragment: str = "") -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"{error}"))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("request", lambda request: self._asked(request.url, path))
        page.goto(f"{path.as_uri()}{fragment}")

    def _asked(self, url: str, path: Path) -> None:
        if not url.startswith((path.as_uri(), "data:")):
            self.complaints.append(f"asks for {url}")

    def ask(self, script: str) -> Any:
        """The value of a script in the page."""
        return self.page.evaluate(script)

    def press(self, *keys: str) -> None:
        """Press keys, one after another."""
        for key in keys:
            self.page.keyboard.press(key)

    def search(self, words: str) -> None:
        """Type words into the search field."""
        self.press("/")
        self.page.keyboard.type(words)

    def painted(self) -> None:
        """Wait until the browser has painted what there is."""
        self.ask("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def picture(self, name: str) -> None:
        """Leave a screenshot."""
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.painted()
        self.page.screenshot(path=PICTURES / f"{name}.png")

    def longest(self, what: str) -> float:
        """The longest that the page took for something, in milliseconds."""
        return self.ask(f"Math.max(...performance.getEntriesByName('qir:{what}').map((one) => one.duration))")


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser. Skips the test where Chromium or playwright is missing."""
    sync_api = pytest.importorskip("playwright.sync_api")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()
