"""Runs the command line, in this process, on mutated files and arguments, and counts what does not end as it should.

    python -m bench.fuzz [--count 100000] [--seed 0] [--seconds 0]

Every command has to end with the exit code 0 or 2 and no traceback. Exits with 1 when one does not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from qir.progress import track
from tests.fuzzing import Fuzz


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print the failures and the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="of commands")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="the most that it may take")
    given = parser.parse_args(arguments)
    before = Path.cwd()
    with TemporaryDirectory() as folder:
        os.chdir(folder)  # a mutated path may be a plain name
        try:
            fuzz, started = Fuzz(given.seed, Path(folder) / "files"), time.perf_counter()
            for _ in track(range(given.count), "commands"):
                fuzz.step()
                if time.perf_counter() - started > given.seconds:
                    break
        finally:
            os.chdir(before)
    for failure in fuzz.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    print(f"{fuzz.steps} commands with seed {given.seed}, {len(fuzz.failures)} ended otherwise")
    return 1 if fuzz.failures else 0


if __name__ == "__main__":
    sys.exit(main())
