"""Each trial in a fresh process, which ends with it: an executor plugin in a hundred lines, to be copied."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from multiprocessing.connection import Connection, wait
from typing import Any, ClassVar

from mltune.errors import ObjectiveError
from mltune.execution import Executor, ExecutorOptions, Limits
from mltune.messages import Decision, Died, Ended, Message, Reported, Task, TimedOut, WorkerConfig

_POLL = 0.5  # seconds between looks at the clock
_BOOT = "import sys; sys.path[:] = eval(sys.argv[1]); import mltune_subprocess as m; m.serve(int(sys.argv[2]))"


class SubprocessExecutor(Executor):
    """Starts a process for each trial."""

    limits: ClassVar[Limits] = Limits()

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__(options)
        self._processes: dict[int, _Process] = {}
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)

    @classmethod
    def errors(cls, options: ExecutorOptions) -> list[str]:
        memory = "`trial_memory` is not enforced by executor subprocess: use executor local, or drop it"
        return [memory] if options.trial_memory is not None else []

    def start(self, setup: WorkerConfig) -> None:
        """Load the objective once in a process of its own, to refuse it before anything is recorded."""
        self._setup = setup
        probe = _Process(setup, None)
        try:
            refusal = probe.connection.recv()
        except (EOFError, OSError):
            refusal = ObjectiveError("the objective must load in a process of its own, but the process died over it")
        probe.end()
        if refusal is not None:
            raise refusal

    def submit(self, task: Task) -> None:
        self._processes[task.number] = _Process(self._setup, task)

    def next(self, timeout: float | None = None) -> Message | None:
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while True:
            ready = wait([self._woken, *self._channels()], max(0.0, min(_POLL, deadline - time.monotonic())))
            for number, process in list(self._processes.items()):
                message = self._hear(number, process) if process.connection in ready else self._overdue(number, process)
                if message is not None:
                    return message
            if self._woken in ready:
                self._woken.recv(4096)
                return None
            if time.monotonic() >= deadline:
                return None

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def answer(self, number: int, decision: Decision) -> None:
        with contextlib.suppress(ConnectionError):  # it died; reading from it will say so
            self._processes[number].connection.send(decision)

    def close(self) -> None:
        for process in self._processes.values():
            process.end()
        self._processes.clear()
        self._woken.close()
        self._waker.close()

    def _channels(self) -> list[Connection]:
        return [process.connection for process in self._processes.values()]

    def _hear(self, number: int, process: _Process) -> Message | None:
        try:
            message = process.connection.recv()
        except (EOFError, OSError):
            message = Ended(number, Died(f"the process exited with status {process.end()}"))
        if message is None:  # the objective is loaded, and begins
            process.began = time.monotonic()
        if isinstance(message, Ended):
            self._processes.pop(number).end()
        return message  # type: ignore[no-any-return]

    def _overdue(self, number: int, process: _Process) -> Message | None:
        timeout = self.options.trial_timeout
        if timeout is None or process.began is None or time.monotonic() - process.began < timeout:
            return None
        self._processes.pop(number).end()
        return Ended(number, TimedOut())


class _Process:
    """One process, in a session of its own, and the channel to it."""

    def __init__(self, setup: WorkerConfig, task: Task | None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", _BOOT, repr(sys.path), str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )
        self.connection = Connection(ours.detach())
        self.began: float | None = None
        self.connection.send((setup, task))

    def end(self) -> int:
        """End it, and return its status."""
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.2)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, 9)
        return self._process.wait()


def serve(fd: int) -> None:
    """Run one trial in this process; without one, only load the objective and say what is wrong with it."""
    from mltune.worker.main import load_runner

    channel = Connection(fd)
    setup, task = channel.recv()

    def report(reported: Reported) -> Any:
        channel.send(reported)
        return channel.recv()

    try:
        runner = load_runner(setup, report, dump_to=2)
    except ObjectiveError as error:
        channel.send(error if task is None else Ended(task.number, Died(str(error))))
        return
    channel.send(None)
    if task is not None:
        channel.send(runner.run(task))
