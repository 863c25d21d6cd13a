"""Runs that are made ahead of their trials."""

from __future__ import annotations

import time

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

import mltune
from mltune import StudyFailedError, Trial

SPACE = {"x": mltune.Float(0, 1)}


def tune(objective: object, n_trials: int, n_jobs: int = 1) -> mltune.StudyResult:
    return mltune.tune(objective, SPACE, direction="minimize", n_trials=n_trials, n_jobs=n_jobs, quiet=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_run_is_there_before_its_trial_starts(n_jobs: int, client: MlflowClient) -> None:
    def objective(trial: Trial) -> float:
        from mlflow import MlflowClient

        run = MlflowClient().get_run(str(trial.run_id))
        assert run.info.status == "RUNNING"
        assert run.data.tags["mltune.number"] == str(trial.number)
        return 1.0

    result = tune(objective, 12, n_jobs)
    assert [trial.number for trial in result.trials] == list(range(12))
    runs = client.search_runs(["0"], f"tags.`mltune.study` = '{result.run_id}'", ViewType.ALL)
    assert {run.info.run_id for run in runs} == {trial.run_id for trial in result.trials}


def test_mlflow_shows_how_long_the_trial_took(client: MlflowClient) -> None:
    def objective(trial: Trial) -> float:
        time.sleep(4.0 if trial.number == 1 else 0.0)
        return 1.0

    result = tune(objective, 3)
    first, long, short = (client.get_run(str(trial.run_id)).info for trial in result.trials)
    assert short.start_time - long.start_time < 4000  # it was made while the other one ran
    assert short.end_time - short.start_time < 4000
    assert long.end_time - long.start_time >= 4000
    assert first.end_time >= first.start_time


def test_runs_that_are_not_needed_are_deleted(client: MlflowClient) -> None:
    def objective(trial: Trial) -> float:
        raise ValueError("no")

    with pytest.raises(StudyFailedError) as caught:
        tune(objective, 50)
    runs = client.search_runs(["0"], f"tags.`mltune.study` = '{caught.value.run_id}'", ViewType.ALL)
    active = [run for run in runs if run.info.lifecycle_stage == "active"]
    assert sorted(run.data.tags["mltune.number"] for run in active) == list("01234")
    assert {run.info.status for run in active} == {"FAILED"}
    assert [run.data.tags["mltune.number"] for run in runs if run not in active] == ["5"]
