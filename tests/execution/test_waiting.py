"""Waiting for messages: it ends in time, can be woken, and loses nothing over it."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from mltune import Trial
from mltune.execution import Executor, ExecutorOptions
from mltune.execution.inline import InlineExecutor
from mltune.execution.local import LocalExecutor
from mltune.messages import Decision, Ended, Reported, Returned, WorkerConfig
from tests.execution.helpers import run_sent, send

pytestmark = pytest.mark.processes


@pytest.fixture(params=["local", "inline"])
def executor(request: pytest.FixtureRequest) -> Executor:
    if request.param == "local":
        return request.getfixturevalue("workers")  # type: ignore[no-any-return]
    inline = InlineExecutor(ExecutorOptions())
    inline.start(WorkerConfig(objective=run_sent, metric="value", environment={}))
    return inline


def test_it_ends_in_time(executor: Executor, tmp_path: Path) -> None:
    def objective(trial: Trial) -> float:
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        return 1.0

    assert executor.next(0) is None
    assert executor.next(0.2) is None
    executor.submit(send(objective))
    assert executor.next(0.2) is None
    (tmp_path / "go").touch()
    assert executor.next(60) == Ended(0, Returned({"value": 1.0}))


def test_a_thread_wakes_it(executor: Executor) -> None:
    timer = threading.Timer(0.2, executor.wake)
    timer.start()
    assert executor.next() is None
    timer.join()


def test_a_signal_handler_wakes_it(executor: Executor) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: executor.wake())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert executor.next() is None
    finally:
        signal.signal(signal.SIGALRM, before)


def test_waking_before_the_wait_counts(executor: Executor) -> None:
    executor.wake()
    assert executor.next() is None


def test_waking_never_blocks(executor: Executor) -> None:
    for _ in range(10_000):
        executor.wake()
    executor.submit(send(lambda trial: 1.0))
    while (message := executor.next()) is None:
        pass
    assert message == Ended(0, Returned({"value": 1.0}))


@pytest.mark.parametrize("make", [LocalExecutor, InlineExecutor], ids=["local", "inline"])
def test_nobody_has_to_wait_any_more(make: type[Executor]) -> None:
    executor = make(ExecutorOptions())
    executor.close()
    executor.wake()


def test_no_message_is_lost_over_wakes(executor: Executor) -> None:
    def objective(trial: Trial) -> float:
        for step in range(50):
            trial.report({"value": float(step), "text": 0.5}, step=step)
        return 1.0

    done = threading.Event()

    def keep_waking() -> None:
        while not done.wait(0.0005):
            executor.wake()

    waker = threading.Thread(target=keep_waking)
    waker.start()
    executor.submit(send(objective))
    steps = []
    try:
        while not isinstance(message := executor.next(), Ended):
            if isinstance(message, Reported):
                steps.append(message.step)
                executor.answer(0, Decision.CONTINUE)
    finally:
        done.set()
        waker.join()
    assert steps == list(range(50))
    assert message == Ended(0, Returned({"value": 1.0}))
