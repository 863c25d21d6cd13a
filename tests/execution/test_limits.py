"""A trial that takes too long, or too much memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from mltune import Trial
from mltune.execution import Died, Returned, Setup, TimedOut
from mltune.execution.local import LocalExecutor
from tests.execution.helpers import alive, pids, run, start_strays, task

MIB = 2**20


@pytest.fixture(scope="module")
def idle_memory() -> Iterator[int]:
    """What a worker holds that has run an objective, in bytes."""

    def resident(trial: Trial) -> int:
        import psutil

        return int(psutil.Process().memory_info().rss)

    with contextlib.closing(LocalExecutor(1)) as executor:
        executor.start(Setup(objective=cloudpickle.dumps(resident), metric="value", environment={}))
        yield int(run(executor, task(0))[0].metrics["value"])


def test_a_hang_is_ended_and_shown(executors: Any, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        start_strays(tmp_path)
        stand_here()
        return 1.0

    def stand_here() -> None:
        time.sleep(600)

    outcome = run(executors(objective, trial_timeout=6), task(0))[0]
    assert isinstance(outcome, TimedOut)
    header, first, *_ = outcome.traceback.splitlines()
    assert header == "Traceback (most recent call last):"
    assert first.startswith(f'  File "{__file__}", line ')
    assert first.endswith("in objective")
    assert outcome.traceback.splitlines()[-1].strip() == "time.sleep(600)"
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []


@pytest.mark.parametrize("holder", ["ctypes.PyDLL(None).sleep(600)", "os.kill(os.getpid(), 19)"])
def test_a_hang_that_stops_the_worker_too_is_ended(holder: str, executors: Any, tmp_path: Path, capfd: Any) -> None:
    def objective(trial: Trial) -> float:
        if trial.params["hang"]:
            start_strays(tmp_path)
            exec("import ctypes, os; " + holder)
        return float(os.getpid())

    executor = executors(objective, trial_timeout=6)
    first = run(executor, task(0, hang=False))[0]
    outcome = run(executor, task(1, hang=True))[1]
    assert isinstance(outcome, TimedOut)
    assert ("in objective" in outcome.traceback) == ("PyDLL" in holder)
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []
    assert run(executor, task(2, hang=False))[2].metrics != first.metrics
    assert capfd.readouterr() == ("", "")


def test_a_trial_within_its_time_leaves_the_worker_as_it_is(executors: Any) -> None:
    def objective(trial: Trial) -> float:
        time.sleep(trial.params["seconds"])
        return float(os.getpid())

    executor = executors(objective, trial_timeout=3)
    first = run(executor, task(0, seconds=0.0))[0]
    time.sleep(5.5)  # nothing is left ticking
    assert run(executor, task(1, seconds=0.5)) == {1: first}


def test_a_trial_that_takes_too_much_memory_is_ended(idle_memory: int, executors: Any, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        if trial.params["bomb"]:
            start_strays(tmp_path)
        hoard = []
        while trial.params["bomb"] and len(hoard) < 100:
            hoard.append(bytearray(10 * MIB))
            time.sleep(0.02)
        time.sleep(600 if trial.params["bomb"] else 0)
        return 1.0

    limit = idle_memory + 200 * MIB
    executor = executors(objective, n_jobs=2, trial_memory=limit)
    outcomes = run(executor, task(0, bomb=True), task(1, bomb=False))
    assert isinstance(outcomes[0], Died)
    assert outcomes[0].how.startswith("the worker used ")
    assert outcomes[0].how.endswith(f" MiB, more than trial_memory {limit / MIB:.0f} MiB")
    assert outcomes[1] == Returned({"value": 1.0})
    assert [pid for pid in pids(tmp_path) if alive(pid)] == []
    assert run(executor, task(2, bomb=False)) == {2: Returned({"value": 1.0})}


def test_the_memory_of_children_counts(idle_memory: int, executors: Any) -> None:
    def objective(trial: Trial) -> float:
        import subprocess
        import sys

        subprocess.run([sys.executable, "-c", f"hoard = bytearray({500 * MIB}); import time; time.sleep(600)"])
        return 1.0

    outcome = run(executors(objective, trial_memory=idle_memory + 200 * MIB), task(0))[0]
    assert isinstance(outcome, Died)
    assert "more than trial_memory" in outcome.how


def test_memory_that_forked_children_share_counts_once(idle_memory: int, executors: Any) -> None:
    def objective(trial: Trial) -> float:
        hoard = bytearray(200 * MIB)
        if 0 in [os.fork(), os.fork()]:  # three children
            time.sleep(600)
        time.sleep(1.5)
        return float(len(hoard) > 0)

    executor = executors(objective, trial_memory=idle_memory + 400 * MIB)
    assert run(executor, task(0)) == {0: Returned({"value": 1.0})}


def test_a_limit_below_what_an_idle_worker_needs_ends_each_trial_once(executors: Any) -> None:
    def objective(trial: Trial) -> float:
        time.sleep(600)
        return 1.0

    executor = executors(objective, trial_memory=MIB)
    for number in range(2):
        assert executor.next(0.3) is None  # idle, it may be as large as it likes
        assert isinstance(run(executor, task(number))[number], Died)
