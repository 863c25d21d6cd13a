"""Delete models that a study no longer needs, but no registered ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mltune.retry import is_transient


def remove_models(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    """Delete a run's LoggedModels, incomplete ones included, and their files; keep registered models. Idempotent."""
    for model in list(list_models(client, experiment_id, f"source_run_id = '{run_id}'")):
        remove_model(client, model)


def remove_beaten_models(client: MlflowClient, experiment_id: str, trials: Collection[str], best: str | None) -> None:
    """Delete the models that :func:`remove_models` had not deleted yet when a driver was killed.

    Args:
        client: A client of the store.
        experiment_id: The study's experiment.
        trials: The runs of the study's trials.
        best: The run whose models are kept, or None.
    """
    for model in list(list_models(client, experiment_id)):
        if model.source_run_id in trials and model.source_run_id != best:
            remove_model(client, model)


def remove_model(client: MlflowClient, model: LoggedModel) -> list[str]:
    """Delete a model unless it is registered: first its files, because files without a model cannot be found again.

    Returns:
        Locations of files that the store did not delete.
    """
    if _is_registered(client, model):
        return []
    undeleted = delete_artifacts(client, str(model.artifact_location))
    client.delete_logged_model(model.model_id)
    return undeleted


def delete_artifacts(client: MlflowClient, location: str) -> list[str]:
    """Delete the files at a location; return the location if the store did not delete them, else nothing."""
    files = get_artifact_repository(location, tracking_uri=client.tracking_uri)
    try:
        files.delete_artifacts()
    except Exception as error:
        if is_transient(error) and "not implemented" not in str(error).lower():
            raise
        return [location]  # a study does not fail because of this
    return []


def _is_registered(client: MlflowClient, model: LoggedModel) -> bool:
    """Return whether the registry has a version of the model; its own tag says so even if the version was deleted."""
    return bool(client.search_model_versions(f"source_path LIKE '%{model.model_id}%'", max_results=1))


def list_models(client: MlflowClient, experiment_id: str, which: str | None = None) -> Iterator[LoggedModel]:
    """Yield the LoggedModels of an experiment, or those that match a filter."""
    token = None
    while True:
        page = client.search_logged_models([experiment_id], which, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
