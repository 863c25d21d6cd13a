"""Attempts: how often each trial of a study was tried, and whether it is to be tried again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mltune.trial import FrozenTrial, TrialState


class Attempts:
    """The attempts that have ended, by the number of their trial.

    Args:
        retries: How often a trial that failed is tried again, by the reason.
        past: The attempts of earlier sessions, in their order.
    """

    def __init__(self, retries: Mapping[str, int], past: Mapping[int, Sequence[FrozenTrial]]) -> None:
        self._retries = retries
        self._ended = {number: list(attempts) for number, attempts in past.items()}

    def add(self, trial: FrozenTrial) -> None:
        """An attempt has ended."""
        self._ended.setdefault(trial.number, []).append(trial)

    def count(self, number: int) -> int:
        """How many attempts there were."""
        return self._ended[number][-1].attempt if number in self._ended else 0

    def first_run(self, number: int) -> str | None:
        """The run of the first attempt, None before it."""
        return self._ended[number][0].run_id if number in self._ended else None

    def runs(self) -> set[str]:
        """The runs of all attempts."""
        return {str(trial.run_id) for attempts in self._ended.values() for trial in attempts}

    def may_try_again(self, number: int) -> bool:
        """Whether the last attempt failed for a reason that is forgiven once more."""
        last = self._ended[number][-1]
        if last.state is not TrialState.FAILED or last.reason is None:
            return False
        failures = sum(each.reason is last.reason for each in self._ended[number])
        return failures <= self._retries.get(last.reason, 0)

    def finished(self) -> tuple[FrozenTrial, ...]:
        """The trials that need no further attempt, in the order of their numbers."""
        return tuple(
            attempts[-1]
            for number, attempts in sorted(self._ended.items())
            if attempts[-1].finished and not self.may_try_again(number)
        )

    def unfinished(self) -> tuple[FrozenTrial, ...]:
        """The last attempts of the other trials, in the order of their numbers."""
        done = {trial.number for trial in self.finished()}
        return tuple(attempts[-1] for number, attempts in sorted(self._ended.items()) if number not in done)
