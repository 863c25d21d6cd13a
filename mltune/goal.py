"""What a study searches for: the best value of a metric, and which trial has it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mltune.trial import Direction, FrozenTrial, final_value


@dataclass(frozen=True)
class Goal:
    """A metric, and whether smaller or larger values of it are better.

    >>> goal = Goal("loss", Direction.MINIMIZE)
    >>> str(goal), goal.better(0.1, 0.2)
    ('minimize loss', True)
    """

    metric: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.direction} {self.metric}"

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Goal:
        """Return the goal that a study's tags record."""
        return cls(tags["metric"], Direction(tags["direction"]))

    def to_tags(self) -> dict[str, str]:
        """Return the tags that record the goal."""
        return {"metric": self.metric, "direction": str(self.direction)}

    @property
    def worst(self) -> float:
        """The value that is worse than all finite ones: plus or minus infinity."""
        return math.inf if self.direction is Direction.MINIMIZE else -math.inf

    def better(self, value: float, than: float | None) -> bool:
        """Return whether ``value`` is strictly better than ``than``; any value is better than None."""
        return self.direction.better(value, than)

    def best(self, trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
        """Return the best COMPLETE trial, of equal ones that with the lowest number, or None if none is COMPLETE."""
        complete = (trial for trial in trials if final_value(trial) is not None)
        return min(complete, key=self._rank, default=None)

    def ranked(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Return the COMPLETE trials, the best first, then the others; equal ones are ordered by number."""
        return sorted(trials, key=self._rank)

    def improvements(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Return those COMPLETE trials that are better than all before them in the given order."""
        improvements: list[FrozenTrial] = []
        best: float | None = None
        for trial in trials:
            value = final_value(trial)
            if value is not None and self.better(value, best):
                best = value
                improvements.append(trial)
        return improvements

    def _rank(self, trial: FrozenTrial) -> tuple[bool, float, int]:
        """Return a sort key: the better the trial, the smaller."""
        value = final_value(trial)
        if value is None:
            return (True, 0.0, trial.number)
        return (False, value if self.direction is Direction.MINIMIZE else -value, trial.number)
