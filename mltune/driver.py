"""The one process that owns a study: its budget, its workers' answers and the life of every run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from mltune.engines import Report, trial_seed
from mltune.execution import Died, Ended, Executor, Pruned, Raised, Reported, Returned, Task
from mltune.signals import Signals
from mltune.space import Params
from mltune.tracking.runs import Tracker
from mltune.trial import Direction, FrozenTrial, Reason, TrialState, is_finite

_GIVE_UP_AFTER = 5  # first trials that all failed

Watcher = Callable[[FrozenTrial], None]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a study may use.

    Attributes:
        n_trials: Trials in all.
        n_jobs: Trials at once.
        timeout: Seconds after which no trial is started, None for no limit.
    """

    n_trials: int
    n_jobs: int
    timeout: float | None = None


@dataclass
class _Running:
    """A trial in flight; ``frozen.reports`` is a live view of ``reports``."""

    frozen: FrozenTrial
    started: float
    reports: dict[int, float]
    metrics: dict[str, float] = field(default_factory=dict)
    stopped: bool = False


class StudyDriver:
    """Drives one study; an engine sees it as :class:`mltune.engines.Driver`.

    Args:
        tracker: Writes the record; its parent run is open.
        executor: Runs the objectives; it has started.
        budget: What the study may use.
        metric: The study's metric.
        direction: Which values are better.
        seed: The study's seed.
        watch: Called with every trial that starts and every one that ends.
        signals: Raises :class:`~mltune.signals.Stop` here and nowhere else.
    """

    def __init__(
        self,
        tracker: Tracker,
        executor: Executor,
        *,
        budget: Budget,
        metric: str,
        direction: Direction,
        seed: int,
        watch: Watcher,
        signals: Signals,
    ) -> None:
        self._tracker = tracker
        self._executor = executor
        self._budget = budget
        self._metric = metric
        self._direction = direction
        self._seed = seed
        self._watch = watch
        self._signals = signals
        self._running: dict[int, _Running] = {}
        self._next = 0
        self._deadline = None if budget.timeout is None else time.monotonic() + budget.timeout
        self.trials: list[FrozenTrial] = []
        self.best: FrozenTrial | None = None
        self.last_error: str | None = None
        self.gave_up = False

    def next_number(self) -> int | None:
        self._signals.check()
        if self.gave_up or len(self._running) >= self._budget.n_jobs or self._next >= self._budget.n_trials:
            return None
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return None
        return self._next

    def start(self, number: int, params: Params) -> None:
        seed = trial_seed(self._seed, number)
        reports: dict[int, float] = {}
        trial = FrozenTrial(number=number, params=params, seed=seed, reports=reports)
        trial = replace(trial, run_id=self._tracker.start_trial(trial))
        assert trial.run_id is not None
        self._next = number + 1
        self._running[number] = _Running(trial, time.monotonic(), reports)
        self._executor.submit(
            Task(
                number=number,
                params=params,
                seed=seed,
                run_id=trial.run_id,
                experiment_id=self._tracker.experiment_id,
            )
        )
        self._watch(trial)

    def wait(self) -> Report | FrozenTrial | None:
        while self._running:
            with self._signals.waiting():
                message = self._executor.next()
            event = self._on_end(message) if isinstance(message, Ended) else self._on_report(message)
            if event is not None:
                return event
        return None

    def answer(self, report: Report, *, stop: bool) -> None:
        self._running[report.trial.number].stopped |= stop
        self._executor.answer(report.trial.number, stop=stop)

    def interrupt(self) -> None:
        """Close the trials in flight as INTERRUPTED; their workers must be gone or cut off."""
        for running in list(self._running.values()):
            with contextlib.suppress(Exception):  # a run that cannot be closed must not keep the others open
                self._close(running, state=TrialState.INTERRUPTED)

    def _on_report(self, message: Reported) -> Report | None:
        running = self._running.get(message.number)
        if running is None:
            return None  # a thread that the objective left behind
        run_id = running.frozen.run_id
        assert run_id is not None
        self._tracker.log_report(run_id, message.step, message.metrics, message.timestamp)
        running.metrics.update(message.metrics)
        if self._metric not in message.metrics:
            self._executor.answer(message.number, stop=False)
            return None
        running.reports[message.step] = message.metrics[self._metric]
        return Report(running.frozen, message.step)

    def _on_end(self, message: Ended) -> FrozenTrial:
        running = self._running[message.number]
        match message.outcome:
            case Raised(error=error, traceback=traceback):
                return self._fail(running, Reason.EXCEPTION, error, traceback)
            case Died(how=how):
                return self._fail(running, Reason.WORKER_DIED, how)
            case Returned(metrics=metrics, model_id=model_id) if not running.stopped:
                return self._judge(running, metrics, model_id)
            case Pruned(model_id=model_id) | Returned(model_id=model_id):
                last = next(reversed(running.reports.values()), None)
                return self._close(running, state=TrialState.PRUNED, value=last, model_id=model_id)

    def _judge(self, running: _Running, metrics: Mapping[str, float], model_id: str | None) -> FrozenTrial:
        """COMPLETE with a finite value of the study's metric, else FAILED."""
        running.metrics = dict(metrics)
        value = metrics.get(self._metric)
        if value is None:
            returned = ", ".join(metrics) or "nothing"
            error = f"the objective must return the metric '{self._metric}', but it returned {returned}"
            return self._fail(running, Reason.MISSING_METRIC, error)
        if not is_finite(value):
            return self._fail(running, Reason.NAN, f"the metric '{self._metric}' must be finite, but it is {value}")
        return self._close(running, state=TrialState.COMPLETE, value=value, model_id=model_id)

    def _fail(self, running: _Running, reason: Reason, error: str, traceback: str | None = None) -> FrozenTrial:
        self.last_error = error
        return self._close(running, state=TrialState.FAILED, reason=reason, traceback=traceback or f"{error}\n")

    def _close(
        self,
        running: _Running,
        *,
        state: TrialState,
        value: float | None = None,
        reason: Reason | None = None,
        model_id: str | None = None,
        traceback: str | None = None,
    ) -> FrozenTrial:
        trial = replace(
            running.frozen,
            state=state,
            value=value,
            reason=reason,
            model_id=model_id,
            metrics=dict(running.metrics),
            reports=dict(running.reports),
            duration=time.monotonic() - running.started,
        )
        self._tracker.end_trial(trial, traceback=traceback)
        del self._running[trial.number]
        self.trials.append(trial)
        self._keep_best(trial)
        self.gave_up = state is TrialState.FAILED and (self.gave_up or self._all_first_failed())
        self._watch(trial)
        return trial

    def _keep_best(self, trial: FrozenTrial) -> None:
        if trial.state is not TrialState.COMPLETE or trial.value is None:
            return
        tied_earlier = self.best is not None and trial.value == self.best.value and trial.number < self.best.number
        if tied_earlier or self._direction.better(trial.value, self.best.value if self.best else None):
            self.best = trial
            self._tracker.log_best(trial)

    def _all_first_failed(self) -> bool:
        if len(self.trials) != min(_GIVE_UP_AFTER, self._budget.n_trials):
            return False
        return all(trial.state is TrialState.FAILED for trial in self.trials)
