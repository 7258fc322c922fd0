"""The command `qir new-pass`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from qir.cli.new_pass_files import new_pass


def write_new_pass(arguments: Namespace) -> None:
    """Write the files of a new pass, and say what to do with them."""
    files = new_pass(arguments.name, Path(arguments.folder))
    test = files[-1]
    print("\n".join(f"wrote {path}" for path in files))
    print(f"\nrun its test:              pytest {test}")
    print(f"rewrite its golden file:   pytest -p qir.testing --update-golden {test}")
