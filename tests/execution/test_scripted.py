"""`ScriptedExecutor` says what real executors say when objectives do what its scripts say."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from typing import Any

import pytest
from mlflow import MlflowClient

from mltune import Trial, TrialPruned
from mltune.execution import Executor, ExecutorOptions
from mltune.execution.inline import InlineExecutor
from mltune.execution.local import LocalExecutor
from mltune.messages import Decision, Died, Ended, Pruned, Raised, Reported, Returned, Task, WorkerConfig
from mltune.testing import Script, ScriptedExecutor
from tests.execution.helpers import send, task

RETURNED, PRUNED, RAISED = Returned({"value": 1.0}), Pruned(), Raised("ValueError: no", "")
DIED = Died("the worker exited with status 3")
STOPS = (None, 0, 1)
"""The step whose report is answered by STOP."""

Heard = dict[int, list[tuple[Any, ...]]]


def act(script: Script) -> Any:
    """Return an objective that does what the script says."""

    def objective(trial: Trial) -> float:
        for step, value in enumerate(script.reports):
            trial.report(value, step=step)
        if isinstance(script.outcome, Raised):
            raise ValueError("no")
        if isinstance(script.outcome, Pruned):
            raise TrialPruned
        if isinstance(script.outcome, Died):
            os._exit(3)
        return 1.0

    return objective


def hear(executor: Executor, tasks: list[Task], stop: int | None) -> Heard:
    """Run tasks, as many at once as may be; return what is said of each trial, without times and lines."""
    heard: Heard = defaultdict(list)
    waiting, running = list(tasks), 0
    while waiting or running:
        while waiting and running < executor.options.n_jobs:
            executor.submit(waiting.pop(0))
            running += 1
        match executor.next(60.0):
            case Reported(number=number, step=step, metrics=metrics):
                heard[number].append(("reported", step, dict(metrics)))
                executor.answer(number, Decision.STOP if step == stop else Decision.CONTINUE)
            case Ended(number=number, outcome=outcome):
                why = getattr(outcome, "error", getattr(outcome, "how", "")).partition(" (")[0]  # without the line
                heard[number].append((type(outcome).__name__, why, getattr(outcome, "metrics", None)))
                running -= 1
    return heard


def scripted(scripts: list[Script], n_jobs: int, stop: int | None, seed: int) -> Heard:
    executor = ScriptedExecutor(ExecutorOptions(n_jobs=n_jobs), lambda task, _: scripts[task.number], seed=seed)
    return hear(executor, [task(number) for number in range(len(scripts))], stop)


def scripts_with(*outcomes: Any) -> list[Script]:
    return [Script(reports, outcome) for reports in ((), (3.0,), (3.0, 2.0)) for outcome in outcomes]


@pytest.mark.parametrize("stop", STOPS)
def test_what_the_inline_executor_says(client: MlflowClient, stop: int | None) -> None:
    scripts = scripts_with(RETURNED, PRUNED, RAISED)
    executor = InlineExecutor(ExecutorOptions())
    setup = WorkerConfig(objective=lambda trial: act(scripts[trial.number])(trial), metric="value", environment={})
    executor.start(setup)
    heard = hear(executor, [task(number) for number in range(len(scripts))], stop)
    assert heard == scripted(scripts, 1, stop, seed=0)


@pytest.mark.processes
def test_what_workers_say(workers: LocalExecutor) -> None:
    for stop, seed in itertools.product(STOPS, range(3)):
        scripts = scripts_with(RETURNED, PRUNED, RAISED) + ([Script((3.0,), DIED)] if seed == 0 else [])
        tasks = [send(act(script), number) for number, script in enumerate(scripts)]
        assert hear(workers, tasks, stop) == scripted(scripts, workers.options.n_jobs, stop, seed)


def test_misuse_is_an_error_as_it_is_with_workers() -> None:
    executor = ScriptedExecutor(ExecutorOptions(n_jobs=1), lambda task, _: Script((1.0,), RETURNED))
    executor.submit(task(0))
    with pytest.raises(AssertionError, match="no place is free"):
        executor.submit(task(1))
    with pytest.raises(AssertionError, match="does not wait for an answer"):
        executor.answer(0, Decision.CONTINUE)
    executor.close()
    executor.close()
    assert executor.next(60.0) is None
