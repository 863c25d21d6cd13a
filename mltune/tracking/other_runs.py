"""Handle runs opened by ``mlflow run`` or by user code inside a trial, and duplicates from repeated requests."""

from __future__ import annotations

import os

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mltune._util.redaction import cause
from mltune.errors import StoreUnavailableError


def project_run(client: MlflowClient) -> Run | None:
    """Return the run that ``mlflow run`` created for this process.

    Return None if there is none, or if user code or an earlier study already uses it.
    """
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if run_id is None or mlflow.active_run() is not None:
        return None
    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise StoreUnavailableError(
            f"MLFLOW_RUN_ID must name a run of this store, but there is no run '{run_id}': unset it"
        ) from cause(error)


def duplicates(client: MlflowClient, experiment_id: str, uid: str) -> list[str]:
    """Return the runs that were created with one uid; there are duplicates if the request was repeated."""
    runs = client.search_runs([experiment_id], f"tags.`mltune.uid` = '{uid}'")
    return [str(run.info.run_id) for run in runs]


def discard(client: MlflowClient, run_id: str) -> None:
    """Close and delete a run that is not needed. Idempotent."""
    if client.get_run(run_id).info.lifecycle_stage == "active":
        client.set_terminated(run_id, "KILLED")
        client.delete_run(run_id)


def close_children(client: MlflowClient, experiment_id: str, run_id: str) -> None:
    """Close the runs that user code left open inside a trial that was cut short."""
    running = client.search_runs(
        [experiment_id], f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{run_id}' AND attributes.status = 'RUNNING'"
    )
    for run in running:
        close_children(client, experiment_id, run.info.run_id)
        client.set_terminated(run.info.run_id, "KILLED")
