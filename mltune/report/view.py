"""The data of a study that its report shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient

from mltune.engines import FINITE
from mltune.report._importance import importances
from mltune.report._lint import lint
from mltune.space import Params, SearchSpace
from mltune.space.categorical import Categorical
from mltune.space.ranges import Float
from mltune.studies import read_config
from mltune.tracking import reader
from mltune.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from mltune.goal import Goal
    from mltune.space.parameter import Parameter
    from mltune.tracking.reader import StudyRecord


@dataclass(frozen=True, kw_only=True)
class View:
    """A study, read from its runs and its study file.

    Attributes:
        trials: The last attempt at each trial, with its reports.
        n_jobs: The number of trials that run at once.
        initial_points: The hand-picked points.
        enumerated: Whether all points were known beforehand.
        n_trials: The total number of trials that the study may use, or None if only a timeout ends it.
    """

    record: StudyRecord
    trials: Sequence[FrozenTrial]
    space: SearchSpace
    n_jobs: int = 1
    n_trials: int | None = None
    initial_points: Sequence[Params] = ()
    enumerated: bool = False

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
            enumerated=self.enumerated,
            planned=self.n_trials or 0 if unfinished else 0,
        )


def read_view(client: MlflowClient, run_id: str, *, reports: bool = True, known: Iterable[FrozenTrial] = ()) -> View:
    """Read a study for a report; if its study file cannot be read, the view is built from the trials alone.

    Args:
        client: A client of the tracking store.
        run_id: The id of the parent run.
        reports: Whether to read the trials' reports, which takes one call for each trial that made some.
        known: Trials whose reports are known and need not be read.

    Raises:
        RequestError: The run does not exist or is not a study.
    """
    record = reader.read_study(client, run_id)
    trials = list(record.trials)
    if reports:
        cached = {trial.run_id: trial.reports for trial in known}
        trials = [replace(trial, reports=cached.get(trial.run_id, {})) for trial in trials]
        read = reader.read_reports(client, record, [trial for trial in trials if trial.run_id not in cached])
        trials = sorted([*(trial for trial in trials if trial.run_id in cached), *read], key=lambda trial: trial.number)
    config = read_config(client, run_id)
    if config is None:
        return View(record=record, trials=trials, space=seen_space(trials))
    return View(
        record=record,
        trials=trials,
        space=config.space,
        n_jobs=config.n_jobs,
        n_trials=config.n_trials,
        initial_points=config.initial_points,
        enumerated=config.algorithm.name in FINITE,
    )


def seen_space(trials: Sequence[FrozenTrial]) -> SearchSpace:
    """Return the smallest space that contains all trials, for drawing; without trials, a space of one point."""
    values: dict[str, list[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, []).append(value)
    return SearchSpace({name: _around(seen) for name, seen in values.items()} or {"-": Categorical(["-"])})


def _around(seen: Sequence[Any]) -> Parameter:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in seen):
        return Float(min(seen), max(seen))
    return Categorical(list({(type(value), value): value for value in seen}.values()))
