"""`load_study` and `list_studies`: any study, from its own store."""

from __future__ import annotations

import os
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

import mltune
from mltune import Direction, RequestError, StudyFailedError, TrialState
from mltune.goal import Goal
from mltune.study import Study
from mltune.tracking.connection import Store
from tests import recorded


@pytest.mark.recorded("finished")
def test_a_finished_study(recorded_study: str, client: MlflowClient) -> None:
    study = mltune.load_study(recorded_study)
    assert (study.state, study.is_driven, study.reason) == (TrialState.COMPLETE, False, None)
    assert study.progress == "18 of 18 trials: 6 complete, 9 pruned, 3 failed"
    assert [trial.number for trial in study.trials] == list(range(18))
    assert study.best_trial.run_id == client.get_run(recorded_study).data.tags["mltune.best_run_id"]
    assert study.params == study.best_trial.params
    assert list(study.to_dataframe()["number"]) == list(range(18))
    assert study.elapsed > 0
    assert study.url is None


@pytest.mark.parametrize(
    ("kind", "state", "n_trials"),
    [("failed", "FAILED", 5), ("cut", "INTERRUPTED", 3), ("killed", "RUNNING", 3), ("conditional", "COMPLETE", 8)],
)
def test_studies_of_the_first_release(
    kind: str,
    state: str,
    n_trials: int,
    first_release: dict[str, str],
) -> None:
    study = mltune.load_study(first_release[kind])
    assert (study.state, len(study.trials), study.is_driven) == (state, n_trials, False)
    assert (study.reason is not None) == (kind == "failed")
    if kind == "failed":
        with pytest.raises(RequestError, match=r"a trial must be COMPLETE to be the best, but of study .* none is"):
            study.best_trial  # noqa: B018


def test_studies_are_listed_the_latest_first(first_release: dict[str, str]) -> None:
    listed = mltune.list_studies()
    assert [each.name for each in listed] == ["killed", "cut", "failed", "conditional", "grid", "models", "finished"]
    assert {each.run_id for each in listed} == set(first_release.values())
    assert listed[-1].best_value == mltune.load_study(listed[-1].run_id).best_trial.value
    assert [each.name for each in mltune.list_studies("Default")] == [each.name for each in listed]
    with pytest.raises(RequestError, match="no active one named 'elsewhere'"):
        mltune.list_studies("elsewhere")


def test_what_is_no_study_is_refused(client: MlflowClient) -> None:
    with pytest.raises(RequestError, match=r"there is no run '0{32}' in this store"):
        mltune.load_study("0" * 32)
    run_id = client.create_run("0").info.run_id
    with pytest.raises(RequestError, match=f"run '{run_id}' is no mltune study"):
        mltune.load_study(run_id)


@pytest.mark.recorded("finished")
def test_a_deleted_study_is_refused_with_what_restores_it(recorded_study: str, client: MlflowClient) -> None:
    client.delete_run(recorded_study)
    with pytest.raises(RequestError, match=f"is deleted: restore it .`mlflow runs restore --run-id {recorded_study}`"):
        mltune.load_study(recorded_study)


def test_the_page_of_a_study_on_a_server() -> None:
    uri = "http://bob:s3cret@host:5000/"
    store = Store(MlflowClient(uri), uri, uri)
    study = Study(
        run_id="abc",
        experiment_id="7",
        name="far",
        goal=Goal("value", Direction.MINIMIZE),
        state=TrialState.COMPLETE,
        trials=(),
        store=store,
    )
    assert study.url == "http://host:5000/#/experiments/7/runs/abc"


@pytest.mark.recorded("models")
def test_its_model_comes_from_its_own_store_wherever_the_process_has_gone(
    recorded_study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = mltune.load_study(recorded_study)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    mlflow.set_tracking_uri(f"sqlite:///{elsewhere}/mlflow.db")
    assert study.load_best_model().predict(np.array([[0.5]])) == pytest.approx([0.5])
    assert not (elsewhere / "mlflow.db").exists()


def test_a_relative_store_is_found_after_the_folder_changes(
    client: MlflowClient,
    chdir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    study = mltune.tune(
        recorded.logs_a_model, recorded.SPACE, direction="minimize", n_trials=1, executor="inline", quiet=True
    )
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    assert study.load_best_model().predict(np.array([[0.5]])) == pytest.approx([0.5])
    assert os.listdir() == []


def test_a_study_that_failed_is_in_its_error(client: MlflowClient) -> None:
    with pytest.raises(StudyFailedError) as caught:
        mltune.tune(recorded.fails, recorded.SPACE, direction="minimize", n_trials=3, executor="inline", quiet=True)
    study = caught.value.study
    assert (study.state, study.reason, len(study.trials)) == (TrialState.FAILED, caught.value.reason, 3)
    assert study.run_id == caught.value.run_id
    read = mltune.load_study(study.run_id)
    assert (read.state, read.reason) == (study.state, study.reason)
