"""Waiting for messages: it ends in time, can be woken, and loses nothing over it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mltune import Trial
from mltune.execution import Ended, Executor, Reported, Returned, Setup
from mltune.execution.inline import InlineExecutor
from tests.execution.helpers import task

Make = Callable[[Callable[[Trial], Any]], Executor]


@pytest.fixture(params=["local", "inline"])
def make(request: pytest.FixtureRequest, executors: Any, tracking_uri: str) -> Make:
    def inline(objective: Callable[[Trial], Any]) -> Executor:
        executor = InlineExecutor()
        executor.start(Setup(objective=objective, metric="value", environment={}))
        return executor

    return executors if request.param == "local" else inline


def test_it_ends_in_time(make: Make, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return 1.0

    executor = make(objective)
    assert executor.next(0) is None
    assert executor.next(0.2) is None
    executor.submit(task(0))
    assert executor.next(0.2) is None
    (tmp_path / "go").touch()
    assert executor.next(60) == Ended(0, Returned({"value": 1.0}))


def test_a_thread_wakes_it(make: Make) -> None:
    executor = make(lambda trial: 1.0)
    timer = threading.Timer(0.2, executor.wake)
    timer.start()
    assert executor.next() is None
    timer.join()


def test_a_signal_handler_wakes_it(make: Make) -> None:
    executor = make(lambda trial: 1.0)
    before = signal.signal(signal.SIGALRM, lambda *_: executor.wake())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert executor.next() is None
    finally:
        signal.signal(signal.SIGALRM, before)


def test_waking_before_the_wait_counts(make: Make) -> None:
    executor = make(lambda trial: 1.0)
    executor.wake()
    assert executor.next() is None


def test_waking_never_blocks(executors: Any) -> None:
    executor = executors(lambda trial: 1.0)
    for _ in range(10_000):
        executor.wake()
    executor.submit(task(0))
    executor.close()
    executor.wake()


def test_no_message_is_lost_over_wakes(make: Make) -> None:
    def objective(trial: Trial) -> float:
        for step in range(50):
            trial.report({"value": float(step), "text": 0.5}, step=step)
        return 1.0

    executor = make(objective)
    done = threading.Event()

    def keep_waking() -> None:
        while not done.wait(0.0005):
            executor.wake()

    waker = threading.Thread(target=keep_waking)
    waker.start()
    executor.submit(task(0))
    steps = []
    try:
        while not isinstance(message := executor.next(), Ended):
            if isinstance(message, Reported):
                steps.append(message.step)
                executor.answer(0, stop=False)
    finally:
        done.set()
        waker.join()
    assert steps == list(range(50))
    assert message == Ended(0, Returned({"value": 1.0}))
