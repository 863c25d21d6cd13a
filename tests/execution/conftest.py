"""Executors that are closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cloudpickle
import pytest

from mltune import Trial
from mltune.execution import ExecutorOptions
from mltune.execution.local import LocalExecutor
from mltune.messages import WorkerConfig
from mltune.objective import ObjectiveRef
from tests.execution.helpers import SENT, idle, wait_for

Pool = list[LocalExecutor]


@pytest.fixture
def executors(tracking_uri: str) -> Iterator[Callable[..., LocalExecutor]]:
    """Makes started executors, and closes them."""
    made: list[LocalExecutor] = []

    def make(
        objective: Callable[[Trial], Any] | ObjectiveRef,
        n_jobs: int = 1,
        *,
        environment: Mapping[str, str | None] | None = None,
        trial_timeout: float | None = None,
        trial_memory: int | None = None,
    ) -> LocalExecutor:
        executor = LocalExecutor(ExecutorOptions(n_jobs=n_jobs, trial_memory=trial_memory))
        made.append(executor)
        source = objective if isinstance(objective, ObjectiveRef) else cloudpickle.dumps(objective)
        variables = {"MLFLOW_TRACKING_URI": tracking_uri, **(environment or {})}
        executor.start(
            WorkerConfig(objective=source, metric="value", environment=variables, trial_timeout=trial_timeout)
        )
        return executor

    yield make
    for executor in made:
        executor.close()


@pytest.fixture(scope="package")
def pool() -> Iterator[Pool]:
    """What `workers` keeps from test to test."""
    made: Pool = []
    yield made
    for executor in made:
        executor.close()


@pytest.fixture
def workers(pool: Pool) -> Iterator[LocalExecutor]:
    """Two idle workers for what the task brings along: those that the last test left, unless it failed."""
    if not pool:
        pool.append(LocalExecutor(ExecutorOptions(n_jobs=2)))
        pool[0].start(WorkerConfig(objective=SENT, metric="value", environment={}))
    (executor,) = pool
    wait_for(lambda: idle(executor) == 2)
    yield executor
    if len(executor._workers) != 2 or any(worker.task is not None for worker in executor._workers):
        pool.remove(executor)
        executor.close()
