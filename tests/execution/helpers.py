"""Tasks, and processes that do not want to end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import psutil

from mltune.execution import Ended, Task
from mltune.execution.local import LocalExecutor

_DEAF = """
import os, signal, sys, time
for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
    signal.signal(signum, signal.SIG_IGN)
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
time.sleep(600)
"""
_DAEMON = "import subprocess, sys; subprocess.Popen(sys.argv[1:], start_new_session=True)"

STRAYS = ("child", "session", "daemon", "bare")


def start_strays(folder: Path, kinds: Collection[str] = STRAYS) -> None:
    """Deaf processes: a child, one in a session of its own, a daemon, and one with an empty environment."""
    for kind in kinds:
        command = [sys.executable, "-c", _DEAF, str(folder / f"{kind}.pid")]
        if kind == "daemon":
            subprocess.run([sys.executable, "-c", _DAEMON, *command], check=True)
        else:
            subprocess.Popen(command, start_new_session=kind != "child", env={} if kind == "bare" else None)
    wait_for(lambda: len(pids(folder)) == len(kinds))


def pids(folder: Path) -> list[int]:
    """What was written into ``*.pid``."""
    texts = [path.read_text() for path in folder.glob("*.pid")]
    return [int(text) for text in texts if text]


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)


def task(number: int, **params: Any) -> Task:
    return Task(number=number, params=params, seed=0, run_id="0" * 32, experiment_id="0")


def run(executor: LocalExecutor, *tasks: Task) -> dict[int, Any]:
    """What became of tasks that report nothing."""
    for each in tasks:
        executor.submit(each)
    ended = [executor.next() for _ in tasks]
    assert all(isinstance(message, Ended) for message in ended)
    return {message.number: message.outcome for message in ended if isinstance(message, Ended)}
