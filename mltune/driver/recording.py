"""What the loop needs of a tracker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mltune.messages import Event
    from mltune.trial import FrozenTrial


class TrialTracker(Protocol):
    """Records trials, in the order of the calls, some time later; :meth:`events` says what has been recorded.

    :class:`mltune.tracking.runs.Tracker` writes to MLflow; :class:`mltune.testing.MemoryTracker` keeps all in memory.
    """

    experiment_id: str

    def prefetch_trial(self, number: int) -> None:
        """Create the run of a trial's first attempt ahead of it."""

    def start_trial(self, trial: FrozenTrial, first: str | None) -> None:
        """Create the run of an attempt; ``first`` is the run of the first attempt if this is a later one."""

    def log_report(self, run_id: str, step: int, metrics: Mapping[str, float], timestamp: int) -> None:
        """Record the metrics of one step; ``timestamp`` is in milliseconds since 1970."""

    def end_trial(self, trial: FrozenTrial, *, traceback: str | None) -> None:
        """Record the outcome of an attempt, and close its run."""

    def add_cost(self, seconds: float, size: int) -> None:
        """Count what logging models took: seconds, and bytes."""

    def remove_models(self, trial: FrozenTrial) -> None:
        """Delete the models of a trial that was beaten, if only the best one's are kept."""

    def drop_trial(self, trial: FrozenTrial) -> None:
        """Delete the run of an attempt that never began."""

    def log_best(self, trial: FrozenTrial, step: int) -> None:
        """Record that a trial is the best so far; ``step`` is how many trials had finished before."""

    def events(self) -> Iterator[Event]:
        """Yield what has happened since the last time, without waiting."""
