"""The data of a study that its report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mltune.report._importance import importances
from mltune.report._lint import lint
from mltune.search import FINITE
from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.config import StudyConfig
    from mltune.goal import Goal
    from mltune.params import Params
    from mltune.space import SearchSpace
    from mltune.tracking.reader import StudyRecord


@dataclass(frozen=True, kw_only=True)
class View:
    """A study, read from its runs and, if it is readable, its study file.

    Attributes:
        record: What the runs of the study and of its trials hold.
        trials: The last attempt at each trial, with its reports if they were read.
        space: The search space, or the smallest one that contains all trials if the study file cannot be read.
        n_jobs: The number of trials that run at once.
        initial_points: The hand-picked points.
        finite: Whether the number of points is fixed, as in a grid.
        n_trials: The total number of trials that the study may use, or None if that is unlimited or unknown.
    """

    record: StudyRecord
    trials: Sequence[FrozenTrial]
    space: SearchSpace
    n_jobs: int = 1
    n_trials: int | None = None
    initial_points: Sequence[Params] = ()
    finite: bool = False

    @classmethod
    def from_config(cls, record: StudyRecord, trials: Sequence[FrozenTrial], config: StudyConfig) -> View:
        """Make a view of a study whose settings are known."""
        return cls(
            record=record,
            trials=trials,
            space=config.space,
            n_jobs=config.n_jobs,
            n_trials=config.n_trials,
            initial_points=config.initial_points,
            finite=config.algorithm.name in FINITE,
        )

    @property
    def goal(self) -> Goal:
        return self.record.goal

    @property
    def ranked(self) -> list[FrozenTrial]:
        """The COMPLETE trials, the best first, then the others by number."""
        return self.goal.ranked(self.trials)

    @property
    def failures(self) -> dict[str, int]:
        """The number of failed attempts by reason, including those that were retried."""
        attempts = (trial for trials in self.record.attempts.values() for trial in trials)
        return dict(Counter(str(trial.reason) for trial in attempts if trial.state is TrialState.FAILED))

    @property
    def importances(self) -> dict[str, float]:
        """The importance of each parameter, see :func:`mltune.report._importance.importances`."""
        return importances(self.trials, self.space, self.goal)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The warnings of :func:`mltune.report.lint`."""
        unfinished = self.record.tags.get("state") != TrialState.COMPLETE
        return lint(
            self.trials,
            self.space,
            self.goal,
            initial_points=self.initial_points,
            finite=self.finite,
            planned=self.n_trials or 0 if unfinished else 0,
        )
