"""A journal: the results of a long run's steps, kept in a file as they come, so that an interrupted run can go on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qir.errors import QirError, listed
from qir.files import write_text


class Journal:
    """What is known of a run, by step: all that the journals `<name>*` in a folder hold.

    New results go to the journal `<name><part>`. `about` says by topic what the run depends on. Raises QirError when a
    journal there is of a run about something else, or is none.
    """

    def __init__(self, folder: Path, about: Mapping[str, str], part: str = "", name: str = "journal") -> None:
        self.about, self.results = dict(about), dict[str, Any]()
        self.path = folder / f"{name}{part}.jsonl"
        self.found = sorted(folder.glob(f"{name}*.jsonl"))
        for path in self.found:
            self.results |= self._read(path)
        own = self._read(self.path)
        rows = [{"about": self.about}, *({"step": step, "result": result} for step, result in own.items())]
        write_text(self.path, "".join(f"{json.dumps(row)}\n" for row in rows))

    def add(self, step: str, result: Any) -> None:
        """Keep the result of a step, which JSON can hold."""
        self.results[step] = result
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "result": result}) + "\n")

    def remove(self) -> None:
        """Remove the journals: the run has ended."""
        for path in (*self.found, self.path):
            path.unlink(missing_ok=True)

    def _read(self, path: Path) -> dict[str, Any]:
        """The results in a journal; its last line may be cut, and is nothing then."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise self._refused(path, f"can not be read: {error}") from None
        try:
            rows = [json.loads(line) for line in text.split("\n")[:-1]]
            if not rows:
                return {}
            about = dict(rows[0]["about"])
            results = {row["step"]: row["result"] for row in rows[1:]}
        except (ValueError, KeyError, TypeError):
            raise self._refused(path, "is damaged") from None
        topics = [topic for topic in {**self.about, **about} if self.about.get(topic) != about.get(topic)]
        if topics:
            raise self._refused(path, f"is of a run with other {listed(topics)}")
        return results

    def _refused(self, path: Path, why: str) -> QirError:
        help = "finish that run with what it was given, or remove the journal, or choose another folder"
        return QirError(f"the journal {path} {why}", stage="resume", help=help)
