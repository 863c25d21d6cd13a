"""Delete models that a study no longer needs, or a whole study."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mltune.errors import RequestError
from mltune.retry import is_transient
from mltune.tracking.reader import is_driven, parent_run, search_all
from mltune.tracking.tags import own_tags


def remove_models(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    """Delete a run's LoggedModels, incomplete ones included, and their files; keep registered models. Idempotent."""
    for model in list(_models(client, experiment_id, f"source_run_id = '{run_id}'")):
        _remove(client, model)


def remove_beaten_models(client: MlflowClient, experiment_id: str, trials: Collection[str], best: str | None) -> None:
    """Delete the models that :func:`remove_models` had not deleted yet when a driver was killed.

    Args:
        client: A client of the store.
        experiment_id: The study's experiment.
        trials: The runs of the study's trials.
        best: The run whose models are kept, or None.
    """
    for model in list(_models(client, experiment_id)):
        if model.source_run_id in trials and model.source_run_id != best:
            _remove(client, model)


@dataclass(frozen=True)
class Removed:
    """What remains of a deleted study.

    Attributes:
        kept: Runs with registered models; their models and artifacts are kept, too.
        undeleted: Locations of artifacts that the store did not delete.
    """

    kept: list[str]
    undeleted: list[str]


def remove_study(client: MlflowClient, run_id: str) -> Removed:
    """Delete a study: its parent run, the runs of its trials, all runs nested in them, their models and artifacts.

    Runs with registered models are kept, with all their models and artifacts. If the deletion is interrupted, call
    this again to complete it.

    Raises:
        RequestError: The run does not exist, is not a study, is deleted, or a driver is working on the study.
    """
    parent = parent_run(client, run_id)
    if is_driven(run_id, own_tags(parent)):
        raise RequestError(f"a study must have no driver to be deleted, but one is at work on {run_id}: stop it")
    experiment_id = str(parent.info.experiment_id)
    runs = [*_below(client, experiment_id, run_id), parent]
    ids = {str(run.info.run_id) for run in runs}
    models = [model for model in _models(client, experiment_id) if model.source_run_id in ids]
    kept = ids & _registered(client, models)
    undeleted: list[str] = []
    for model in models:
        if model.source_run_id not in kept:
            undeleted += _remove(client, model)
    for run in runs:
        if run.info.run_id not in kept:
            undeleted += _delete_artifacts(client, str(run.info.artifact_uri))
            client.delete_run(run.info.run_id)
    return Removed(sorted(kept), undeleted)


def _registered(client: MlflowClient, models: Collection[LoggedModel]) -> set[str]:
    """Return the runs of registered models: the run that a version names, and that of the model in its source."""
    sources = {model.model_id: str(model.source_run_id) for model in models}
    runs: set[str] = set()
    token = None
    while True:
        page = client.search_model_versions(page_token=token)
        for version in page:
            runs.add(str(version.run_id))
            runs.update(sources[part] for part in str(version.source).split("/") if part in sources)
        token = page.token
        if not token:
            return runs


def _below(client: MlflowClient, experiment_id: str, run_id: str) -> Iterator[Run]:
    """Yield the runs nested in a run, innermost first."""
    for child in list(search_all(client, [experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}'")):
        yield from _below(client, experiment_id, str(child.info.run_id))
        yield child


def _remove(client: MlflowClient, model: LoggedModel) -> list[str]:
    """Delete a model unless it is registered: first its files, because files without a model cannot be found again.

    Returns:
        Locations of files that the store did not delete.
    """
    if _is_registered(client, model):
        return []
    undeleted = _delete_artifacts(client, str(model.artifact_location))
    client.delete_logged_model(model.model_id)
    return undeleted


def _delete_artifacts(client: MlflowClient, location: str) -> list[str]:
    files = get_artifact_repository(location, tracking_uri=client.tracking_uri)
    try:
        files.delete_artifacts()
    except Exception as error:
        if is_transient(error) and "not implemented" not in str(error).lower():
            raise
        return [location]  # a study does not fail because of this
    return []


def _is_registered(client: MlflowClient, model: LoggedModel) -> bool:
    """Return whether the registry has a version of the model; the model's own tag outlives a deleted version."""
    return bool(client.search_model_versions(f"source_path LIKE '%{model.model_id}%'", max_results=1))


def _models(client: MlflowClient, experiment_id: str, which: str | None = None) -> Iterator[LoggedModel]:
    token = None
    while True:
        page = client.search_logged_models([experiment_id], which, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
