"""The models that runs have logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mltune.errors import RequestError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

    from mltune.trial import FrozenTrial


def outputs(run: Run) -> set[str]:
    """Return the ids of the LoggedModels among a run's outputs, which MLflow does not order."""
    return {str(output.model_id) for output in run.outputs.model_outputs} if run.outputs is not None else set()


def find_model(client: MlflowClient, run_id: str) -> str | None:
    """Return the id of the last LoggedModel of a run, or None if it has none."""
    run = client.get_run(run_id)
    model_ids = outputs(run)
    if len(model_ids) < 2:
        return next(iter(model_ids), None)
    models = client.search_logged_models(
        [run.info.experiment_id],
        f"source_run_id = '{run_id}'",
        order_by=[{"field_name": "creation_timestamp", "ascending": False}],
    )
    return next((str(model.model_id) for model in models if model.model_id in model_ids), None)


def model_of(client: MlflowClient, best: FrozenTrial) -> str:
    """Return the id of the last model that the best trial logged.

    Raises:
        RequestError: It logged none.
    """
    model_id = best.model_id or find_model(client, str(best.run_id))
    if model_id is None:
        raise RequestError(
            f"the best trial must have logged a model, but trial {best.number} has none: call trial.log_model in it"
        )
    return model_id
