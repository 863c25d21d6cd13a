"""A worker process of the local executor: one objective after the other, until the driver is gone.

The main thread reads the driver's messages, so that it notices the driver's end while user code runs
in a thread of its own; whatever the user's code started dies with the worker's process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from mltune.errors import ObjectiveError
from mltune.execution._base import Reported, Setup, Task

if TYPE_CHECKING:
    from mltune.execution.runner import Runner

_EXIT_GRACE = 2.0  # seconds that exit handlers and user threads get once the driver has closed the channel


def load_runner(setup: Setup, report: Callable[[Reported], bool]) -> Runner:
    """Make this process a worker, and load the objective.

    Raises:
        ObjectiveError: The objective cannot be loaded here.
    """
    os.environ.update(setup.environment)
    from mltune.execution.runner import Runner  # after the environment: it imports mlflow and user code
    from mltune.tracking import attach

    attach.prepare_worker()
    return Runner(setup, report)


class _Channel:
    """The connection to the driver; user threads may share it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.answers: dict[int, queue.SimpleQueue[bool]] = {}  # by trial: one that left a thread behind gets no other's
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        with self._lock:
            self.connection.send(message)

    def report(self, reported: Reported) -> bool:
        answers = self.answers.setdefault(reported.number, queue.SimpleQueue())
        self.send(reported)
        return answers.get()


def main(fd: int) -> None:
    """Serve the driver at the other end of a socket."""
    _die_with_the_driver()
    channel = _Channel(Connection(fd))
    with contextlib.suppress(EOFError, ConnectionError):
        _serve(channel)
    timer = threading.Timer(_EXIT_GRACE, _kill_group)
    timer.daemon = True
    timer.start()
    sys.exit(0)


def _serve(channel: _Channel) -> None:
    setup: Setup = channel.connection.recv()
    try:
        runner = load_runner(setup, channel.report)
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
            message: Task | tuple[int, bool] = channel.connection.recv()
            if isinstance(message, tuple):
                number, stop = message
                channel.answers[number].put(stop)
            else:
                busy.set()
                threading.Thread(target=run, args=(message,), daemon=True).start()
    except (EOFError, ConnectionError):
        if busy.is_set():
            _kill_group()


def _kill_group() -> None:
    os.killpg(0, signal.SIGKILL)


def _die_with_the_driver() -> None:
    """On Linux the kernel ends the worker with the driver, even while a C extension holds the GIL."""
    with contextlib.suppress(OSError, AttributeError):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
