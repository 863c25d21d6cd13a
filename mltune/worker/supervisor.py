"""The parent process of one worker: it ends everything the worker started once the worker or the driver is gone.

It is a process of its own because neither of them can do this: the driver may be killed, and the worker may hold its
GIL forever. Only an ancestor that adopts orphans can find processes that moved to sessions of their own.

Supervisor and driver share a link, a pair of stream sockets. The supervisor sends its pid when it starts, with a
pidfd if the system has them, and the worker's exit code when all has ended. The driver sends nothing: it shuts its side
down to have the worker ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
from collections.abc import Collection
from multiprocessing.connection import wait

from mltune._util.processes import ROUNDS, adopt_orphans, die_with, kill_descendants, open_pidfd

NUMBER = struct.Struct("=i")
"""What a supervisor sends: first its pid, then the worker's exit code, or minus the signal that killed it."""

_POLL = 0.5  # seconds between checks that the driver is alive, on systems without pidfds


def fork_worker(link: socket.socket, driver: int | None, *, keep: Collection[int]) -> None:
    """Fork the worker and return in it; this process becomes its supervisor, and exits after it.

    Args:
        link: The link to the driver, closed in the worker.
        driver: A pidfd of the driver, or None if the system has none; then the parent's end is taken as the driver's.
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
        _supervise(worker, link, driver, woken)
        os._exit(0)
    os.setsid()
    die_with(supervisor)
    signal.set_wakeup_fd(-1)
    for signum in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(signum, signal.SIG_DFL)
    link.close()
    for fd in (woken, waker) if driver is None else (woken, waker, driver):
        os.close(fd)


def _supervise(worker: int, link: socket.socket, driver: int | None, woken: int) -> None:
    """Wait until the worker or the driver ends, kill what is left, and send how the worker ended."""
    parent = os.getppid()
    gone = [link.fileno(), *([] if driver is None else [driver])]
    statuses: dict[int, int] = {}
    is_known = _introduce(link)
    while is_known and worker not in statuses and (driver is not None or os.getppid() == parent):
        readable = wait([woken, *gone], _POLL if driver is None else None)
        signals = os.read(woken, 4096) if woken in readable else b""
        if signal.SIGTERM in signals or any(fd in readable for fd in gone):
            break
        _reap(statuses)
    for _ in range(ROUNDS):
        if not _reap(statuses):
            break
        kill_descendants()
    code = os.waitstatus_to_exitcode(statuses.get(worker, signal.SIGKILL))
    with contextlib.suppress(OSError):
        link.send(NUMBER.pack(code))


def _introduce(link: socket.socket) -> bool:
    """Send the pid, with a pidfd if possible; return False if the driver does not wait for it any more."""
    number, pidfd = NUMBER.pack(os.getpid()), open_pidfd(os.getpid())
    if pidfd is not None:
        try:
            socket.send_fds(link, [number], [pidfd])
            return True
        except OSError:  # too many file descriptors are under way, or the link is closed
            pass
        finally:
            os.close(pidfd)
    try:
        link.send(number)
    except OSError:
        return False
    return True


def _reap(statuses: dict[int, int]) -> bool:
    """Reap the children that have ended, including adopted ones; return whether any are left."""
    try:
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            statuses.update([ended])
    except ChildProcessError:
        return False
    return True
