"""Whose models are kept: those of all trials, of the best so far, or none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import LoggedModel
from sklearn.dummy import DummyRegressor

import mltune
from mltune import RequestError, Trial
from tests.drivers import Drivers

SPACE = {"x": mltune.Categorical([float(x) for x in range(100)])}
VALUES = (3.0, 5.0, 2.0, 7.0, 1.0, 4.0)


def objective(trial: Trial) -> float:
    x = float(trial.params["x"])
    logged = trial.log_model(DummyRegressor(strategy="constant", constant=x).fit([[0.0]], [0.0]))
    if x == 50:
        raise ValueError("after it has logged a model")
    if x == 60:
        raise mltune.TrialPruned
    trial.report({"logged": float(bool(logged))}, step=0)
    return x


def points(*values: float) -> list[dict[str, float]]:
    return [{"x": value} for value in values]


def tune(*values: float, **options: Any) -> mltune.StudyResult:
    defaults: dict[str, Any] = {"direction": "minimize", "algorithm": "manual", "executor": "inline", "quiet": True}
    return mltune.tune(objective, SPACE, initial_points=points(*values), **defaults | options)


def kept(client: MlflowClient) -> list[LoggedModel]:
    """The models that are there; each has its files, and there are no others."""
    models = list(client.search_logged_models(["0"]))
    folder = Path("mlruns/0/models")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert {name for name in there if any((folder / name).rglob("MLmodel"))} == {model.model_id for model in models}
    return models


def test_all_are_kept_by_default(client: MlflowClient) -> None:
    result = tune(*VALUES)
    assert {model.source_run_id for model in kept(client)} == {trial.run_id for trial in result.trials}


def test_the_best_ones_model_is_kept(client: MlflowClient) -> None:
    result = tune(*VALUES, 50.0, 60.0, keep_models="best")
    (model,) = kept(client)
    assert model.source_run_id == result.best_trial.run_id
    assert result.best_trial.params == {"x": 1.0}
    assert list(result.load_best_model().predict([[0], [0]])) == [1.0, 1.0]


def test_none_is_kept(client: MlflowClient) -> None:
    result = tune(*VALUES, keep_models="none")
    assert kept(client) == []
    assert result.best_trial.model_id is None
    assert all(client.get_run(str(trial.run_id)).data.metrics["logged"] == 0.0 for trial in result.trials)


def test_none_to_register_is_a_wrong_request(client: MlflowClient) -> None:
    with pytest.raises(
        RequestError, match="`registered_model_name` needs the best trial's model, but got `keep_models: none`"
    ):
        tune(*VALUES, keep_models="none", registered_model_name="constant")
    assert client.search_runs(["0"]) == []


def test_the_best_that_is_written_keeps_its_model_when_a_better_one_cannot_be(client: MlflowClient) -> None:
    def disappears(trial: Trial) -> float:
        value = objective(trial)
        if value == 1.0:
            (run,) = client.search_runs(["0"], "tags.`mltune.number` = '1'")
            client.delete_run(run.info.run_id)
        return value

    with pytest.raises(mltune.StudyFailedError, match="deleted") as caught:
        mltune.tune(
            disappears,
            SPACE,
            direction="minimize",
            algorithm="manual",
            initial_points=points(5.0, 1.0),
            executor="inline",
            keep_models="best",
            quiet=True,
        )
    (first,) = client.search_runs(["0"], "tags.`mltune.number` = '0'")
    assert first.data.tags["mltune.state"] == "COMPLETE"
    assert first.info.run_id in {model.source_run_id for model in kept(client)}
    assert mltune.resume(caught.value.run_id, objective, quiet=True).best_trial.params == {"x": 1.0}


@pytest.mark.processes
@pytest.mark.parametrize("how", ["mltune", "mlflow"])
def test_a_registered_model_stays_though_it_is_beaten(how: str, client: MlflowClient) -> None:
    options = {"registered_model_name": "constant"} if how == "mltune" else {}
    first = tune(99.0, algorithm="random", seed=0, n_trials=1, keep_models="best", **options)
    if how == "mlflow":
        mlflow.register_model(f"models:/{first.best_trial.model_id}", "constant")
    second = mltune.resume(first.run_id, objective, n_trials=4, quiet=True)
    better = second.best_trial.params["x"]
    assert isinstance(better, float)
    assert better < 99.0
    assert {model.source_run_id for model in kept(client)} == {first.best_trial.run_id, second.best_trial.run_id}
    assert mlflow.pyfunc.load_model("models:/constant/1").predict([[0]]) == [99.0]
    if how == "mltune":
        champion = mlflow.pyfunc.load_model("models:/constant@champion")
        assert champion.predict([[0]]) == [better]


KILLED = """
import os, signal
from mlflow import MlflowClient
original, calls = MlflowClient.delete_logged_model, 0
def armed(self, *args):
    global calls
    calls += 1
    if calls == {nth}:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, *args)
MlflowClient.delete_logged_model = armed
from tests.test_model_policy import VALUES, tune
tune(*VALUES, keep_models="best")
"""


@pytest.mark.alone
@pytest.mark.parametrize("nth", [1, 3])
def test_what_a_killed_driver_had_not_deleted_is_deleted(nth: int, drivers: Drivers, client: MlflowClient) -> None:
    root = os.path.dirname(os.path.dirname(__file__))
    import_tests = f"import sys; sys.path.insert(0, {root!r})\n"
    assert drivers.run(import_tests + KILLED.format(nth=nth)) == -9, drivers.log.read_text()
    (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
    assert len(client.search_logged_models(["0"])) > 1
    mltune.resume(parent.info.run_id, objective, quiet=True)
    (model,) = kept(client)
    assert model.source_run_id == client.get_run(parent.info.run_id).data.tags["mltune.best_run_id"]
