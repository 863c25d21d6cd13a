"""Worker processes on this machine: one per slot, replaced only when it died."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from mltune.errors import ObjectiveError
from mltune.execution._base import THREAD_VARIABLES, Died, Ended, Executor, Message, Setup, Task

_BOOT = "import sys; sys.path[:] = eval(sys.argv[2]); from mltune.execution.worker import main; main(int(sys.argv[1]))"
_LOOK_AROUND = 1.0  # seconds between looks at whether the workers' processes live
_CLOSE_GRACE = 3.0  # seconds for idle workers to leave on their own


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    ready: bool = False
    task: Task | None = None

    def has_died(self) -> bool:
        """Whether the process is gone and all is read that it said; its forked children keep the channel open."""
        return self.process.poll() is not None and not self.connection.poll()

    def send(self, message: Setup | Task | tuple[int, bool]) -> None:
        with contextlib.suppress(ConnectionError):  # it died; reading from it will say so
            self.connection.send(message)

    def end(self, grace: float = 0.0) -> int:
        """Close the channel, end the whole process group, and return the exit status."""
        self.connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            if grace:
                self.process.wait(grace)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.process.wait()


class LocalExecutor(Executor):
    """Runs objectives in long-lived processes, each in a session of its own."""

    def __init__(self, n_jobs: int) -> None:
        self._n_jobs = n_jobs
        self._workers: list[_Worker] = []
        self._setup: Setup | None = None

    def start(self, setup: Setup) -> None:
        self._setup = setup
        self._workers = [self._spawn() for _ in range(self._n_jobs)]
        self._await_ready(self._workers[0])

    def submit(self, task: Task) -> None:
        idle = [worker for worker in self._workers if worker.task is None]
        worker = next((worker for worker in idle if worker.ready), idle[0])
        worker.task = task
        if worker.ready:
            worker.send(task)

    def next(self) -> Message:
        while True:
            heard = wait([worker.connection for worker in self._workers], timeout=_LOOK_AROUND)
            for worker in [worker for worker in self._workers if worker.connection in heard or worker.has_died()]:
                message = self._receive(worker)
                if message is not None:
                    return message

    def answer(self, number: int, *, stop: bool) -> None:
        worker = next(w for w in self._workers if w.task is not None and w.task.number == number)
        worker.send((number, stop))

    def close(self) -> None:
        for worker in self._workers:
            if worker.task is None:
                worker.connection.close()
        for worker in self._workers:
            worker.end(grace=_CLOSE_GRACE if worker.task is None else 0.0)
        self._workers = []

    def _spawn(self) -> _Worker:
        assert self._setup is not None
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT, str(theirs.fileno()), repr(sys.path)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env=self._environment(),
            )
        worker = _Worker(process, Connection(ours.detach()))
        worker.send(self._setup)
        return worker

    def _environment(self) -> dict[str, str]:
        """Ours, without the run that `mlflow run` made, and with the cores divided among the workers."""
        environment = dict(os.environ)
        environment.pop("MLFLOW_RUN_ID", None)
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        for name in THREAD_VARIABLES:
            environment.setdefault(name, str(max(1, cores // self._n_jobs)))
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads must not spin on the other workers' cores
        return environment

    def _await_ready(self, worker: _Worker) -> None:
        """Wait until a worker has loaded the objective.

        Raises:
            ObjectiveError: It could not.
        """
        try:
            refusal: ObjectiveError | None = worker.connection.recv()
        except (EOFError, ConnectionError):
            raise ObjectiveError(
                f"the objective must load in a worker, but the worker {_how(worker.end())} while it did"
            ) from None
        if refusal is not None:
            raise refusal
        worker.ready = True

    def _receive(self, worker: _Worker) -> Message | None:
        """A message of a worker; None where it only became ready, or ended without a task."""
        try:
            if worker.has_died():
                raise EOFError
            if worker.ready:
                message: Message = worker.connection.recv()
                if isinstance(message, Ended):
                    worker.task = None
                return message
            self._await_ready(worker)
        except (EOFError, OSError):  # plain OSError: it died in the middle of a message
            return self._replace(worker, f"the worker {_how(worker.end())}")
        except ObjectiveError as error:
            return self._replace(worker, str(error))
        if worker.task is not None:
            worker.send(worker.task)
        return None

    def _replace(self, worker: _Worker, how: str) -> Message | None:
        """Put a new worker in the place of one that ended; what became of its task."""
        self._workers[self._workers.index(worker)] = self._spawn()
        return Ended(worker.task.number, Died(how)) if worker.task is not None else None


def _how(status: int) -> str:
    if status < 0:
        return f"was killed by {signal.Signals(-status).name}"
    return f"exited with status {status}"
