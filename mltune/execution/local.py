"""Executor local: one worker process per slot on this machine, replaced only if it died or had to be ended."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from multiprocessing.connection import wait

from mltune._util import timing
from mltune._util.env import THREAD_VARIABLES
from mltune._util.processes import end_marked, memory_above
from mltune.errors import ObjectiveError
from mltune.execution._base import Executor, ExecutorOptions
from mltune.execution.template import Start, Template
from mltune.execution.worker_process import WorkerProcess
from mltune.messages import Cost, Decision, Died, Ended, Message, Task, TimedOut, WorkerConfig

_WATCHDOG = "Timeout ("  # the start of faulthandler's output when it ends a worker that holds the GIL for too long


_prepared: list[Template] = []


@contextlib.contextmanager
def prepared(n_jobs: int) -> Iterator[None]:
    """Start the template for the next local executor within the block now, while the driver imports MLflow.

    Args:
        n_jobs: The number of its workers.
    """
    _prepared.append(Template(_environment(n_jobs)))
    try:
        yield
    finally:
        while _prepared:
            _prepared.pop().close()


class LocalExecutor(Executor):
    """Executor that runs objectives in long-lived processes, each in its own session."""

    def __init__(self, options: ExecutorOptions) -> None:
        super().__init__(options)
        self._n_jobs = options.n_jobs
        self._trial_memory = options.trial_memory
        self._workers: list[WorkerProcess] = []
        self._template: Template | None = None
        self._setup: WorkerConfig | None = None
        self._next_look = 0.0
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)

    def warm_up(self) -> None:
        self._template = _prepared.pop() if _prepared else Template(_environment(self._n_jobs))
        for _ in range(self._n_jobs):
            self._workers.append(WorkerProcess(self._template.start))  # one by one: a signal may interrupt the loop

    def start(self, setup: WorkerConfig) -> None:
        self._setup = setup
        if self._template is None:
            self.warm_up()
        for worker in self._workers:
            worker.send(setup)
        first = self._workers[0]
        try:
            first.await_ready()
        except (EOFError, OSError):
            self._workers.remove(first)
            died = first.end()
            raise ObjectiveError(f"the objective must load in a worker, but {died.how} while it did") from None

    def submit(self, task: Task) -> None:
        idle = [worker for worker in self._workers if worker.task is None]
        if not idle:  # a worker failed to get ready, or died while idle
            idle = [self._spawn()]
            self._workers += idle
        next((worker for worker in idle if worker.ready), idle[0]).run(task)

    def next(self, timeout: float | None = None) -> Message | None:
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            if time.monotonic() >= self._next_look and (message := self._look_around()) is not None:
                return message
            readable = self._wait(deadline)
            for worker in [worker for worker in self._workers if worker.connection in readable]:
                if (message := self._receive(worker)) is not None:
                    return message
            if self._woken in readable:
                self._woken.recv(4096)
                return None
            if time.monotonic() >= deadline:
                return None

    def wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: nobody waits
            self._waker.send(b"\0")

    def answer(self, number: int, decision: Decision) -> None:
        worker = next(w for w in self._workers if w.task is not None and w.task.number == number)
        worker.send((number, decision))

    def fresh_process(self) -> Start | None:
        return None if self._template is None else self._template.start

    def close(self) -> None:
        for worker in self._workers:
            worker.ask_to_leave()
        started = [worker for worker in self._workers if worker.supervisor.has_started()]
        for worker in started:
            worker.end(grace=timing.TIMING.exit_grace if worker.ready and worker.task is None else 0.0)
        if self._template is not None:
            self._template.close()  # those that it has not forked yet end with it
        for worker in self._workers:
            if worker not in started:
                worker.end()
        end_marked({worker.mark for worker in self._workers})
        self._workers = []
        self._woken.close()
        self._waker.close()

    def _wait(self, deadline: float) -> list[object]:
        """Wait until something can be read, but not past the deadline or the next check; return what can be read."""
        pause = min(deadline, self._next_look) - time.monotonic()
        return list(wait([self._woken, *(worker.connection for worker in self._workers)], max(0.0, pause)))

    def _spawn(self) -> WorkerProcess:
        assert self._template is not None
        assert self._setup is not None
        worker = WorkerProcess(self._template.start)
        worker.send(self._setup)
        return worker

    def _receive(self, worker: WorkerProcess) -> Message | None:
        """Return the next message of a worker, or None if it only became ready or ended without a task."""
        try:
            if not worker.ready:
                worker.await_ready()
                return None
            message: Message = worker.connection.recv()
        except (EOFError, OSError):  # plain OSError: the worker died in the middle of a message
            return self._lose(worker)
        except ObjectiveError as error:
            return self._lose(worker, Died(str(error)))
        if isinstance(message, Ended):
            if isinstance(message.outcome, TimedOut):
                return self._lose(worker, message.outcome, message.cost)
            worker.task = None
        return message

    def _look_around(self) -> Message | None:
        """Check all workers; return the end of a task whose worker died or exceeded a limit, or None.

        A worker may die without closing its channel, because its children hold the channel open.
        """
        began = time.monotonic()
        for worker in list(self._workers):
            ended = worker.supervisor.has_ended()
            if worker.connection.poll():  # checked after it: read what the worker sent before its end first
                continue
            limit = None if ended else self._broken_limit(worker)
            if (ended or limit is not None) and (message := self._lose(worker, limit)) is not None:
                return message
        now = time.monotonic()
        pause = timing.TIMING.look_around
        if self._trial_memory is not None:
            pause = max(timing.TIMING.look_at_memory, 10 * (now - began))
        self._next_look = now + pause
        return None

    def _broken_limit(self, worker: WorkerProcess) -> TimedOut | Died | None:
        trial_timeout = self._setup.trial_timeout if self._setup is not None else None
        if trial_timeout is not None and worker.running_for() > trial_timeout + timing.TIMING.hang_grace:
            return TimedOut()
        supervisor = worker.supervisor.pid
        if self._trial_memory is None or supervisor is None or worker.running_for() == 0:
            return None
        used = memory_above(self._trial_memory, supervisor)
        if used is None:
            return None
        return Died(f"the worker used {_mib(used)}, more than trial_memory {_mib(self._trial_memory)}")

    def _lose(
        self, worker: WorkerProcess, outcome: TimedOut | Died | None = None, cost: Cost | None = None
    ) -> Message | None:
        """End a worker and all it started; return the end of its task, or None if it had none.

        A worker that was running a task is replaced now. One that was idle, or never got ready, is replaced when the
        next task comes.
        """
        ended = worker.end()
        end_marked({worker.mark})
        self._workers.remove(worker)
        if worker.task is None:
            return None
        if worker.ready:
            self._workers.append(self._spawn())
        if outcome is None:
            outcome = TimedOut(ended.traceback) if _WATCHDOG in ended.traceback else ended
        return Ended(worker.task.number, outcome, cost or Cost())


def _environment(n_jobs: int) -> Mapping[str, str]:
    """Return the driver's environment without the run of ``mlflow run``, and with cores divided among workers."""
    environment = dict(os.environ)
    environment.pop("MLFLOW_RUN_ID", None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in THREAD_VARIABLES:
        environment.setdefault(name, str(max(1, cores // n_jobs)))
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads must not spin on the other workers' cores
    return environment


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
