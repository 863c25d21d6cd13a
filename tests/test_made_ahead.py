"""Runs that are made ahead of their trials."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

import mltune
from mltune import StudyFailedError, Trial, TrialState
from mltune._util.timing import Timing
from tests.drivers import wait_for

SPACE = {"x": mltune.Float(0, 1)}


def tune(objective: object, n_trials: int, n_jobs: int = 1) -> mltune.StudyResult:
    executor = "inline" if n_jobs == 1 else "local"
    given: dict[str, Any] = {"n_trials": n_trials, "n_jobs": n_jobs, "executor": executor}
    return mltune.tune(objective, SPACE, direction="minimize", quiet=True, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.processes)])
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


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.processes)])
def test_an_objective_may_log_the_params_itself(n_jobs: int, client: MlflowClient) -> None:
    def objective(trial: Trial) -> float:
        import mlflow

        with contextlib.suppress(mlflow.exceptions.MlflowException):  # ours may have come first
            mlflow.log_param("x", f"about {trial.params['x']:.1f}")
        return 1.0

    result = tune(objective, 12, n_jobs)
    assert {trial.state for trial in result.trials} == {TrialState.COMPLETE}
    for trial in result.trials:
        run = client.get_run(str(trial.run_id))
        assert run.data.params["x"] in (str(trial.params["x"]), f"about {trial.params['x']:.1f}")
        assert json.loads(run.data.tags["mltune.params"]) == trial.params


@pytest.mark.processes
def test_the_best_is_named_once_it_is_stored(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    log_batch, seen = MlflowClient.log_batch, []

    def look(self: MlflowClient, run_id: str, *arguments: Any, **options: Any) -> None:
        time.sleep(0.03)  # so that much waits to be written
        for tag in options.get("tags", ()):
            if tag.key == "mltune.best_run_id":
                seen.append(client.get_run(tag.value).info.status)
        log_batch(self, run_id, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", look)
    tune(lambda trial: -float(trial.number), 15, n_jobs=2)
    assert seen
    assert set(seen) == {"FINISHED"}


def test_mlflow_shows_how_long_the_trial_took(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mltune._util.timing.TIMING", Timing(short_trial=math.inf))  # however slow this machine is

    def objective(trial: Trial) -> float:
        if trial.number == 1:
            wait_for(lambda: bool(client.search_runs(["0"], "tags.`mltune.number` = '2'")))
        return 1.0

    result = tune(objective, 3)
    for trial in result.trials:
        info = client.get_run(str(trial.run_id)).info
        assert info.end_time - info.start_time == pytest.approx(1000 * float(trial.duration or 0), abs=1)


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
