"""Studies that the first release recorded still open, resume, report and serve their models.

`data/first-release.zip` is its store: one study each of `tests/recorded.py`, made by version 0.1.0.
"""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

import mltune
from mltune import TrialState
from mltune.report.read import read_view
from mltune.report.write import write_report
from mltune.studies import read_config
from mltune.tracking.reader import read_study
from tests import recorded

N_TRIALS = {"finished": 18, "models": 12, "grid": 6, "conditional": 8, "failed": 5, "cut": 3, "killed": 3}


@pytest.fixture
def client(first_release: dict[str, str]) -> MlflowClient:
    """A client of the first release's store."""
    return MlflowClient()


def test_they_are_listed_and_read(first_release: dict[str, str], client: MlflowClient) -> None:
    records = {name: read_study(client, run_id) for name, run_id in first_release.items()}
    assert {name: len(record.trials) for name, record in records.items()} == N_TRIALS
    states = {name: record.tags["state"] for name, record in records.items()}
    assert (states["failed"], states["cut"], states["killed"]) == ("FAILED", "INTERRUPTED", "RUNNING")
    assert {name for name, state in states.items() if state == "COMPLETE"} == {*N_TRIALS} - {"failed", "cut", "killed"}


@pytest.mark.parametrize("name", ["finished", "conditional", "failed", "killed"])
def test_their_reports_are_made(name: str, first_release: dict[str, str], client: MlflowClient) -> None:
    assert read_config(client, first_release[name]) is not None
    write_report(client, read_view(client, first_release[name]))
    files = {each.path for each in client.list_artifacts(first_release[name], "report")}
    assert {"report/report.html", "report/leaderboard.csv"} <= files


@pytest.mark.parametrize("name", ["cut", "killed"])
def test_they_are_resumed_with_the_executor_that_isolation_meant(
    name: str, first_release: dict[str, str], client: MlflowClient
) -> None:
    study = first_release[name]
    result = mltune.resume(study, recorded.plain, quiet=True)
    assert [trial.state for trial in result.trials] == [TrialState.COMPLETE] * 6
    tags = client.get_run(study).data.tags
    assert (tags["mltune.state"], tags["mltune.executor"]) == ("COMPLETE", "inline")
    study_yaml = yaml.safe_load(Path(client.download_artifacts(study, "study.yaml")).read_text())
    assert (study_yaml["executor"], "isolation" in study_yaml) == ("inline", False)


def test_a_finished_one_is_extended(first_release: dict[str, str]) -> None:
    before = mltune.resume(first_release["finished"], recorded.reports, quiet=True)
    after = mltune.resume(first_release["finished"], recorded.reports, n_trials=20, quiet=True)
    assert after.trials[:18] == before.trials
    assert len(after.trials) == 20


@pytest.mark.filterwarnings("ignore:Trying to unpickle estimator")  # of scikit-learn 1.9
def test_the_champion_is_loaded(first_release: dict[str, str]) -> None:
    assert first_release["models"]
    model = mlflow.pyfunc.load_model("models:/kept@champion")
    assert model.predict(np.array([[0.5]])) == pytest.approx([0.5])
