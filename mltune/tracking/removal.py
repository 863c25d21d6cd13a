"""Remove models that a study no longer needs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from mltune.tracking.trouble import is_transient


def remove_models(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    """Delete the LoggedModels of a run, half-made ones too, and their files; those that are registered stay.

    May be called again.
    """
    for model in list(_models(client, experiment_id, f"source_run_id = '{run_id}'")):
        _remove(client, model)


def remove_beaten_models(client: MlflowClient, experiment_id: str, trials: Collection[str], best: str | None) -> None:
    """Delete what :func:`remove_models` had not deleted when a driver was killed.

    Args:
        client: A client of the store.
        experiment_id: The study's experiment.
        trials: The runs of the study's trials.
        best: The run whose models stay.
    """
    for model in list(_models(client, experiment_id)):
        if model.source_run_id in trials and model.source_run_id != best:
            _remove(client, model)


def _remove(client: MlflowClient, model: LoggedModel) -> None:
    """Files first: a model without files can be found and removed again, files without a model cannot."""
    if not _is_registered(client, model):
        files = get_artifact_repository(model.artifact_location, tracking_uri=client.tracking_uri)
        try:
            files.delete_artifacts()  # type: ignore[no-untyped-call]
        except Exception as error:
            if is_transient(error) and "not implemented" not in str(error).lower():
                raise  # else they stay: it is no reason to end a study
        client.delete_logged_model(model.model_id)


def _is_registered(client: MlflowClient, model: LoggedModel) -> bool:
    """As `mlflow.register_model` says on the model, or as the registry says of versions made otherwise."""
    if MLFLOW_MODEL_VERSIONS in model.tags:
        return True
    versions = client.search_model_versions(f"run_id = '{model.source_run_id}'")
    return any(model.model_id in (version.model_id, str(version.source).rpartition("/")[2]) for version in versions)


def _models(client: MlflowClient, experiment_id: str, which: str | None = None) -> Iterator[LoggedModel]:
    token = None
    while True:
        page = client.search_logged_models([experiment_id], which, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
