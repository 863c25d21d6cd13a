"""The parent of one worker: it ends whatever the worker started, once the worker or the driver is gone.

It stands between the driver and the worker because nobody else can: the driver may be killed, the worker may hold
its GIL for ever, and only an ancestor that adopts orphans knows of processes that went to sessions of their own.
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

_LOOK_AROUND = 0.5  # seconds between looks at whether the driver lives


def fork_worker(driver: int, *, keep: Collection[int]) -> None:
    """Return in a new process, the worker; this one supervises it, and dies the worker's death.

    Args:
        driver: The parent's pid; when it is another, the driver is gone. SIGTERM asks for the end, too.
        keep: What only the worker is to hold open.
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
    """Wait for the end of the worker or of the driver, end what is left, and return the worker's wait status."""
    statuses: dict[int, int] = {}
    signals = b""
    while worker not in statuses and os.getppid() == driver and signal.SIGTERM not in signals:
        heard, _, _ = select.select([woken], [], [], _LOOK_AROUND)
        signals = os.read(woken, 4096) if heard else b""
        _reap(statuses)
    for _ in range(ROUNDS):
        if not _reap(statuses):
            break
        kill_descendants()
    return statuses.get(worker, signal.SIGKILL)


def _reap(statuses: dict[int, int]) -> bool:
    """Take in the children that ended, adopted ones too; whether there are others."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            statuses.update([ended])
    except ChildProcessError:
        return False
    return True


def _die(status: int) -> NoReturn:
    """Exit, or be killed, as the worker was."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError):  # SIGKILL's action cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)
