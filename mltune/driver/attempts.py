"""The attempts at each trial of a study, and whether it is retried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mltune.trial import FrozenTrial, TrialState


class Attempts:
    """The ended attempts, by trial number.

    Args:
        retries: How often a failed trial is retried, by the reason of the failure.
        past: The attempts of earlier sessions, in order.
    """

    def __init__(self, retries: Mapping[str, int], past: Mapping[int, Sequence[FrozenTrial]]) -> None:
        self._retries = retries
        self._ended = {number: list(attempts) for number, attempts in past.items()}

    def add(self, trial: FrozenTrial) -> None:
        """Add an attempt that has ended."""
        self._ended.setdefault(trial.number, []).append(trial)

    def count(self, number: int) -> int:
        """Return the number of attempts at a trial."""
        return self._ended[number][-1].attempt if number in self._ended else 0

    def first_run(self, number: int) -> str | None:
        """Return the run id of the first attempt, or None before it."""
        return self._ended[number][0].run_id if number in self._ended else None

    def runs(self) -> set[str]:
        """Return the run ids of all attempts."""
        return {str(trial.run_id) for attempts in self._ended.values() for trial in attempts}

    def may_try_again(self, number: int) -> bool:
        """Return whether the last attempt failed for a reason that allows another retry."""
        last = self._ended[number][-1]
        if last.state is not TrialState.FAILED or last.reason is None:
            return False
        failures = sum(each.reason is last.reason for each in self._ended[number])
        return failures <= self._retries.get(last.reason, 0)

    def finished(self) -> tuple[FrozenTrial, ...]:
        """Return the last attempts of trials that need no further attempt, by number."""
        return tuple(
            attempts[-1]
            for number, attempts in sorted(self._ended.items())
            if attempts[-1].finished and not self.may_try_again(number)
        )

    def unfinished(self) -> tuple[FrozenTrial, ...]:
        """Return the last attempts of all other trials, by number."""
        done = {trial.number for trial in self.finished()}
        return tuple(attempts[-1] for number, attempts in sorted(self._ended.items()) if number not in done)
