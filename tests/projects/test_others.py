"""The breast cancer and digits projects: their champions, and that pruning saves epochs."""

from __future__ import annotations

from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from sklearn.datasets import load_breast_cancer, load_digits

from tests.projects.conftest import trials_of

pytestmark = pytest.mark.processes


def test_breast_cancer(client: MlflowClient, mlflow_run: Any, predict_elsewhere: Any) -> None:
    """By `mlflow run .`, whose run is the study; which study, engine and algorithm is left to it."""
    mlflow_run(n_trials=6, registered_model_name="mine")
    runs = client.search_runs(["0"])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    tags = parent.data.tags
    assert (tags["mltune.kind"], tags["mltune.state"], parent.info.status) == ("study", "COMPLETE", "FINISHED")
    assert tags["mlflow.project.entryPoint"] == "main"
    assert parent.info.run_name == "breast-cancer"
    assert parent.data.params == {
        "study": "projects/breast_cancer/study.yaml",
        "n_trials": "6",
        "registered_model_name": "mine",
    }
    assert client.get_model_version_by_alias("mine", "champion").run_id == tags["mltune.best_run_id"]
    trials = trials_of(runs)
    assert [run.data.tags["mltune.state"] for run in trials] == ["COMPLETE"] * 6
    for run in trials:
        assert {"cv_log_loss", "cv_log_loss_std", "cv_accuracy", "cv_accuracy_std"} <= set(run.data.metrics)
    frame, target = load_breast_cancer(return_X_y=True, as_frame=True)
    predicted = predict_elsewhere("models:/mine@champion", frame[:50])
    assert np.mean(np.asarray(predicted) == target[:50]) > 0.9


def test_digits(client: MlflowClient, mlflow_run: Any, predict_each_elsewhere: Any) -> None:
    mlflow_run(study="projects/digits/study.yaml", n_trials=10)
    trials = trials_of(client.search_runs(["0"]))
    states = [run.data.tags["mltune.state"] for run in trials]
    assert states.count("PRUNED") >= 3
    epochs = [len(client.get_metric_history(run.info.run_id, "val_accuracy")) for run in trials]
    full = max(epochs)
    assert sum(epochs) < 0.7 * full * len(trials), "pruning must save a third of the epochs"
    images, labels = load_digits(return_X_y=True)
    example = mlflow.models.Model.load("models:/digits@champion").load_input_example()
    assert np.asarray(example).dtype == np.float32
    scale = float(images.max()) if np.asarray(example).max() <= 1 else 1.0
    batches = [pd.DataFrame(images[:size] / scale) for size in (1, 3, 64)]
    answers = predict_each_elsewhere(*(("models:/digits@champion", rows) for rows in batches), kind="array")
    assert [np.asarray(answer).shape for answer in answers] == [(1, 10), (3, 10), (64, 10)]
    assert np.mean(np.asarray(answers[-1]).argmax(axis=1) == labels[:64]) > 0.8
