"""The parent process of one worker: it ends everything the worker started once the worker or the driver is gone.

It is a process of its own because neither of them can do this: the driver may be killed, and the worker may hold its
GIL forever. Only an ancestor that adopts orphans can find processes that moved to sessions of their own.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
from collections.abc import Collection
from typing import NoReturn

from mltune._util.processes import ROUNDS, adopt_orphans, die_with, kill_descendants

_LOOK_AROUND = 0.5  # seconds between checks that the driver is alive


def fork_worker(driver: int, *, keep: Collection[int]) -> None:
    """Fork the worker and return in it; this process becomes its supervisor, and exits or dies as the worker does.

    Args:
        driver: The pid of the parent. If it changes, the driver is gone; SIGTERM ends the worker, too.
        keep: File descriptors that only the worker keeps open.
    """
    supervisor = os.getpid()
    woken, waker = os.pipe()
    for fd in (woken, waker):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(waker)
    for signum in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(signum, lambda *_: None)
    adopt_orphans()
    worker = os.fork()
    if worker != 0:
        for fd in keep:
            os.close(fd)
        _die(_supervise(worker, driver, woken))
    os.setsid()
    die_with(supervisor)
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    for fd in (woken, waker):
        os.close(fd)


def _supervise(worker: int, driver: int, woken: int) -> int:
    """Wait until the worker or the driver ends, kill what is left, and return the worker's wait status."""
    statuses: dict[int, int] = {}
    signals = b""
    while worker not in statuses and os.getppid() == driver and signal.SIGTERM not in signals:
        readable, _, _ = select.select([woken], [], [], _LOOK_AROUND)
        signals = os.read(woken, 4096) if readable else b""
        _reap(statuses)
    for _ in range(ROUNDS):
        if not _reap(statuses):
            break
        kill_descendants()
    return statuses.get(worker, signal.SIGKILL)


def _reap(statuses: dict[int, int]) -> bool:
    """Reap the children that have ended, including adopted ones; return whether any are left."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            statuses.update([ended])
    except ChildProcessError:
        return False
    return True


def _die(status: int) -> NoReturn:
    """Exit with the worker's status, or be killed by the same signal."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL's handler cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)
