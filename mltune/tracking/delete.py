"""Delete a study."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, Run
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mltune.errors import RequestError
from mltune.tracking.models import delete_artifacts, list_models, remove_model
from mltune.tracking.reader import is_driven, parent_run, search_all
from mltune.tracking.tags import own_tags


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
    models = [model for model in list_models(client, experiment_id) if model.source_run_id in ids]
    kept = ids & _registered(client, models)
    undeleted: list[str] = []
    for model in models:
        if model.source_run_id not in kept:
            undeleted += remove_model(client, model)
    for run in runs:
        if run.info.run_id not in kept:
            undeleted += delete_artifacts(client, str(run.info.artifact_uri))
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
