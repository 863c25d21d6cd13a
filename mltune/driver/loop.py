"""The one process that owns a study: its budget, its workers' answers and the life of every run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from mltune._util.signals import Signals, Stop
from mltune.driver.attempts import Attempts
from mltune.engines import Report
from mltune.execution import Executor
from mltune.messages import Died, Ended, Pruned, Raised, Reported, Returned, Task, TimedOut
from mltune.search import trial_seed
from mltune.space import Params
from mltune.tracking.runs import Tracker
from mltune.trial import Direction, FrozenTrial, Reason, TrialState, best_of, is_finite

_GIVE_UP_AFTER = 5  # first trials that all failed
_SIGNAL_GRACE = 5.0  # seconds at most: who sends SIGTERM often sends SIGKILL ten seconds later
_LOOK_AROUND = 0.25  # seconds between looks at the clock
_SHORT = 2.0  # seconds: the store takes less than a hundredth of that to make a run


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much a study may use.

    Attributes:
        n_trials: Trials in all.
        n_jobs: Trials at once.
        timeout: Seconds, in all sessions, after which no trial is started; None for no limit.
        grace: Seconds that running trials then have to end.
    """

    n_trials: int
    n_jobs: int
    timeout: float | None = None
    grace: float = 30.0


class Watcher(Protocol):
    """Told of what happens to trials."""

    def trial_changed(self, trial: FrozenTrial) -> None:
        """A trial was given to a worker, or its end is written."""

    def note(self, text: str) -> None:
        """Something that the user should know."""


