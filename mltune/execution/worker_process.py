"""The driver's handle of a worker process."""

from __future__ import annotations

import contextlib
import signal
import socket
import tempfile
import time
import uuid
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from mltune._util import timing
from mltune.execution.supervisor import Supervisor
from mltune.messages import Decision, Died, Task, Verification, WorkerConfig

if TYPE_CHECKING:
    from mltune.errors import ObjectiveError
    from mltune.execution.template import Start


class WorkerProcess:
    """A worker process, from its start to its end; it first waits for its configuration.

    Args:
        start: Starts it.
        name: The name for the process in messages about its end.

    Attributes:
        connection: The channel to the worker.
        supervisor: The worker's supervisor, which ends after it.
        mark: The value of ``MARK`` in the environment of all of the worker's descendants.
        ready: Whether the objective is loaded.
        task: The task that it runs, or will run once it is ready, or None.
    """

    def __init__(self, start: Start, name: str = "the worker") -> None:
        self._name = name
        self.mark = uuid.uuid4().hex
        self.ready = False
        self.task: Task | None = None
        self._started = 0.0
        self._crash = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115, stays open until the worker ends
        driver_end, worker_end = socket.socketpair()
        link, supervisor_end = socket.socketpair()
        with worker_end, supervisor_end:
            fds = (worker_end.fileno(), self._crash.fileno(), supervisor_end.fileno())
            process, forked = start(self.mark, fds)
        self.supervisor = Supervisor(link, process, forked=forked)
        self.connection = Connection(driver_end.detach())

    def send(self, message: WorkerConfig | Verification | Task | tuple[int, Decision]) -> None:
        with contextlib.suppress(ConnectionError):  # the worker died; the next read will show it
            self.connection.send(message)

    def run(self, task: Task) -> None:
        """Run a task, now or once the worker is ready."""
        self.task = task
        if self.ready:
            self._crash.seek(0)  # in the worker, too: the file offset is shared
            self._crash.truncate()
            self._started = time.monotonic()
            self.send(task)

    def await_ready(self) -> None:
        """Wait until the objective is loaded, then run the task that waits for it, if any.

        Raises:
            ObjectiveError: The objective could not be loaded.
            EOFError, OSError: The worker died.
        """
        refusal: ObjectiveError | None = self.connection.recv()
        if refusal is not None:
            raise refusal
        self.ready = True
        if self.task is not None:
            self.run(self.task)

    def running_for(self) -> float:
        """Return the seconds since the worker was sent its task, or 0 if it has none or is not ready."""
        return time.monotonic() - self._started if self.ready and self.task is not None else 0.0

    def ask_to_leave(self) -> None:
        """Ask an idle worker to exit, or have a busy one ended, without waiting for it."""
        if self.task is None:
            self.connection.close()
        else:
            self.supervisor.terminate()

    def end(self, grace: float = 0.0) -> Died:
        """End the worker and what it started; return how it ended, with the traceback if it crashed.

        Args:
            grace: Seconds for the worker to exit on its own.
        """
        self.connection.close()
        if not self.supervisor.has_ended(grace):
            self.supervisor.terminate()
            if not self.supervisor.has_ended(timing.TIMING.end_grace):
                self.supervisor.kill()
        status = self.supervisor.close()
        with self._crash as file:
            file.seek(0)
            return Died(f"{self._name} {_how(status)}", file.read().decode(errors="replace"))


def _how(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    with contextlib.suppress(ValueError):  # a real-time signal has no name
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"
