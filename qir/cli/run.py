"""What the commands `run` and `reproduce` do, each in a process of its own that has as many threads as the run says.

Float kernels share their work between threads, and the last digits of what they compute depend on how many there are.
Libraries read that number once, when they are loaded, so only a new process can be sure of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from argparse import Namespace
from pathlib import Path

from qir.api.run import execute
from qir.errors import QirError
from qir.runs.recording import recorded
from qir.runs.run import Run, embedded

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""The variables of the environment from which libraries read the number of threads."""


def run_file(arguments: Namespace) -> None:
    """Execute a run, and write what it says."""
    path = Path(arguments.file)
    run = Run.read(path)
    _check_versions(run, arguments.same_versions)
    folder = Path(arguments.folder or path.parent)
    record = None if arguments.record is None else str(Path(arguments.record).absolute())
    _in_a_process(run, folder, str(Path(arguments.output or folder).absolute()), record)
    for name in run.outputs.values():
        print(f"wrote {name}")


def reproduce(arguments: Namespace) -> None:
    """Write a file again from what it says about itself; exit code 1 when that is another."""
    path = Path(arguments.file)
    kind, run = embedded(path)
    _check_versions(run, arguments.same_versions)
    with tempfile.TemporaryDirectory() as folder:
        _in_a_process(run, Path(arguments.folder), folder, None, kind)
        made = Path(folder) / run.outputs[kind]
        pairs = [(path, made)]
        if (beside := path.with_name(f"{path.name}.data")).exists():
            pairs.append((beside, made.with_name(beside.name)))
        apart = next((there for old, new in pairs if (there := _first_difference(old, new)) is not None), None)
    if apart is None:
        print(f"{path}: written again, byte for byte the same")
        return
    others = run.other_versions()
    print(f"{path}: written again, it differs from byte {apart} on")
    print(f"  {', '.join(others)}" if others else "  versions, model and data are the same: another kind of machine?")
    sys.exit(1)


def _first_difference(old: Path, new: Path) -> int | None:
    """The first byte that two files have differently, None when there is none."""
    first, second = old.read_bytes(), new.read_bytes()
    if first == second:
        return None
    ends = min(len(first), len(second))
    return next((place for place in range(ends) if first[place] != second[place]), ends)


def _check_versions(run: Run, refuse: bool) -> None:
    """Warn where other versions are installed than the run names, or raise QirError."""
    others = run.other_versions()
    if others and refuse:
        raise QirError(f"the run was made with other versions: {', '.join(others)}", stage="run",
                       help="install those, or leave out --same-versions")  # fmt: skip
    for other in others:
        print(f"warning: {other}", file=sys.stderr)


def _in_a_process(run: Run, folder: Path, output: str, record: str | None, kind: str = "") -> None:
    """Execute a run in a process with its threads, which works in `folder` and writes into `output`."""
    if not folder.is_dir():
        raise QirError(f"there is no folder {folder}", help="--folder is where the run's files are")
    paths = [os.path.abspath(path) for path in sys.path if path]
    environment = {**os.environ, **dict.fromkeys(THREADS, str(run.threads)), "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "qir.cli.run", output, kind, *([] if record is None else [record])]
    done = subprocess.run(command, cwd=folder, env=environment, input=str(run), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stdout, end="", file=sys.stderr)
        sys.exit(done.returncode)


def _child() -> int:
    """What the process does: the run comes on standard input, an error goes to standard output."""
    output, kind, *record = sys.argv[1:]
    try:
        run = Run.parse(sys.stdin.read())
        about = {"run": str(run), "model": run.model, "data": run.data}
        with recorded(record[0] if record else None, about) as watch:
            done = execute(run, watch)
        done.write(Path(output), {kind: run.outputs[kind]} if kind else None)
    except QirError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(_child())
