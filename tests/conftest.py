"""Shared fixtures: a real MLflow on SQLite, fresh for every test, and nothing written outside of `tmp_path`."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir as chdir_to
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.drivers import Drivers, Zygote, zygote

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ["MLTUNE_REPORT"] = "false"  # a second or more for each study; tests of reports turn them on


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, made once: its migrations take over a second."""
    path = tmp_path_factory.mktemp("migrated") / "mlflow.db"
    with chdir_to(path.parent):  # MLflow makes its folder `mlruns` where it stands
        MlflowClient(tracking_uri=f"sqlite:///{path}").get_experiment("0")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # as mltune sets it in a database that is not there before
    return path


@pytest.fixture
def chdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`tmp_path`, as the current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tracking_uri(migrated_database: Path, chdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a fresh store in `tmp_path`, set in MLflow and in the environment."""
    import mlflow

    database = chdir / "mlflow.db"
    shutil.copy(migrated_database, database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE experiments SET artifact_location = ?", (f"{chdir}/mlruns/0",))
    uri = f"sqlite:///{database}"
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    yield uri
    _reset_mlflow()


@pytest.fixture
def client(tracking_uri: str) -> MlflowClient:
    """A client of the fresh store."""
    return MlflowClient(tracking_uri=tracking_uri)


def _reset_mlflow() -> None:
    """Forget what MLflow keeps per process: addresses, experiment, active runs, autologging."""
    import mlflow
    from mlflow.tracking import fluent

    mlflow.autolog(disable=True, silent=True)
    mlflow.sklearn.autolog(disable=True, silent=True)  # the line above does not undo what is enabled by itself
    while mlflow.active_run() is not None:
        mlflow.end_run()
    fluent._active_experiment_id = None
    mlflow.set_registry_uri("")
    mlflow.set_tracking_uri(None)
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)


LOAD = """
import json, sys
class NoMltune:
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] != "mltune", "the model imports mltune"
sys.meta_path.insert(0, NoMltune())
import mlflow, numpy, pandas
rows = pandas.read_json(sys.argv[2], orient="split", precise_float=True)
if sys.argv[3] == "array":
    rows = rows.to_numpy(dtype="float32")
print(json.dumps(numpy.asarray(mlflow.pyfunc.load_model(sys.argv[1]).predict(rows)).tolist()))
"""

Predict = Callable[..., list[float]]


@pytest.fixture
def predict_elsewhere(tracking_uri: str, tmp_path: Path) -> Predict:
    """Load a model in an empty folder, in a process that cannot import mltune, and predict."""

    def predict(uri: str, rows: object, kind: str = "frame") -> list[float]:
        empty = tmp_path / "empty"
        empty.mkdir(exist_ok=True)
        path = tmp_path / "rows.json"
        path.write_text(rows.to_json(orient="split"))  # type: ignore[attr-defined]
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "MLFLOW_TRACKING_URI": tracking_uri}
        command = [sys.executable, "-c", LOAD, uri, str(path), kind]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert list(empty.iterdir()) == []
        return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]

    return predict


@pytest.fixture(scope="module")
def warm() -> Iterator[Zygote]:
    """The process that drivers are forked from."""
    with zygote() as process:
        yield process


@pytest.fixture
def drivers(warm: Zygote, tracking_uri: str, chdir: Path) -> Iterator[Drivers]:
    """Starts drivers in `tmp_path`, with the fresh store; those that the test leaves behind are killed."""
    with closing(Drivers(warm, chdir, {"MLFLOW_TRACKING_URI": tracking_uri})) as made:
        yield made
