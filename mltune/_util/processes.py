"""The processes that a worker starts: measure their memory, and kill them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection

import psutil

MARK = "MLTUNE_WORKER"
"""Environment variable that identifies a worker; all processes that it starts inherit it, in any session."""

ROUNDS = 500
"""Maximum number of searches for survivors; more are needed only if the kernel cannot end a process."""

_PAUSE = 0.01  # seconds between searches for survivors
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SYS_PIDFD_OPEN = 434


def memory_above(limit: int, pid: int) -> int | None:
    """Return the bytes that a process's descendants use, or None if at most ``limit``; shared memory counts once."""
    processes = _descendants(pid)
    if sum(_resident(process) for process in processes) <= limit:
        return None
    used = sum(_resident(process, shared_once=True) for process in processes)  # slow: the kernel visits every page
    return used if used > limit else None


def _resident(process: psutil.Process, *, shared_once: bool = False) -> int:
    with contextlib.suppress(psutil.Error):
        if shared_once:
            full = process.memory_full_info()
            return int(getattr(full, "pss", full.uss))
        return int(process.memory_info().rss)
    return 0


def kill_descendants() -> None:
    """Kill the descendants of this process once; processes that they start meanwhile need another call."""
    _kill(_descendants(os.getpid()))


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def end_marked(marks: Collection[str]) -> None:
    """Kill all processes that carry one of the marks, except this one, until none is left."""
    for _ in range(ROUNDS):
        marked = [
            process
            for process in psutil.process_iter(["environ"])
            if (process.info["environ"] or {}).get(MARK) in marks
        ]
        living = [process for process in marked if process.pid != os.getpid()]
        if not living:
            return
        _kill(living)


def _kill(processes: Collection[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    time.sleep(_PAUSE)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends; Linux only."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, even while a C extension holds the GIL; Linux only."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def live_on() -> None:
    """Undo :func:`die_with`."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def open_pidfd(pid: int) -> int | None:
    """Return a file descriptor that becomes readable when the process ends, or None if the system has no such thing."""
    if sys.platform != "linux":
        return None
    fd = ctypes.CDLL(None).syscall(_SYS_PIDFD_OPEN, pid, 0)  # Pythons built for old kernels have no `os.pidfd_open`
    return None if fd < 0 else int(fd)


def set_mark(mark: str) -> None:
    """Mark this process, which was forked from one that started with a mark of the same length.

    The new value replaces the old one where the kernel finds it: a process that is forked from this one shows in
    ``/proc`` the environment with which its program was started.
    """
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    value = mark.encode()
    ctypes.memmove(libc.getenv(MARK.encode()), value, len(value))
    os.environ[MARK] = mark


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)
