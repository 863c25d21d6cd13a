"""Read studies from the tracking store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow import MlflowClient
from mlflow.entities import Run

from mltune.config import StudyConfig, read_yaml, validate
from mltune.errors import RequestError
from mltune.study import Study, StudySummary
from mltune.tracking import reader
from mltune.tracking.cost import TrackingCost
from mltune.tracking.tags import own_tags
from mltune.trial import Direction, TrialState

if TYPE_CHECKING:
    from mltune.tracking.connection import Store
    from mltune.tracking.reader import StudyRecord


def read_study(store: Store, run_id: str) -> Study:
    """Read a study and all its trials, without what they reported.

    Raises:
        RequestError: There is no such run, or it is no study.
    """
    record = reader.read_study(store.client, run_id)
    return from_record(record, store, read_config(store.client, run_id))


def from_record(record: StudyRecord, store: Store, config: StudyConfig | None) -> Study:
    """Make a study of what was read of it.

    Args:
        record: Its runs.
        store: Where they are.
        config: Its study file, or None if that cannot be read.
    """
    tags = record.tags
    return Study(
        run_id=record.run_id,
        experiment_id=record.experiment_id,
        name=record.name,
        goal=record.goal,
        state=TrialState(tags.get("state", "RUNNING")),
        is_driven=record.is_driven,
        reason=tags.get("reason"),
        trials=record.trials,
        store=store,
        n_trials=config.n_trials if config is not None else None,
        elapsed=float(tags.get("elapsed_s", 0.0)),
        cost=TrackingCost.from_tags(tags),
    )


def list_studies(store: Store, experiment: str | None = None) -> list[StudySummary]:
    """Read the studies of an experiment, or of all of them, the latest first.

    Raises:
        RequestError: There is no such experiment.
    """
    return [_summary(run, name) for run, name in reader.study_runs(store.client, experiment)]


def _summary(run: Run, experiment: str) -> StudySummary:
    tags = own_tags(run)
    return StudySummary(
        run_id=run.info.run_id,
        name=run.info.run_name,
        experiment=experiment,
        state=TrialState(tags.get("state", "RUNNING")),
        is_driven=reader.is_driven(run.info.run_id, tags),
        started=run.info.start_time / 1000,
        metric=tags.get("metric"),
        direction=Direction(tags["direction"]) if "direction" in tags else None,
        best_value=float(tags["best_value"]) if "best_value" in tags else None,
        best_run_id=tags.get("best_run_id"),
        engine=tags.get("engine"),
        algorithm=tags.get("algorithm"),
    )


def read_config(client: MlflowClient, run_id: str) -> StudyConfig | None:
    """Read the study file of a study, or return None if it cannot be read."""
    try:
        return validate(read_yaml(reader.read_study_file(client, run_id), f"study.yaml of run {run_id}"))
    except RequestError:
        return None
