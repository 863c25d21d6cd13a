"""Finding the store and the experiment as MLflow does."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from mltune._util.redaction import redact
from mltune.errors import StoreUnavailableError
from mltune.tracking.connection import connect, get_or_create_experiment
from mltune.tracking.other_runs import project_run
from tests.store import experiment_named, forget_tracking_uri


def journal_mode(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        return str(database.execute("PRAGMA journal_mode").fetchone()[0])


def test_the_default_store_is_mlflows_own(
    tracking_uri: str, chdir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    forget_tracking_uri()
    assert connect().uri == f"sqlite:///{tmp_path}/empty/mlflow.db"
    assert journal_mode(tmp_path / "empty" / "mlflow.db") == "wal"


def test_a_database_that_was_there_is_left_as_it_is(tracking_uri: str, chdir: Path) -> None:
    with closing(sqlite3.connect(chdir / "mlflow.db")) as database:
        database.execute("PRAGMA journal_mode=DELETE")
    assert connect().uri == tracking_uri
    assert journal_mode(chdir / "mlflow.db") == "delete"


def test_the_experiment_of_mlflows_settings(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_or_create_experiment(client, None) == "0"
    first = get_or_create_experiment(client, "first")
    assert get_or_create_experiment(client, "first") == first
    mlflow.set_experiment("second")
    assert get_or_create_experiment(client, None) == experiment_named(client, "second").experiment_id
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "first")
    assert get_or_create_experiment(client, None) == experiment_named(client, "second").experiment_id
    del os.environ["MLFLOW_EXPERIMENT_ID"]  # monkeypatch would put it back, after the fixtures have cleaned up
    assert get_or_create_experiment(client, None) == first
    assert get_or_create_experiment(client, "third") == experiment_named(client, "third").experiment_id


def test_an_experiment_that_cannot_be_used(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(StoreUnavailableError, match="'gone' is deleted"):
        get_or_create_experiment(client, "gone")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "77")
    with pytest.raises(StoreUnavailableError, match="the experiment must exist, but"):
        get_or_create_experiment(client, None)


def test_credentials_are_redacted() -> None:
    assert redact("http://bob:s3cret@host:5000/x and https://tok@h") == "http://host:5000/x and https://h"
    assert redact("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_a_run_of_mlflow_run_that_is_not_there(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(StoreUnavailableError, match=f"must name a run of this store, but there is no run '{'0' * 32}'"):
        project_run(client)
