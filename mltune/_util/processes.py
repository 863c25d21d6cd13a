"""The processes that a worker starts: how much memory they hold, and how they end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection

import psutil

MARK = "MLTUNE_WORKER"
"""The variable that names a worker to whatever it starts, in its session or not."""

ROUNDS = 500
"""How often to look for survivors: more only if the kernel cannot end a process."""

_PAUSE = 0.01  # seconds between looks for survivors
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def memory_above(limit: int, pid: int) -> int | None:
    """Bytes that the descendants of a process hold, if more than the limit; memory that they share counts once."""
    processes = _descendants(pid)
    if sum(_resident(process) for process in processes) <= limit:
        return None
    used = sum(_resident(process, shared_once=True) for process in processes)  # slow: the kernel looks at every page
    return used if used > limit else None


def _resident(process: psutil.Process, *, shared_once: bool = False) -> int:
    with contextlib.suppress(psutil.Error):
        if shared_once:
            full = process.memory_full_info()
            return int(getattr(full, "pss", full.uss))
        return int(process.memory_info().rss)
    return 0


def kill_descendants() -> None:
    """Kill the descendants of this process, once; what they start meanwhile needs another call."""
    _kill(_descendants(os.getpid()))


def _descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def end_marked(marks: Collection[str]) -> None:
    """Kill the processes that carry one of the marks, until there is none; never this one."""
    for _ in range(ROUNDS):
        living = [each for each in psutil.process_iter(["environ"]) if (each.info["environ"] or {}).get(MARK) in marks]
        living = [each for each in living if each.pid != os.getpid()]
        if not living:
            return
        _kill(living)


def _kill(processes: Collection[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    time.sleep(_PAUSE)


def adopt_orphans() -> None:
    """On Linux, become the parent of every descendant whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with(parent: int) -> None:
    """On Linux the kernel kills this process with its parent, even while a C extension holds the GIL."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(option, value)
