"""The commands that look at studies: show, list, delete."""

from __future__ import annotations

import contextlib
import io
import json
import math
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
from sklearn.linear_model import LinearRegression

import mltune
from mltune import Float
from mltune.cli import main
from mltune.tracking.reader import read_study

SPACE = {"x": Float(-1.0, 1.0), "y": Float(-1.0, 1.0)}


def objective(trial: mltune.Trial) -> float:
    if trial.number == 3:
        raise ValueError("no")
    trial.log_model(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), input_example=[[0.5]])
    return float(trial.params["x"] ** 2 + trial.params["y"] / 100)


def tune(objective: Any = objective, **arguments: Any) -> mltune.StudyResult:
    defaults: dict[str, Any] = {"direction": "minimize", "algorithm": "random", "n_trials": 6, "seed": 1}
    return mltune.tune(objective, SPACE, **defaults | {"executor": "inline", "quiet": True} | arguments)


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(str(ended.value))


def plain(trial: mltune.Trial) -> float:
    return float(trial.params["x"])


@pytest.mark.recorded("models")
def test_show(client: MlflowClient, recorded_study: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("show", recorded_study, "--top", "3") == 0
    said = capsys.readouterr().out
    assert "12 trials: 11 complete, 1 failed" in said
    assert "importances: x " in said
    assert "failures: 1 exception" in said
    assert "3 of 12 trials (--top shows more):" in said
    best = client.get_run(client.get_run(recorded_study).data.tags["mltune.best_run_id"])
    assert f"best: trial {best.data.tags['mltune.number']} with" in said


@pytest.mark.recorded("models")
def test_show_as_json(client: MlflowClient, recorded_study: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("show", recorded_study, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["state"] == "COMPLETE"
    assert data["states"] == {"COMPLETE": 11, "FAILED": 1}
    assert data["failures"] == {"exception": 1}
    trials = read_study(client, recorded_study).trials
    best = min((trial for trial in trials if trial.value is not None), key=lambda trial: trial.value or 0.0)
    assert data["best"]["run_id"] == best.run_id
    assert data["best"]["params"] == best.params
    assert [trial["value"] for trial in data["trials"]] == [trial.value for trial in trials]
    assert set(data["importances"]) == {"x", "rate", "kind"}


@pytest.mark.parametrize(
    ("kind", "first", "state"),
    [
        pytest.param(kind, first, state, marks=pytest.mark.recorded(kind))
        for kind, first, state in [
            ("grid", "6 trials: 6 complete", "COMPLETE"),
            ("conditional", "8 trials: 8 complete", "COMPLETE"),
            ("failed", "5 trials: 5 failed", "FAILED"),
            ("cut", "3 trials: 2 complete, 1 interrupted", "INTERRUPTED"),
            ("killed", "2 trials: 2 complete", "RUNNING, but its driver is gone"),
        ]
    ],
)
def test_show_of_each_kind(
    kind: str, first: str, state: str, recorded_study: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("show", recorded_study) == 0
    said = capsys.readouterr().out
    assert first in said
    assert state in said


def test_show_reads_infinite_metrics_as_they_were(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    result = tune(lambda trial: {"value": 1.0, "loss": math.inf}, n_trials=1)
    assert read_study(client, result.run_id).trials[0].metrics == {"value": 1.0, "loss": math.inf}
    assert command("show", result.run_id, "--json") == 0
    assert json.loads(capsys.readouterr().out)["trials"][0]["metrics"] == {"value": 1.0, "loss": None}


def test_list(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tune(plain, name="one"), tune(plain, name="two", experiment_name="other")
    assert command("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines if "COMPLETE" in line] == [
        [second.run_id, "two", "COMPLETE"],
        [first.run_id, "one", "COMPLETE"],
    ]
    assert command("list", "--json", "--experiment-name", "other") == 0
    (study,) = json.loads(capsys.readouterr().out)
    assert (study["run_id"], study["best_value"]) == (second.run_id, second.best_trial.value)


@pytest.mark.recorded("killed")
def test_list_says_where_a_driver_is_gone(recorded_study: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list") == 0
    assert "gone" in capsys.readouterr().out


def test_an_experiment_that_is_not_there(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("list", "--experiment-name", "nope") == 2
    assert "there is no active one named 'nope'" in capsys.readouterr().err


@pytest.mark.recorded("models")
def test_delete_takes_all_but_what_is_registered(
    client: MlflowClient, recorded_study: str, chdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tune(name="other", n_trials=2)
    trials = read_study(client, recorded_study).trials
    best = client.get_run(recorded_study).data.tags["mltune.best_run_id"]
    assert command("delete", recorded_study, "--yes") == 0
    said = capsys.readouterr().out
    assert said == f"study {recorded_study} is deleted; registered models stay, and their runs: {best}\n"
    active = {run.info.run_id for run in client.search_runs(["0"], run_view_type=ViewType.ACTIVE_ONLY)}
    assert active == {best, other.run_id, *(str(trial.run_id) for trial in other.trials)}
    sources = {model.source_run_id for model in client.search_logged_models(["0"])}
    assert sources == {best, *(trial.run_id for trial in other.trials if trial.model_id)}
    kept = client.get_model_version_by_alias("kept", "champion")
    assert kept.run_id == best
    for name in (recorded_study, *(str(trial.run_id) for trial in trials if trial.run_id != best)):
        assert not list((chdir / "mlruns" / "0" / name).rglob("*.*"))


@pytest.mark.recorded("models")
def test_delete_keeps_what_is_registered_by_its_place(client: MlflowClient, recorded_study: str) -> None:
    client.delete_registered_model("kept")
    best = client.get_run(recorded_study).data.tags["mltune.best_run_id"]
    (model,) = client.search_logged_models(["0"], f"source_run_id = '{best}'")
    mlflow.register_model(model.artifact_location, "by-place")
    assert client.get_model_version("by-place", "1").run_id is None
    assert command("delete", recorded_study, "--yes") == 0
    assert mlflow.pyfunc.load_model("models:/by-place/1").predict(np.array([[0.5]])) == pytest.approx(0.5)


@pytest.mark.recorded("models")
def test_delete_takes_a_model_whose_version_was_deleted(client: MlflowClient, recorded_study: str) -> None:
    client.delete_registered_model("kept")
    assert command("delete", recorded_study, "--yes") == 0
    assert client.search_logged_models(["0"]) == []


@pytest.mark.processes
def test_artifacts_that_need_a_library_which_is_not_there(
    client: MlflowClient, chdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tune(plain, n_trials=2).run_id
    with contextlib.closing(sqlite3.connect(chdir / "mlflow.db")) as database, database:
        database.execute("UPDATE runs SET artifact_uri = 's3://bucket/' || run_uuid")
    assert command("show", study) == 0
    assert "2 trials: 2 complete" in capsys.readouterr().out
    assert command("resume", study) == 2
    assert "has no artifact study.yaml" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "-m", "mltune", "report", study], capture_output=True, text=True, check=False
    )  # another process: MLflow remembers where a run's artifacts are
    assert done.returncode == 2
    assert done.stderr == "mltune: the tracking store must answer, but: No module named 'boto3'\n"


def test_delete_names_the_artifacts_that_stay(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: LocalArtifactRepository, path: str | None = None) -> None:
        raise PermissionError("read-only")

    result = tune(plain, n_trials=1)
    monkeypatch.setattr(LocalArtifactRepository, "delete_artifacts", refuse)
    assert command("delete", result.run_id, "--yes") == 1
    said = capsys.readouterr()
    assert said.out == f"study {result.run_id} is deleted\n"
    assert f"/0/{result.run_id}/artifacts" in said.err
    assert said.err.startswith("mltune: the store must delete artifacts, but these stay: ")


def test_delete_asks_first(
    client: MlflowClient, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tune(plain, name="asked").run_id
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert command("delete", study) == 1
    assert "Delete study asked with 6 trials, their models and artifacts?" in capsys.readouterr().out
    assert client.get_run(study).info.lifecycle_stage == "active"


def test_a_running_study_is_not_deleted(client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    ends = []

    def deleted(trial: mltune.Trial) -> float:
        (parent,) = client.search_runs(["0"], "tags.`mltune.kind` = 'study'")
        ends.append(command("delete", parent.info.run_id, "--yes"))
        return 0.5

    tune(deleted, n_trials=1)
    assert ends == [2]
    assert "a study must have no driver to be deleted" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["show", "report", "delete"])
def test_a_run_that_is_no_study(name: str, client: MlflowClient, capsys: pytest.CaptureFixture[str]) -> None:
    run_id = client.create_run("0").info.run_id
    assert command(name, run_id) == 2
    assert f"run '{run_id}' is no mltune study" in capsys.readouterr().err
