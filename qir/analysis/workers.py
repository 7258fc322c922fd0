"""Steps of a long run, done by several processes."""

from __future__ import annotations

import json
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_all_start_methods, get_context
from typing import Any

from qir.errors import QirError

Run = Callable[[str], Any]


def results_of(steps: Sequence[str], run: Run, jobs: int) -> Iterator[tuple[str, Any]]:
    """Every step with its result, which JSON can hold, in the order in which they end.

    `jobs` processes, forked from this one, share the steps; with one job this process does them. Raises the QirError of
    a step, or RuntimeError with the traceback of whatever else fails there.
    """
    if jobs < 1:
        raise QirError(f"{jobs} processes can do nothing", help="give jobs=1 or more")
    if jobs == 1 or len(steps) < 2:
        return ((step, run(step)) for step in steps)
    if "fork" not in get_all_start_methods():
        raise QirError("this system can not fork processes", help="give jobs=1, or run it under torchrun")
    return _Workers(steps, run, min(jobs, len(steps))).results()


class _Workers:
    """Forked processes that take the next step as they finish one."""

    def __init__(self, steps: Sequence[str], run: Run, jobs: int) -> None:
        self.steps, self.run = steps, run
        context = get_context("fork")
        self.next = context.Value("l", 0)
        pipes = [context.Pipe(duplex=False) for _ in range(jobs)]
        self.receivers = [receiver for receiver, _ in pipes]
        self.processes = [context.Process(target=self._work, args=(sender,), daemon=True) for _, sender in pipes]
        for process in self.processes:
            process.start()
        for _, sender in pipes:
            sender.close()

    def results(self) -> Iterator[tuple[str, Any]]:
        """What the processes send."""
        waiting = list(self.receivers)
        left = len(self.steps)
        try:
            while left:
                for receiver in connection.wait(waiting):
                    assert isinstance(receiver, connection.Connection)
                    try:
                        message = json.loads(receiver.recv_bytes())
                    except EOFError:
                        waiting.remove(receiver)
                        if not waiting:
                            raise RuntimeError("the processes ended before their work did") from None
                        continue
                    yield self._result(message)
                    left -= 1
        finally:
            for process in self.processes:
                process.terminate()
                process.join()

    def _result(self, message: dict[str, Any]) -> tuple[str, Any]:
        if "refused" in message:
            raise QirError(**message["refused"])
        if "failed" in message:
            raise RuntimeError(f"a process failed:\n{message['failed']}")
        return message["step"], message["result"]

    def _work(self, sender: Any) -> None:
        """One process."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its children
        while (index := self._take()) < len(self.steps):
            step = self.steps[index]
            try:
                message = {"step": step, "result": self.run(step)}
            except QirError as error:
                message = {"refused": {"message": error.message, "help": error.help, "stage": error.stage}}
            except Exception:
                message = {"failed": traceback.format_exc()}
            sender.send_bytes(json.dumps(message).encode())

    def _take(self) -> int:
        with self.next.get_lock():
            taken: int = self.next.value
            self.next.value = taken + 1
        return taken