@dataclass
class _Running:
    """A trial in flight; ``frozen.reports`` is a live view of ``reports``, and its run id None until it has a run."""

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
        attempts: Those of earlier sessions.
        metric: The study's metric.
        direction: Which values are better.
        seed: The study's seed.
        watcher: Told of what happens to trials.
        attend: Called several times a second.
        signals: The first one lets running trials end within a short grace, the second ends all at once.
    """

    def __init__(
        self,
        tracker: Tracker,
        executor: Executor,
        *,
        budget: Budget,
        attempts: Attempts,
        metric: str,
        direction: Direction,
        seed: int,
        watcher: Watcher,
        attend: Callable[[], None],
        signals: Signals,
    ) -> None:
        self._tracker = tracker
        self._executor = executor
        self._budget = budget
        self._attempts = attempts
        self._metric = metric
        self._direction = direction
        self._seed = seed
        self._watcher = watcher
        self._attend = attend
        self._signals = signals
        self._running: dict[int, _Running] = {}
        self._done = {trial.number for trial in attempts.finished()}
        self._next = 0
        self._states: list[TrialState] = []  # of the trials that ended in this session, until one succeeds
        self._succeeded = False
        self._stop_at: float | None = None
        self._last_duration = math.inf  # of the trial that ended last, in seconds
        self.trials: list[FrozenTrial] = list(attempts.finished())
        self.best = best_of(self.trials, direction)
        self.last_error: str | None = None
        self.gave_up = False

    def next_number(self) -> int | None:
        return self._upcoming() if len(self._running) < self._budget.n_jobs else None

    def start(self, number: int, params: Params) -> None:
        self._next = number + 1
        self._start_attempt(number, params)
        self._reserve()

    def wait(self) -> Report | FrozenTrial | None:
        self._look_around()
        while self._running:
            message = self._executor.next(_LOOK_AROUND)
            if message is not None:
                event = self._on_end(message) if isinstance(message, Ended) else self._on_report(message)
                if event is not None:
                    return event
            self._look_around()
        return None

    def answer(self, report: Report, *, stop: bool) -> None:
        self._running[report.trial.number].stopped |= stop
        self._executor.answer(report.trial.number, stop=stop)

    def interrupt(self) -> None:
        """Close the trials in flight as INTERRUPTED; their workers must be gone or cut off."""
        for running in list(self._running.values()):
            if running.frozen.run_id is not None:
                self._close(running, state=TrialState.INTERRUPTED)
            else:
                del self._running[running.frozen.number]
                self._tracker.drop_trial(running.frozen)

    def _upcoming(self) -> int | None:
        """The number of the trial to start next, None if there is none."""
        while self._next in self._done:
            self._next += 1
        return self._next if self._next < self._budget.n_trials and self._asking() else None

    def _reserve(self) -> None:
        """Have the next trial's run made ahead, where trials are so short that its making would tell."""
        number = self._upcoming() if self._last_duration < _SHORT else None
        if number is not None and self._attempts.count(number) == 0:
            self._tracker.reserve_trial(number)

    def _asking(self) -> bool:
        """Whether trials may still be started."""
        timeout = self._budget.timeout
        in_time = timeout is None or self._tracker.elapsed < timeout
        return in_time and not self.gave_up and self._signals.received is None

    def _look_around(self) -> None:
        """Attend to all but the workers' messages.

        Raises:
            Stop: A signal came, and its grace is over.
            StoreError: The record cannot be written.
        """
        self._tracker.settle()
        self._attend()
        if self._signals.received is not None:
            self._heed(self._signals.received)
        timeout, grace = self._budget.timeout, self._budget.grace
        if timeout is not None and self._running and self._tracker.elapsed > timeout + grace:
            self._watcher.note(f"the timeout is over since {grace:g} s: the trials that still run are interrupted")
            self._executor.close()
            self.interrupt()

    def _heed(self, signum: int) -> None:
        now = time.monotonic()
        if self._stop_at is None:
            grace = min(self._budget.grace, _SIGNAL_GRACE)
            self._stop_at = now + grace
            if self._running and not self._signals.insisted:
                self._watcher.note(f"stopping: running trials have {grace:g} s to end; a second signal stops at once")
        if self._signals.insisted or now >= self._stop_at:
            raise Stop(signum)

    def _start_attempt(self, number: int, params: Params) -> None:
        reports: dict[int, float] = {}
        trial = FrozenTrial(
            number=number,
            attempt=self._attempts.count(number) + 1,
            params=params,
            seed=trial_seed(self._seed, number),
            reports=reports,
        )
        running = self._running[number] = _Running(trial, time.monotonic(), reports)
        first = self._attempts.first_run(number)
        self._tracker.start_trial(trial, first, then=lambda run_id: self._submit(running, run_id))

    def _submit(self, running: _Running, run_id: str) -> None:
        """The trial's run exists: let its objective begin."""
        trial = running.frozen = replace(running.frozen, run_id=run_id)
        if self._running.get(trial.number) is not running:
            return  # it was interrupted before it began
        running.started = time.monotonic()
        self._executor.submit(
            Task(
                number=trial.number,
                params=trial.params,
                seed=trial.seed,
                run_id=run_id,
                experiment_id=self._tracker.experiment_id,
            )
        )
        self._watcher.trial_changed(trial)

    def _on_report(self, message: Reported) -> Report | None:
        running = self._running.get(message.number)
        if running is None or running.frozen.run_id is None:
            return None  # a thread that the objective left behind
        run_id = running.frozen.run_id
        self._tracker.log_report(run_id, message.step, message.metrics, message.timestamp)
        running.metrics.update(message.metrics)
        if self._metric not in message.metrics:
            self._executor.answer(message.number, stop=False)
            return None
        running.reports[message.step] = message.metrics[self._metric]
        return Report(running.frozen, message.step)

    def _on_end(self, message: Ended) -> FrozenTrial | None:
        running = self._running[message.number]
        self._tracker.add_cost(message.cost.seconds, message.cost.size)
        match message.outcome:
            case Raised(error=error, traceback=traceback):
                return self._fail(running, Reason.EXCEPTION, error, traceback)
            case TimedOut(traceback=traceback):
                return self._fail(running, Reason.TIMEOUT, "the trial took longer than `trial_timeout`", traceback)
            case Died() if self._signals.received is not None:  # the signal came to the worker, too
                self._close(running, state=TrialState.INTERRUPTED)
                return None
            case Died(how=how, traceback=traceback):
                return self._fail(running, Reason.WORKER_DIED, how, traceback)
            case Returned(metrics=metrics, model_id=model_id) if not running.stopped:
                return self._judge(running, metrics, model_id)
            case Pruned(model_id=model_id) | Returned(model_id=model_id):
                last = next(reversed(running.reports.values()), None)
                return self._close(running, state=TrialState.PRUNED, value=last, model_id=model_id)

    def _judge(self, running: _Running, metrics: Mapping[str, float], model_id: str | None) -> FrozenTrial | None:
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

    def _fail(self, running: _Running, reason: Reason, error: str, traceback: str = "") -> FrozenTrial | None:
        """FAILED; None where the trial is tried again."""
        self.last_error = error
        text = traceback if reason is Reason.EXCEPTION else f"{error}\n{traceback}"
        return self._close(running, state=TrialState.FAILED, reason=reason, traceback=text)

    def _close(
        self,
        running: _Running,
        *,
        state: TrialState,
        value: float | None = None,
        reason: Reason | None = None,
        model_id: str | None = None,
        traceback: str | None = None,
    ) -> FrozenTrial | None:
        self._last_duration = time.monotonic() - running.started
        trial = replace(
            running.frozen,
            state=state,
            value=value,
            reason=reason,
            model_id=model_id,
            metrics=dict(running.metrics),
            reports=dict(running.reports),
            duration=self._last_duration,
        )
        del self._running[trial.number]
        self._attempts.add(trial)
        again = self._asking() and self._attempts.may_try_again(trial.number)
        self._tracker.end_trial(trial, traceback=traceback, then=lambda: self._tell_ended(trial, again=again))
        self._keep_best(trial)
        if again:
            self._start_attempt(trial.number, trial.params)
            return None
        self._count(trial)
        return trial

    def _tell_ended(self, trial: FrozenTrial, *, again: bool) -> None:
        if again:
            self._watcher.note(f"trial {trial.number} FAILED ({trial.reason}) and is tried again")
        else:
            self._watcher.trial_changed(trial)

    def _count(self, trial: FrozenTrial) -> None:
        self.trials.append(trial)
        self._succeeded |= trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if not self._succeeded:
            self._states.append(trial.state)
        first = min(_GIVE_UP_AFTER, self._budget.n_trials)
        self.gave_up = not self._succeeded and self._states[:first] == [TrialState.FAILED] * first

    def _keep_best(self, trial: FrozenTrial) -> None:
        rivals = [trial] if self.best is None else sorted([self.best, trial], key=lambda each: each.number)
        beaten: FrozenTrial | None = trial
        if best_of(rivals, self._direction) is trial:
            self.best, beaten = trial, self.best
            self._tracker.log_best(trial, len(self.trials))
        if beaten is not None and self._signals.received is None:  # else closing the runs comes first
            self._tracker.remove_models(beaten)
