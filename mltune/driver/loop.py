"""The one event loop of a study: it asks the engine, runs trials by the executor, and writes by the tracker."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mltune._util.signals import Signals, Stop
from mltune.messages import (
    Decision,
    Died,
    Ended,
    Event,
    Pruned,
    Raised,
    Reported,
    Returned,
    RunClosed,
    RunOpened,
    StoreDown,
    StoreUp,
    Task,
    TimedOut,
)
from mltune.trial import FrozenTrial, Reason, TrialState, is_finite

if TYPE_CHECKING:
    from mltune._util.timing import Timing
    from mltune.driver.events import Callback
    from mltune.driver.recording import TrialTracker
    from mltune.driver.state import StudyState
    from mltune.engines import Engine
    from mltune.execution import Executor
    from mltune.params import Params


@dataclass(frozen=True)
class Tick:
    """Time has passed: look at signals and at the timeout."""


class Loop:
    """Drives the trials of one study.

    Args:
        engine: Proposes trials and decides which stop.
        executor: Runs them; it has started.
        tracker: Writes the record; its parent run is open.
        state: What is known of the study.
        callback: Told of what happens.
        signals: The first one lets running trials end within a short grace, the second ends all at once.
        timing: Periods and grace times.
    """

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        tracker: TrialTracker,
        state: StudyState,
        *,
        callback: Callback,
        signals: Signals,
        timing: Timing,
    ) -> None:
        self._engine = engine
        self._executor = executor
        self._tracker = tracker
        self._state = state
        self._config = state.config
        self._callback = callback
        self._signals = signals
        self._timing = timing
        self._stop_at: float | None = None  # after a signal, on the monotonic clock
        self._last_duration = math.inf  # of the trial that ended last, in seconds

    def run(self) -> None:
        """Start trials until the budget is used up, and until all have ended.

        Raises:
            Stop: A signal came, and its grace is over.
            StoreError: The record cannot be written.
            ExecutorLostError: What runs the trials is gone.
        """
        self._start_trials()
        while self._state.running:
            for event in self._events():
                self.handle(event)
            self._start_trials()

    def handle(self, event: Event | Reported | Ended | Tick) -> None:
        """Do what an event asks for."""
        match event:
            case RunOpened():
                self._submit(event)
            case Reported():
                self._decide(event)
            case Ended():
                self._end(event)
            case RunClosed(trial=trial):
                self._acknowledge(trial)
            case StoreDown() | StoreUp():
                self._callback.on_note(str(event))
            case Tick():
                self._check_time()

    def interrupt(self) -> None:
        """Close the trials in flight as INTERRUPTED; their workers must be gone or cut off."""
        for running in list(self._state.running.values()):
            if running.trial.run_id is not None:
                self._close(running.trial.number, TrialState.INTERRUPTED)
            else:
                del self._state.running[running.trial.number]
                self._tracker.drop_trial(running.trial)

    def _events(self) -> Iterator[Event | Reported | Ended | Tick]:
        """Yield the tracker's events, then a tick, then the executor's next message if one comes in time."""
        yield from self._tracker.events()
        yield Tick()
        message = self._executor.next(self._timing.poll) if self._state.running else None
        if message is not None:
            yield message

    def _start_trials(self) -> None:
        while len(self._state.running) < self._config.n_jobs and (number := self._upcoming()) is not None:
            self._start(number, self._engine.propose(number))
            self._prefetch()

    def _upcoming(self) -> int | None:
        return self._state.upcoming() if self._signals.received is None else None

    def _start(self, number: int, params: Params) -> None:
        trial = self._state.begin(number, params)
        self._tracker.start_trial(trial, self._state.attempts.first_run(number))

    def _prefetch(self) -> None:
        """Have the next trial's run created ahead if trials are so short that its creation would show."""
        number = self._upcoming() if self._last_duration < self._timing.short_trial else None
        if number is not None and self._state.attempts.count(number) == 0:
            self._tracker.prefetch_trial(number)

    def _submit(self, event: RunOpened) -> None:
        """Let the objective begin, now that the trial's run exists."""
        running = self._state.running.get(event.number)
        if running is None or running.trial.attempt != event.attempt:
            return  # it was interrupted before it began
        trial = running.trial = replace(running.trial, run_id=event.run_id)
        running.started = time.monotonic()
        self._executor.submit(
            Task(
                number=trial.number,
                params=trial.params,
                seed=trial.seed,
                run_id=event.run_id,
                experiment_id=self._tracker.experiment_id,
            )
        )
        self._callback.on_trial_start(self._state, trial)

    def _decide(self, report: Reported) -> None:
        running = self._state.running.get(report.number)
        if running is None or running.trial.run_id is None:
            return  # a thread that the objective left behind
        self._tracker.log_report(running.trial.run_id, report.step, report.metrics, report.timestamp)
        running.metrics.update(report.metrics)
        decision = Decision.CONTINUE
        if self._config.metric in report.metrics:
            running.reports[report.step] = report.metrics[self._config.metric]
            decision = self._engine.decide(running.trial, report.step)
        running.stopped |= decision is Decision.STOP
        self._executor.answer(report.number, decision)

    def _end(self, message: Ended) -> None:
        """End a trial in one of six ways: COMPLETE, PRUNED, FAILED for one of three reasons, or INTERRUPTED."""
        number, running = message.number, self._state.running[message.number]
        self._tracker.add_cost(message.cost.seconds, message.cost.size)
        match message.outcome:
            case Raised(error=error, traceback=traceback):
                self._fail(number, Reason.EXCEPTION, error, traceback)
            case TimedOut(traceback=traceback):
                self._fail(number, Reason.TIMEOUT, "the trial took longer than `trial_timeout`", traceback)
            case Died() if self._signals.received is not None:  # the signal came to the worker, too
                self._close(number, TrialState.INTERRUPTED)
            case Died(how=how, traceback=traceback):
                self._fail(number, Reason.WORKER_DIED, how, traceback)
            case Returned() as returned if not running.stopped:
                self._judge(number, returned)
            case Pruned(model_id=model_id) | Returned(model_id=model_id):
                last = next(reversed(running.reports.values()), None)
                self._close(number, TrialState.PRUNED, value=last, model_id=model_id)

    def _judge(self, number: int, returned: Returned) -> None:
        """COMPLETE with a finite value of the study's metric, else FAILED."""
        metrics, metric = returned.metrics, self._config.metric
        value = metrics.get(metric)
        if value is None:
            given = ", ".join(metrics) or "nothing"
            error = f"the objective must return the metric '{metric}', but it returned {given}"
            self._fail(number, Reason.MISSING_METRIC, error, metrics=metrics)
        elif not is_finite(value):
            error = f"the metric '{metric}' must be finite, but it is {value}"
            self._fail(number, Reason.NAN, error, metrics=metrics)
        else:
            self._close(number, TrialState.COMPLETE, value=value, metrics=metrics, model_id=returned.model_id)

    def _fail(
        self, number: int, reason: Reason, error: str, traceback: str = "", metrics: Mapping[str, float] | None = None
    ) -> None:
        self._state.last_error = error
        text = traceback if reason is Reason.EXCEPTION else f"{error}\n{traceback}"
        self._close(number, TrialState.FAILED, reason=reason, metrics=metrics, traceback=text)

    def _close(self, number: int, state: TrialState, *, traceback: str | None = None, **ended: Any) -> None:
        """End an attempt, and begin the next one or count the trial."""
        trial = self._state.end(number, state, **ended)
        self._last_duration = trial.duration or 0.0
        retry = self._may_retry(trial)
        self._tracker.end_trial(trial, traceback=traceback)
        self._keep_best(trial)
        if retry:
            self._start(number, trial.params)
            return
        self._state.count(trial)
        if state is not TrialState.INTERRUPTED:
            self._engine.tell(trial)

    def _may_retry(self, trial: FrozenTrial) -> bool:
        state = self._state
        in_time = state.overdue == 0 and not state.aborted and self._signals.received is None
        return in_time and state.attempts.may_try_again(trial.number)

    def _keep_best(self, trial: FrozenTrial) -> None:
        n_before = len(self._state.trials)
        beaten = self._state.challenge(trial)
        if self._state.best is trial:
            self._tracker.log_best(trial, n_before)
            self._callback.on_new_best(self._state, trial)
        if beaten is not None and self._signals.received is None:  # else closing the runs comes first
            self._tracker.remove_models(beaten)

    def _acknowledge(self, trial: FrozenTrial) -> None:
        if self._state.attempts.count(trial.number) > trial.attempt or trial.number in self._state.running:
            self._callback.on_note(f"trial {trial.number} FAILED ({trial.reason}) and is tried again")
        else:
            self._callback.on_trial_end(self._state, trial)

    def _check_time(self) -> None:
        """Handle a signal, and end trials that go on too long after the timeout.

        Raises:
            Stop: A signal came, and its grace is over.
        """
        self._callback.on_tick(self._state)
        if self._signals.received is not None:
            self._handle_signal(self._signals.received)
        grace = self._config.grace_period
        if self._state.running and self._state.overdue > grace:
            self._callback.on_note(f"the timeout ended {grace:g} s ago: the trials that still run are interrupted")
            self._executor.close()
            self.interrupt()

    def _handle_signal(self, signum: int) -> None:
        now = time.monotonic()
        if self._stop_at is None:
            grace = min(self._config.grace_period, self._timing.signal_grace)
            self._stop_at = now + grace
            if self._state.running and not self._signals.insisted:
                self._callback.on_note(
                    f"stopping: running trials have {grace:g} s to end; a second signal stops at once"
                )
        if self._signals.insisted or now >= self._stop_at:
            raise Stop(signum)
