"""The template process of a study: it imports MLflow once, and every worker is forked from it.

So a worker is there in milliseconds, and shares the memory of what was imported. The template is started as a new
program, not forked, so that it has neither the driver's threads nor its ``__main__``; and it runs no user code, so
that it has only one thread when it forks: OpenBLAS ends its own before every fork.
"""

from __future__ import annotations

import gc
import importlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait

from mltune._util.env import QUIET_ARROW
from mltune._util.processes import die_with, live_on, open_pidfd, set_mark
from mltune.worker.main import serve


def main(sys_path: Sequence[str], *numbers: str) -> None:
    """Fork a worker for each request until the driver is gone; in a worker, serve the driver.

    Args:
        sys_path: ``sys.path`` as it was when Python started.
        numbers: The driver's pid, and the file descriptor of the socket for requests. A request is the worker's mark,
            with the file descriptors of its channel, of its file for a crash's traceback, and of its supervisor's link.
    """
    driver, control = int(numbers[0]), socket.socket(fileno=int(numbers[1]))
    control.set_inheritable(False)
    die_with(driver)
    importlib.import_module("mltune.worker.runner")
    pidfd = open_pidfd(driver)
    live_on()  # else this process would end with the driver's thread that started it
    if os.getppid() != driver:
        return
    if os.environ.get(QUIET_ARROW[0]) == QUIET_ARROW[1]:
        del os.environ[QUIET_ARROW[0]]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors tell the driver themselves how their workers end
    gc.freeze()  # a collection in a worker would copy the pages of all that was imported
    while (request := _next_request(control, pidfd)) is not None:
        mark, fds = request
        if _fork():
            control.close()
            _become_supervisor(mark)
            serve(*fds, driver=pidfd, sys_path=sys_path)
        for fd in fds:
            os.close(fd)


def _fork() -> bool:
    """Fork; return whether this is the child. If no process can be had, the driver sees that the link is closed."""
    try:
        return os.fork() == 0
    except OSError:
        return False


def _next_request(control: socket.socket, driver: int | None) -> tuple[str, list[int]] | None:
    """Wait for a request and return its mark and file descriptors, or None if the driver is gone."""
    if control not in wait([control, *([] if driver is None else [driver])]):
        return None
    mark, fds, _, _ = socket.recv_fds(control, 64, 3)
    return (mark.decode(), fds) if mark else None


def _become_supervisor(mark: str) -> None:
    """Give this fork of the template what a program of its own would have."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    set_mark(mark)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # Python's own generator is reseeded by every fork
