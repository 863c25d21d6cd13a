"""A tracker and an executor in memory, with which the driver's loop needs no store and no processes."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mltune.execution import Executor, ExecutorOptions, Limits
from mltune.messages import (
    Decision,
    Died,
    Ended,
    Event,
    Message,
    Pruned,
    Raised,
    Reported,
    Returned,
    RunClosed,
    RunOpened,
    Task,
    TimedOut,
    WorkerConfig,
)

if TYPE_CHECKING:
    from mltune.trial import FrozenTrial


@dataclass
class MemoryRun:
    """The record of one attempt.

    Attributes:
        trial: The attempt as of its start or, once closed, of its end.
        reports: The metrics by step.
        closed: Whether the attempt's end is recorded.
        traceback: The recorded traceback of a failure.
    """

    trial: FrozenTrial
    first: str | None = None
    reports: dict[int, Mapping[str, float]] = field(default_factory=dict)
    closed: bool = False
    traceback: str | None = None


class MemoryTracker:
    """A tracker that keeps a study's record in memory.

    Args:
        lag: The number of calls of :meth:`events` until an operation is reported as recorded.

    Attributes:
        runs: The runs by id, in the order of their creation.
        prefetched: The numbers of the trials whose runs were created ahead.
        best: The runs that were logged as the best, in order, each with the number of trials before it.
        removed: The runs whose models were removed.
        dropped: The number and attempt of each attempt that never began and whose run was deleted.
        failure: An error that :meth:`events` raises, or None.
    """

    experiment_id = "0"

    def __init__(self, lag: int = 0) -> None:
        self.runs: dict[str, MemoryRun] = {}
        self.prefetched: list[int] = []
        self.best: list[tuple[str, int]] = []
        self.removed: list[str] = []
        self.dropped: list[tuple[int, int]] = []
        self.failure: Exception | None = None
        self._lag = lag
        self._queue: deque[tuple[int, Event]] = deque()
        self._looks = 0

    def prefetch_trial(self, number: int) -> None:
        self.prefetched.append(number)

    def start_trial(self, trial: FrozenTrial, first: str | None) -> None:
        run_id = f"run-{trial.number}-{trial.attempt}"
        assert run_id not in self.runs, f"{run_id} was created twice"
        self.runs[run_id] = MemoryRun(trial, first)
        self._later(RunOpened(trial.number, trial.attempt, run_id))

    def log_report(self, run_id: str, step: int, metrics: Mapping[str, float], timestamp: int) -> None:
        assert not self.runs[run_id].closed, f"{run_id} is closed"
        self.runs[run_id].reports[step] = metrics

    def end_trial(self, trial: FrozenTrial, *, traceback: str | None) -> None:
        run = self.runs[str(trial.run_id)]
        assert not run.closed, f"{trial.run_id} was closed twice"
        run.trial, run.closed, run.traceback = trial, True, traceback
        self._later(RunClosed(trial))

    def add_cost(self, seconds: float, size: int) -> None:
        """Do nothing; the cost of models is not recorded."""

    def remove_models(self, trial: FrozenTrial) -> None:
        self.removed.append(str(trial.run_id))

    def drop_trial(self, trial: FrozenTrial) -> None:
        self.dropped.append((trial.number, trial.attempt))
        del self.runs[f"run-{trial.number}-{trial.attempt}"]

    def log_best(self, trial: FrozenTrial, step: int) -> None:
        self.best.append((str(trial.run_id), step))

    def events(self) -> Iterator[Event]:
        self._looks += 1
        while self._queue and self._queue[0][0] <= self._looks:
            yield self._queue.popleft()[1]
        if self.failure is not None:
            raise self.failure

    def happen(self, event: Event) -> None:
        """Make the next call of :meth:`events` yield this event first."""
        self._queue.appendleft((0, event))

    def _later(self, event: Event) -> None:
        self._queue.append((self._looks + self._lag, event))


@dataclass(frozen=True)
class Script:
    """What one attempt does.

    Attributes:
        reports: The reported values of the study's metric, at the steps 0, 1, …
        outcome: The outcome after the reports, or None if the attempt never ends.
    """

    reports: tuple[float, ...] = ()
    outcome: Returned | Pruned | Raised | TimedOut | Died | None = None


class ScriptedExecutor(Executor):
    """An executor that runs scripted trials in the caller's thread, without waiting.

    Which of the running trials goes on next is random, with a fixed seed.

    Args:
        options: ``n_jobs`` is enforced: submitting more tasks at once is an error.
        script: Returns what a task does; its second argument counts the tasks with the same trial number, from 1.
        metric: The study's metric.
        seed: The seed of the order in which running trials go on.
    """

    limits = Limits()

    def __init__(
        self,
        options: ExecutorOptions,
        script: Callable[[Task, int], Script],
        *,
        metric: str = "value",
        seed: int = 0,
    ) -> None:
        super().__init__(options)
        self.tasks: list[Task] = []
        self.closed = False
        self._script = script
        self._metric = metric
        self._rng = random.Random(seed)
        self._running: dict[int, _Scripted] = {}

    def start(self, setup: WorkerConfig) -> None:
        """Do nothing; there is nothing to start."""

    def submit(self, task: Task) -> None:
        assert not self.closed, "the executor is closed"
        assert task.number not in self._running, f"trial {task.number} runs already"
        assert len(self._running) < self.options.n_jobs, "no place is free"
        self.tasks.append(task)
        attempt = sum(submitted.number == task.number for submitted in self.tasks)
        self._running[task.number] = _Scripted(task, self._script(task, attempt))

    def next(self, timeout: float | None = None) -> Message | None:
        ready = [scripted for scripted in self._running.values() if scripted.can_go_on]
        if not ready:
            return None
        running = self._rng.choice(ready)
        if running.stopped or running.step == len(running.script.reports):
            return self._end(running)
        running.waits = True
        running.step += 1
        value = running.script.reports[running.step - 1]
        return Reported(running.task.number, running.step - 1, {self._metric: value}, timestamp=running.step)

    def wake(self) -> None:
        """Do nothing; :meth:`next` never waits."""

    def answer(self, number: int, decision: Decision) -> None:
        running = self._running[number]
        assert running.waits, f"trial {number} does not wait for an answer"
        running.waits, running.stopped = False, decision is Decision.STOP

    def close(self) -> None:
        self.closed = True
        self._running.clear()

    def _end(self, running: _Scripted) -> Ended:
        del self._running[running.task.number]
        outcome = Pruned() if running.stopped else running.script.outcome
        assert outcome is not None
        return Ended(running.task.number, outcome)


@dataclass
class _Scripted:
    task: Task
    script: Script
    step: int = 0
    waits: bool = False
    stopped: bool = False

    @property
    def can_go_on(self) -> bool:
        at_end = self.step == len(self.script.reports) and not self.stopped
        return not self.waits and not (at_end and self.script.outcome is None)
