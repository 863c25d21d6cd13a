"""A study against a real `mlflow server` on loopback: the same record, models through the server."""

from __future__ import annotations

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

import mltune
from tests.servers import Server
from tests.store import experiment_named, model_ids

pytestmark = pytest.mark.processes


def objective(trial: mltune.Trial) -> dict[str, float]:
    from sklearn.linear_model import Ridge

    if trial.number == 1:
        raise ValueError("a bad day")
    trial.report(1.0, step=1)
    mlflow.log_metric("by_hand", 2.0)
    model = Ridge(alpha=trial.params["alpha"]).fit([[0.0], [1.0]], [0.0, 1.0])
    trial.log_model(model, input_example=np.array([[0.5]]))
    return {"value": float(trial.params["alpha"])}


def test_a_study_through_a_server(
    server: tuple[str, Server], tracking_uri: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address, _ = server
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    mlflow.set_tracking_uri(address)
    result = mltune.tune(
        objective,
        {"alpha": mltune.Float(0.1, 1.0)},
        direction="minimize",
        algorithm="random",
        n_trials=4,
        n_jobs=2,
        seed=0,
        registered_model_name="through-a-server",
        experiment_name="remote",
    )
    printed = capfd.readouterr()
    client = MlflowClient()
    experiment = experiment_named(client, "remote")
    assert f"{address}/#/experiments/{experiment.experiment_id}/runs/{result.run_id}" in printed.out
    assert "View run" not in printed.out
    runs = client.search_runs([experiment.experiment_id], f"tags.`mltune.study` = '{result.run_id}'")
    states = sorted((run.data.tags["mltune.state"], run.info.status) for run in runs)
    assert states == [("COMPLETE", "FINISHED")] * 3 + [("FAILED", "FAILED")]
    for run in runs:
        complete = run.data.tags["mltune.state"] == "COMPLETE"
        assert (run.data.metrics.get("by_hand") == 2.0) is complete
        assert len(model_ids(run)) == complete
    rows = np.array([[0.5], [1.0]])
    champion = mlflow.pyfunc.load_model("models:/through-a-server@champion")
    assert champion.predict(rows) == pytest.approx(result.load_best_model().predict(rows))
