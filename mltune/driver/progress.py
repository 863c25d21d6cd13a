"""How far a study has come: counts, throughput and the time that is left; for displays and the study's page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from mltune.text import format_counts
from mltune.trial import Direction, FrozenTrial, TrialState, best_of


class Progress:
    """Counts the trials of a study.

    Args:
        direction: Which values are better.
        n_trials: Trials in all, None where only a timeout ends the study.
        timeout: Seconds in all, None for no limit.
        elapsed: Seconds that earlier sessions took.
        finished: The trials of earlier sessions.
    """

    def __init__(
        self,
        direction: Direction,
        *,
        n_trials: int | None,
        timeout: float | None = None,
        elapsed: float = 0.0,
        finished: Sequence[FrozenTrial] = (),
    ) -> None:
        self.n_trials = n_trials
        self.timeout = timeout
        self.states: Counter[TrialState] = Counter()
        self.running: set[int] = set()
        self.best: FrozenTrial | None = None
        self._direction = direction
        self._before = elapsed
        self._began = time.monotonic()
        for trial in finished:
            self._count(trial)
        self._at_begin = self.done

    def trial_changed(self, trial: FrozenTrial) -> None:
        """A trial was given to a worker, or its end is written."""
        if trial.state is TrialState.RUNNING:
            self.running.add(trial.number)
            return
        self.running.discard(trial.number)
        if trial.finished:
            self._count(trial)

    @property
    def done(self) -> int:
        """Trials that used up budget."""
        return self.states.total()

    @property
    def elapsed(self) -> float:
        """Seconds, those of earlier sessions included."""
        return self._before + time.monotonic() - self._began

    @property
    def per_second(self) -> float | None:
        """Trials a second in this session, None before the first one."""
        ended = self.done - self._at_begin
        return ended / max(time.monotonic() - self._began, 1e-6) if ended else None

    @property
    def left(self) -> float | None:
        """Seconds until the budget is used up, None while they cannot be told."""
        ends = [] if self.timeout is None else [max(0.0, self.timeout - self.elapsed)]
        if self.n_trials is not None and self.per_second is not None:
            ends.append(max(0, self.n_trials - self.done) / self.per_second)
        return min(ends) if ends else None

    def format_counts(self) -> str:
        """Such as ``12 of 30 trials: 10 complete, 2 pruned``."""
        return format_counts(dict(self.states), self.n_trials)

    def _count(self, trial: FrozenTrial) -> None:
        self.states[trial.state] += 1
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            rivals = [trial] if self.best is None else sorted([self.best, trial], key=lambda each: each.number)
            self.best = best_of(rivals, self._direction)
