"""Tasks, and processes that do not want to end."""

from __future__ import annotations

import pickle
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import cloudpickle
import psutil

from mltune import Trial
from mltune.execution import Executor
from mltune.execution.local import LocalExecutor
from mltune.messages import Ended, Task
from mltune.objective import ObjectiveRef

ROOT = Path(__file__).parents[2]
SENT = ObjectiveRef("tests.execution.helpers", "run_sent", str(ROOT))
"""The objective that runs what `send` puts into a task."""

_DEAF = 'trap "" HUP INT TERM; echo $$ > "$1"; exec sleep 600'

STRAYS = ("child", "session", "daemon", "bare")


def start_strays(folder: Path, kinds: Collection[str] = STRAYS) -> None:
    """Deaf processes: a child, one in a session of its own, a daemon, and one with an empty environment."""
    for kind in kinds:
        command = ["/bin/sh", "-c", _DEAF, "sh", str(folder / f"{kind}.pid")]
        if kind == "daemon":
            subprocess.run(["/bin/sh", "-c", '"$@" &', "sh", *command], start_new_session=True, check=True)
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
        time.sleep(0.02)


def task(number: int, **params: Any) -> Task:
    return Task(number=number, params=params, seed=0, run_id="0" * 32, experiment_id="0")


def send(objective: Callable[[Trial], Any], number: int = 0, **params: Any) -> Task:
    """A task for an executor of `SENT`, with its objective."""
    return task(number, objective=cloudpickle.dumps(objective), **params)


def run_sent(trial: Trial) -> Any:
    return pickle.loads(trial.params["objective"])(trial)


def run(executor: Executor, *tasks: Task) -> dict[int, Any]:
    """What became of tasks that report nothing."""
    for each in tasks:
        executor.submit(each)
    ended = [executor.next() for _ in tasks]
    assert all(isinstance(message, Ended) for message in ended)
    return {message.number: message.outcome for message in ended if isinstance(message, Ended)}


def idle(executor: LocalExecutor) -> int:
    """How many workers wait for a task."""
    assert executor.next(0.05) is None
    return sum(worker.ready and worker.task is None for worker in executor._workers)
