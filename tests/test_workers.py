"""Steps that several processes share: every result comes once, and no failure is lost."""

from __future__ import annotations

import os
from typing import Any

import pytest

from qir.analysis.workers import results_of
from qir.errors import QirError

STEPS = [f"step {number}" for number in range(20)]


@pytest.mark.parametrize("jobs", [1, 2, 40])
def test_every_step_is_done_once(jobs: int) -> None:
    found = list(results_of(STEPS, lambda step: {"name": step, "none": None}, jobs))
    assert sorted(step for step, _ in found) == sorted(STEPS)
    assert all(result == {"name": step, "none": None} for step, result in found)


def test_several_processes_take_part() -> None:
    here = os.getpid()
    assert {pid for _, pid in results_of(STEPS, lambda step: os.getpid(), 1)} == {here}
    assert here not in {pid for _, pid in results_of(STEPS, lambda step: os.getpid(), 2)}


def fails(step: str) -> Any:
    if step == STEPS[7]:
        raise KeyError("nothing")


def refuses(step: str) -> Any:
    if step == STEPS[7]:
        raise QirError("this step is refused", help="do another", stage="here")


def dies(step: str) -> Any:
    if step == STEPS[7]:
        os._exit(1)


def test_a_failure_in_a_process_is_raised_here() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'nothing'"):
        list(results_of(STEPS, fails, 2))
    with pytest.raises(QirError) as caught:
        list(results_of(STEPS, refuses, 2))
    assert (caught.value.message, caught.value.help, caught.value.stage) == (
        "this step is refused",
        "do another",
        "here",
    )


def test_a_process_that_dies_does_not_end_in_silence() -> None:
    with pytest.raises(RuntimeError, match="ended before their work did"):
        list(results_of(STEPS, dies, 2))


def test_whoever_takes_no_more_results_leaves_no_process() -> None:
    results = iter(results_of(STEPS, lambda step: os.getpid(), 2))
    pids = {next(results)[1]}
    results.close()  # type: ignore[attr-defined]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
