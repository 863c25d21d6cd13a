"""What tests ask of MLflow's store, with the types that they rely on."""

from __future__ import annotations

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run


def forget_tracking_uri() -> None:
    """Have MLflow look for its store as in a fresh process; an empty address, as its types want it, does not."""
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def experiment_named(client: MlflowClient, name: str) -> Experiment:
    """Return the experiment, which must be there."""
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None, name
    return experiment


def model_ids(run: Run) -> list[str]:
    """Return the ids of the models that the run has logged."""
    return [output.model_id for output in run.outputs.model_outputs] if run.outputs else []
