"""The worker process of the local executor: run one objective after another until the driver is gone.

The main thread reads the driver's messages, and user code runs in another thread, so that the worker notices the
driver's end while user code runs. The worker's supervisor ends everything that user code started.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

from mltune._util.env import set_variables
from mltune._util.processes import open_pidfd
from mltune.errors import ObjectiveError
from mltune.messages import Verification
from mltune.worker.supervisor import fork_worker
from mltune.worker.verification import verify

if TYPE_CHECKING:
    from mltune.messages import Decision, Reported, Task, WorkerConfig
    from mltune.worker.runner import Runner

_EXIT_GRACE = 2.0  # seconds for exit handlers and user threads after the driver has closed the channel


def load_runner(setup: WorkerConfig, report: Callable[[Reported], Decision], dump_to: int) -> Runner:
    """Make this process a worker, and load the objective.

    Args:
        setup: The configuration, the same for all trials.
        report: Sends a report to the driver and returns the answer.
        dump_to: The file descriptor for the traceback of an objective that hangs and holds the GIL.

    Raises:
        ObjectiveError: The objective cannot be loaded here.
    """
    from mltune.worker import attach
    from mltune.worker.runner import Runner

    set_variables(setup.environment)
    attach.prepare_worker()
    return Runner(setup, report, dump_to)


class _Channel:
    """The connection to the driver, which user threads may share."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.answers: dict[int, queue.SimpleQueue[Decision]] = {}  # by trial, since a thread may outlive its trial
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        with self._lock:
            self.connection.send(message)

    def report(self, reported: Reported) -> Decision:
        answers = self.answers.setdefault(reported.number, queue.SimpleQueue())
        self.send(reported)
        return answers.get()


def main(sys_path: Sequence[str], *numbers: str) -> None:
    """Become a worker's supervisor, and in the worker serve the driver; for a worker that is a program of its own.

    Args:
        sys_path: ``sys.path`` as it was when Python started.
        numbers: The driver's pid, and the file descriptors as for :func:`serve`.
    """
    driver, *fds = map(int, numbers)
    pidfd = open_pidfd(driver)
    if os.getppid() == driver:
        serve(*fds, driver=pidfd, sys_path=sys_path)


def serve(channel: int, crash: int, link: int, *, driver: int | None, sys_path: Sequence[str]) -> NoReturn:
    """Fork the worker from this process, which becomes its supervisor; serve the driver until it closes the channel.

    Args:
        channel: The file descriptor of the worker's connection to the driver.
        crash: That of the file for the traceback of a crash.
        link: That of the supervisor's link to the driver.
        driver: A pidfd of the driver, or None if the system has none.
        sys_path: ``sys.path`` as it was when Python started.
    """
    for fd in (channel, crash, link):
        os.set_inheritable(fd, False)
    fork_worker(socket.socket(fileno=link), driver, keep=(channel, crash))
    faulthandler.enable(crash)
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(_Channel(Connection(channel)), crash, sys_path)
    timer = threading.Timer(_EXIT_GRACE, _kill_group)
    timer.daemon = True
    timer.start()
    gc.freeze()  # skip the garbage collection at exit, which takes a second once MLflow is imported
    sys.exit(0)


def _serve(channel: _Channel, crash: int, sys_path: Sequence[str]) -> None:
    importlib.import_module("mltune.worker.runner")  # import MLflow, which takes seconds, while the driver prepares
    setup: WorkerConfig | Verification = channel.connection.recv()
    if isinstance(setup, Verification):
        channel.send(verify(setup, sys_path))
        return
    try:
        runner = load_runner(setup, channel.report, crash)
    except ObjectiveError as error:
        channel.send(error)
        return
    channel.send(None)
    busy = threading.Event()

    def run(task: Task) -> None:
        ended = runner.run(task)
        busy.clear()
        channel.send(ended)

    try:
        while True:
            message: Task | tuple[int, Decision] = channel.connection.recv()
            if isinstance(message, tuple):
                number, decision = message
                channel.answers[number].put(decision)
            else:
                busy.set()
                threading.Thread(target=run, args=(message,), daemon=True).start()
    except (EOFError, ConnectionError):
        if busy.is_set():
            _kill_group()


def _kill_group() -> None:
    os.killpg(0, signal.SIGKILL)
