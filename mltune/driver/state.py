"""What is known of a running study: its trials, counts, best trial and clock, all in one place."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mltune.search import trial_seed
from mltune.text import format_counts
from mltune.trial import FrozenTrial, Reason, TrialState

if TYPE_CHECKING:
    from mltune._util.timing import Stopwatch
    from mltune.config import StudyConfig
    from mltune.driver.attempts import Attempts
    from mltune.params import Params

_ABORT_AFTER = 5  # first trials that all failed


@dataclass
class RunningTrial:
    """An attempt in flight.

    Attributes:
        trial: Its record so far; ``trial.reports`` is a live view of ``reports``, and ``trial.run_id`` None until it
            has a run.
        reports: Step to reported study metric.
        started: When the objective was submitted, on the monotonic clock.
        metrics: The last value of each reported metric.
        stopped: Whether the scheduler has stopped it.
    """

    trial: FrozenTrial
    reports: dict[int, float]
    started: float = field(default_factory=time.monotonic)
    metrics: dict[str, float] = field(default_factory=dict)
    stopped: bool = False


class StudyState:
    """The state of a study: the driver's loop writes it; callbacks and the study's page read it.

    Args:
        config: The resolved study.
        attempts: The attempts of earlier sessions, to which those of this one are added.
        clock: Measures how long the study has been running, earlier sessions included.

    Attributes:
        run_id: The parent run.
        experiment_id: Its experiment.
        tracking_uri: Its store.
        running: The attempts in flight, by the number of their trial.
        trials: The trials that have ended: those of earlier sessions by number, then those of this one as they end.
        states: The number of trials that used up budget, by state.
        best: The best COMPLETE trial, or None if there is none.
        last_error: Why the last failed attempt of this session failed, or None if none has.
        aborted: Whether the study ends because its first trials all failed.
    """

    def __init__(
        self,
        config: StudyConfig,
        attempts: Attempts,
        clock: Stopwatch,
        *,
        run_id: str = "",
        experiment_id: str = "",
        tracking_uri: str = "",
    ) -> None:
        self.config = config
        self.attempts = attempts
        self.clock = clock
        self.run_id = run_id
        self.experiment_id = experiment_id
        self.tracking_uri = tracking_uri
        self.running: dict[int, RunningTrial] = {}
        self.trials: list[FrozenTrial] = list(attempts.finished())
        self.states = Counter(trial.state for trial in self.trials)
        self.best = config.goal.best(self.trials)
        self.last_error: str | None = None
        self.aborted = False
        self._finished = {trial.number for trial in self.trials}
        self._next = 0
        self._failures: list[TrialState] = []  # the states of this session's trials, until one of them succeeds
        self._has_succeeded = False
        self._done_before, self._opened = self.done, clock.session

    @property
    def done(self) -> int:
        """How many trials have used up budget."""
        return self.states.total()

    @property
    def elapsed(self) -> float:
        """Seconds that the study has been running, earlier sessions included."""
        return self.clock.elapsed

    @property
    def per_second(self) -> float | None:
        """Trials a second in this session, or None before the first one has ended."""
        ended = self.done - self._done_before
        return ended / max(self.clock.session - self._opened, 1e-6) if ended else None

    @property
    def left(self) -> float | None:
        """Seconds until the budget is used up, or None while that cannot be told."""
        timeout, n_trials = self.config.timeout, self.config.n_trials
        ends = [] if timeout is None else [max(0.0, timeout - self.elapsed)]
        if n_trials is not None and self.per_second is not None:
            ends.append(max(0, n_trials - self.done) / self.per_second)
        return min(ends) if ends else None

    @property
    def overdue(self) -> float:
        """Seconds since the timeout; 0 before it, or if there is none."""
        return 0.0 if self.config.timeout is None else max(0.0, self.elapsed - self.config.timeout)

    def format_counts(self) -> str:
        """Such as ``12 of 30 trials: 10 complete, 2 pruned``."""
        return format_counts(dict(self.states), self.config.n_trials)

    def upcoming(self) -> int | None:
        """The number of the trial to start next, or None if the budget allows no other."""
        while self._next in self._finished or self._next in self.running:
            self._next += 1
        n_trials = self.config.n_trials
        allowed = self.overdue == 0 and not self.aborted and (n_trials is None or self._next < n_trials)
        return self._next if allowed else None

    def begin(self, number: int, params: Params) -> FrozenTrial:
        """Begin the next attempt at a trial."""
        assert self.config.seed is not None
        reports: dict[int, float] = {}
        trial = FrozenTrial(
            number=number,
            attempt=self.attempts.count(number) + 1,
            params=params,
            seed=trial_seed(self.config.seed, number),
            reports=reports,
        )
        self.running[number] = RunningTrial(trial, reports)
        return trial

    def end(
        self,
        number: int,
        state: TrialState,
        *,
        value: float | None = None,
        metrics: Mapping[str, float] | None = None,
        reason: Reason | None = None,
        model_id: str | None = None,
    ) -> FrozenTrial:
        """End an attempt; its trial counts once :meth:`count` is told.

        Args:
            number: The number of the trial.
            state: Its final state.
            value: The study metric that counts.
            metrics: What the objective returned; by default the last reported values.
            reason: Why it FAILED.
            model_id: The last model that it logged.
        """
        running = self.running.pop(number)
        trial = replace(
            running.trial,
            state=state,
            value=value,
            reason=reason,
            model_id=model_id,
            metrics=dict(running.metrics if metrics is None else metrics),
            reports=dict(running.reports),
            duration=time.monotonic() - running.started,
        )
        self.attempts.add(trial)
        return trial

    def count(self, trial: FrozenTrial) -> None:
        """Count a trial that ended and is not tried again."""
        self.trials.append(trial)
        self._finished.add(trial.number)
        if trial.finished:
            self.states[trial.state] += 1
        self._has_succeeded |= trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        if not self._has_succeeded:
            self._failures.append(trial.state)
        first = min(_ABORT_AFTER, self.config.n_trials or _ABORT_AFTER)
        self.aborted = not self._has_succeeded and self._failures[:first] == [TrialState.FAILED] * first

    def challenge(self, trial: FrozenTrial) -> FrozenTrial | None:
        """Let a trial challenge the best one; return the one that is beaten, or None if there was no other.

        Of two that are equal the one with the lower number is the best.
        """
        rivals = [trial] if self.best is None else [self.best, trial]
        if self.config.goal.best(rivals) is not trial:
            return trial
        self.best, beaten = trial, self.best
        return beaten
