"""The house prices: both engines, one parent, true states, models that take raw rows."""

from __future__ import annotations

import json
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

import mltune
from mltune.config import draft_study_file
from tests.projects.conftest import ROOT, trials_of
from tests.store import experiment_named, model_ids

PROJECT = ROOT / "projects" / "house_prices"
ROWS = pd.read_csv(PROJECT / "data" / "house_prices.csv").drop(columns=["rownames", "price"])[:7]


def outcome(run: Run) -> tuple[Any, ...]:
    tags = run.data.tags
    return (
        json.loads(tags["mltune.params"]),
        tags["mltune.state"],
        run.info.status,
        round(float(tags["mltune.value"]), 4),
    )


@pytest.mark.alone
@pytest.mark.usefixtures("joined_ray")
def test_optuna_and_ray_tell_the_same_story(client: MlflowClient, mlflow_run: Any, predict_each_elsewhere: Any) -> None:
    stories, models = [], []
    for engine in ("ray", "optuna"):
        mlflow_run(
            study="projects/house_prices/study.yaml", engine=engine, algorithm="tpe", n_trials=8, experiment=engine
        )
        trials = trials_of(client.search_runs([experiment_named(client, engine).experiment_id]))
        stories.append([outcome(run) for run in trials])
        complete = [run for run in trials if run.data.tags["mltune.state"] == "COMPLETE"]
        assert complete
        for run in trials:
            assert len(model_ids(run)) == (run in complete)
        models += [f"models:/{model_ids(run)[0]}" for run in complete[:2]]
    for prices in predict_each_elsewhere(*((model, ROWS) for model in models)):
        assert len(prices) == 7
        assert all(10_000 < price < 300_000 for price in prices)
    assert len(stories[0]) == 8
    assert stories[0] == stories[1]
    assert all(
        (state, status) in [("COMPLETE", "FINISHED"), ("PRUNED", "KILLED")] for _, state, status, _ in stories[0]
    )
    signature = mlflow.models.get_model_info("models:/house-prices@champion").signature
    assert sorted(signature.inputs.input_names()) == sorted(ROWS.columns)


GUIDE = {
    (hidden_size, learning_rate, dropout_rate, batch_size)
    for hidden_size in (8, 16, 32)
    for learning_rate in (0.01, 0.001)
    for dropout_rate in (0.1, 0.2)
    for batch_size in (1, 2)
}


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("optuna", marks=pytest.mark.processes),
        pytest.param("ray", marks=pytest.mark.alone),
    ],
)
def test_the_guides_grid_once_each(
    engine: str, n_jobs: int, client: MlflowClient, request: pytest.FixtureRequest
) -> None:
    """The project's own grid with a quick objective; the real training of all points is in the slow tests."""
    if engine == "ray":
        request.getfixturevalue("joined_ray")
    config = draft_study_file(PROJECT / "grid.yaml", {}).checked()
    result = mltune.tune(
        lambda trial: float(trial.params["hidden_size"]),
        config.space,
        direction="minimize",
        algorithm="grid",
        engine=engine,
        n_jobs=n_jobs,
        quiet=True,
    )
    points = [tuple(trial.params[name] for name in config.space) for trial in result.trials]
    assert len(points) == 24
    assert set(points) == GUIDE
    assert len(trials_of(client.search_runs(["0"]))) == 24


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("engine", ["optuna", "ray"])
def test_the_guides_grid_trained(engine: str, n_jobs: int, client: MlflowClient, mlflow_run: Any) -> None:
    mlflow_run(study="projects/house_prices/grid.yaml", engine=engine, n_jobs=n_jobs)
    trials = trials_of(client.search_runs(["0"]))
    assert len(trials) == 24
    assert {run.data.tags["mltune.state"] for run in trials} == {"COMPLETE"}
