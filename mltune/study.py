"""A study, read from its runs: running, failed, interrupted or finished, of any age and of any machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow import MlflowClient
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mltune._util.redaction import redact
from mltune.errors import RequestError
from mltune.goal import Goal
from mltune.text import format_counts
from mltune.tracking import outputs
from mltune.tracking.connection import Store
from mltune.tracking.cost import TrackingCost
from mltune.tracking.registration import Registration
from mltune.trial import Direction, FrozenTrial, TrialState

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study as it was when it was read; :func:`mltune.load_study` reads it anew.

    All that it loads comes from the study's own store, whatever the process's tracking URI and working folder are.

    Attributes:
        run_id: The parent run.
        name: The study's name.
        goal: The metric that decides, and which of its values are better.
        state: RUNNING, COMPLETE, FAILED or INTERRUPTED.
        is_driven: Whether a driver is at work on it; a RUNNING study without one was killed.
        reason: Why it FAILED, or None.
        trials: The last attempt at each trial, in the order of the numbers.
        n_trials: Trials in all that it may use, or None if only a timeout ends it.
        elapsed: Seconds that it has been running, in all its sessions.
        registration: The model version that this session has registered, or None.
        warnings: What about the study's set-up is worth a look, with a remedy each; only of a study that has just
            ended, see ``docs/browse-compare-serve.md``.
        cost: What keeping the record took.
    """

    run_id: str
    experiment_id: str
    name: str
    goal: Goal
    state: TrialState
    trials: tuple[FrozenTrial, ...]
    store: Store = field(repr=False, compare=False)
    is_driven: bool = False
    reason: str | None = None
    n_trials: int | None = None
    elapsed: float = 0.0
    registration: Registration | None = None
    warnings: tuple[str, ...] = ()
    cost: TrackingCost = field(default_factory=TrackingCost)

    @property
    def metric(self) -> str:
        """The metric that decides."""
        return self.goal.metric

    @property
    def direction(self) -> Direction:
        """Whether smaller or larger values of it are better."""
        return self.goal.direction

    @property
    def best_trial(self) -> FrozenTrial:
        """The COMPLETE trial with the best value; of equal ones the first.

        Raises:
            RequestError: No trial is COMPLETE.
        """
        best = self.goal.best(self.trials)
        if best is None:
            raise RequestError(f"a trial must be COMPLETE to be the best, but of study {self.run_id} none is")
        return best

    @property
    def params(self) -> Mapping[str, Any]:
        """The params of the best trial; errors as of :attr:`best_trial`."""
        return self.best_trial.params

    @property
    def progress(self) -> str:
        """How far it has come, such as ``12 of 30 trials: 10 complete, 2 pruned``."""
        return format_counts(Counter(trial.state for trial in self.trials if trial.finished), self.n_trials)

    @property
    def url(self) -> str | None:
        """Its page in MLflow, or None if the store is no server."""
        if not self.store.uri.startswith(("http://", "https://")):
            return None
        return f"{redact(self.store.uri).rstrip('/')}/#/experiments/{self.experiment_id}/runs/{self.run_id}"

    def to_dataframe(self) -> pd.DataFrame:
        """One row per trial: number, state, value, ``params.*``, ``metrics.*``, duration in seconds, run_id."""
        import pandas as pd

        rows = [
            {"number": trial.number, "state": str(trial.state), "value": trial.value}
            | {f"params.{name}": value for name, value in trial.params.items()}
            | {f"metrics.{name}": value for name, value in trial.metrics.items()}
            | {"duration": trial.duration, "run_id": trial.run_id}
            for trial in self.trials
        ]
        return pd.DataFrame(rows)

    def load_best_model(self) -> Any:
        """Load the best trial's model as ``mlflow.pyfunc`` does.

        Raises:
            RequestError: No trial is COMPLETE, or the best one logged no model.
        """
        client = self.store.client
        return mlflow.pyfunc.load_model(_download(client, outputs.model_of(client, self.best_trial)))


StudyResult = Study
"""The name of :class:`Study` in the first release."""


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """A study in a list, read from its parent run alone.

    Attributes:
        is_driven: Whether a driver is at work on it; a RUNNING study without one was killed.
        started: When it began, in seconds since 1970.
        best_value: The best value so far, or None.
    """

    run_id: str
    name: str
    experiment: str
    state: TrialState
    is_driven: bool
    started: float
    metric: str | None
    direction: Direction | None
    best_value: float | None
    best_run_id: str | None
    engine: str | None
    algorithm: str | None


def _download(client: MlflowClient, model_id: str) -> str:
    """Download a LoggedModel and return its local path.

    MLflow looks ``models:/`` addresses up in the process's global store, which may not be the client's.
    """
    location = client.get_logged_model(model_id).artifact_location
    files = get_artifact_repository(location, tracking_uri=client.tracking_uri)
    return str(files.download_artifacts(""))
