"""A trial that takes too long, or too much memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mltune import Trial
from mltune.execution import ExecutorOptions
from mltune.execution.local import LocalExecutor
from mltune.messages import Died, Returned, TimedOut, WorkerConfig
from tests.execution.helpers import SENT, STRAYS, alive, pids, run, send, start_strays, task

pytestmark = pytest.mark.processes

MIB = 2**20
LIMIT = 600 * MIB
"""Over three times what an idle worker holds."""


@pytest.fixture(scope="module")
def limited() -> Iterator[LocalExecutor]:
    """Two workers for what the task brings along, with limited memory."""
    with closing(LocalExecutor(ExecutorOptions(n_jobs=2, trial_memory=LIMIT))) as executor:
        executor.start(WorkerConfig(objective=SENT, metric="value", environment={}))
        yield executor


def test_hangs_are_ended_and_shown_and_who_is_in_time_stays(executors: Any, tmp_path: Path, capfd: Any) -> None:
    def objective(trial: Trial) -> float:
        if how := trial.params["how"]:
            folder = tmp_path / how
            folder.mkdir()
            start_strays(folder)
            {"waits": wait_here, "holds the GIL": hold_the_gil, "is stopped": stop}[how]()
        return float(os.getpid())

    def wait_here() -> None:
        time.sleep(600)

    def hold_the_gil() -> None:
        import ctypes

        ctypes.PyDLL(None).sleep(600)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def survivors(how: str) -> list[int]:
        started = pids(tmp_path / how)
        assert len(started) == len(STRAYS)
        return [pid for pid in started if alive(pid)]

    executor = executors(objective, n_jobs=3, trial_timeout=4.0)
    outcomes = run(executor, task(0, how=""), task(1, how="holds the GIL"), task(2, how="is stopped"))
    in_time, holds, stopped = (outcomes[number] for number in range(3))
    assert isinstance(holds, TimedOut)
    assert "in objective" in holds.traceback
    assert stopped == TimedOut("")
    assert survivors("holds the GIL") == survivors("is stopped") == []
    assert run(executor, task(3, how="")) == {3: in_time}  # nothing was left ticking in its worker

    waits = run(executor, task(4, how="waits"))[4]
    assert isinstance(waits, TimedOut)
    header, first, *_, last = waits.traceback.splitlines()
    assert header == "Traceback (most recent call last):"
    assert first.startswith(f'  File "{__file__}", line ')
    assert first.endswith("in objective")
    assert last.strip() == "time.sleep(600)"
    assert survivors("waits") == []
    after = run(executor, task(5, how=""))[5]
    assert isinstance(after, Returned)
    assert after != in_time
    assert capfd.readouterr() == ("", "")


def test_memory_that_forked_children_share_counts_once(limited: LocalExecutor) -> None:
    def objective(trial: Trial) -> float:
        hoard = bytearray(200 * MIB)
        if 0 in [os.fork(), os.fork()]:  # three children
            time.sleep(600)
        time.sleep(1.5)
        return float(len(hoard) > 0)

    assert run(limited, send(objective)) == {0: Returned({"value": 1.0})}


def test_a_trial_that_takes_too_much_memory_is_ended(limited: LocalExecutor, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        if trial.params["bomb"]:
            start_strays(tmp_path)
        hoard: list[bytearray] = []
        while trial.params["bomb"] and len(hoard) < 100:
            hoard.append(bytearray(10 * MIB))
            time.sleep(0.02)
        time.sleep(600 if trial.params["bomb"] else 0)
        return 1.0

    outcomes = run(limited, send(objective, 0, bomb=True), send(objective, 1, bomb=False))
    assert isinstance(outcomes[0], Died)
    assert outcomes[0].how.startswith("the worker used ")
    assert outcomes[0].how.endswith(" MiB, more than trial_memory 600 MiB")
    assert outcomes[1] == Returned({"value": 1.0})
    assert len(pids(tmp_path)) == len(STRAYS)
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []
    assert run(limited, send(objective, 2, bomb=False)) == {2: Returned({"value": 1.0})}


def test_the_memory_of_children_counts(limited: LocalExecutor) -> None:
    def objective(trial: Trial) -> float:
        subprocess.run([sys.executable, "-c", f"hoard = bytearray({700 * MIB}); import time; time.sleep(600)"])
        return 1.0

    outcome = run(limited, send(objective))[0]
    assert isinstance(outcome, Died)
    assert "more than trial_memory" in outcome.how


def test_a_limit_below_what_an_idle_worker_needs_ends_each_trial_once(executors: Any) -> None:
    def objective(trial: Trial) -> float:
        time.sleep(600)
        return 1.0

    executor = executors(objective, trial_memory=MIB)
    for number in range(2):
        assert executor.next(0.3) is None  # idle, it may be as large as it likes
        assert isinstance(run(executor, task(number))[number], Died)
