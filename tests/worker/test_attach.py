"""User code's own `mlflow.*` calls land in its trial's run."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.tracking import fluent
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sklearn.linear_model import LogisticRegression

from mltune.worker import attach
from mltune.worker.attach import attached, prepare_worker

X, Y = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]


@pytest.fixture
def experiment_id(client: MlflowClient) -> str:
    """An experiment that MLflow's own settings do not name."""
    return str(client.create_experiment("trials"))


@pytest.fixture
def run_id(client: MlflowClient, experiment_id: str) -> str:
    return str(client.create_run(experiment_id).info.run_id)


@pytest.fixture
def worker(tracking_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a worker."""
    monkeypatch.setattr(attach, "_DRIVERS_STORE", {})
    prepare_worker()


@contextmanager
def statements() -> Iterator[list[str]]:
    """The SQL statements that reach any database meanwhile."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    yield seen
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)


def in_thread(function: Callable[[], Any]) -> Any:
    """What the function returns or raises in a thread of its own, as the runner has it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_mlflow_still_keeps_active_runs_where_we_put_ours(run_id: str, experiment_id: str) -> None:
    """When this fails MLflow has moved its private stack: attaching works, but at the cost of store calls."""
    with attached(run_id, experiment_id):
        assert [run.info.run_id for run in fluent._active_run_stack.get()] == [run_id]
    assert fluent._active_run_stack.get() == []


@pytest.mark.usefixtures("worker")
def test_attaching_costs_no_store_call(run_id: str, experiment_id: str) -> None:
    def objective() -> None:
        with attached(run_id, experiment_id):
            active = mlflow.active_run()
            assert active is not None
            assert (active.info.run_id, active.info.experiment_id) == (run_id, experiment_id)
        assert mlflow.active_run() is None

    with statements() as seen:
        in_thread(objective)
        in_thread(objective)
    assert seen == []


def test_what_user_code_logs_lands_in_the_trials_run(
    client: MlflowClient, run_id: str, experiment_id: str, tmp_path: Path
) -> None:
    file = tmp_path / "note.txt"
    file.write_text("hello")

    def objective() -> None:
        with attached(run_id, experiment_id):
            mlflow.log_metric("loss", 0.5, step=3)
            mlflow.log_param("depth", 4)
            mlflow.set_tag("colour", "blue")
            mlflow.log_artifact(str(file))

    in_thread(objective)
    run = client.get_run(run_id)
    assert run.data.metrics == {"loss": 0.5}
    assert run.data.params == {"depth": "4"}
    assert run.data.tags["colour"] == "blue"
    assert [artifact.path for artifact in client.list_artifacts(run_id)] == ["note.txt"]
    assert run.info.status == "RUNNING"
    assert len(client.search_runs(["0", experiment_id])) == 1


def test_autologging_lands_in_the_trials_run(client: MlflowClient, run_id: str, experiment_id: str) -> None:
    mlflow.sklearn.autolog(log_models=False, silent=True)

    def objective() -> None:
        with attached(run_id, experiment_id):
            LogisticRegression(C=0.5).fit(X, Y)

    in_thread(objective)
    run = client.get_run(run_id)
    assert run.data.params["C"] == "0.5"
    assert "training_score" in run.data.metrics
    assert run.info.status == "RUNNING"
    assert len(client.search_runs(["0", experiment_id])) == 1


def test_a_model_logged_with_mlflow_is_the_trials_in_its_experiment(
    client: MlflowClient, run_id: str, experiment_id: str
) -> None:
    def objective() -> str:
        with attached(run_id, experiment_id):
            model = LogisticRegression().fit(X, Y)
            info = mlflow.sklearn.log_model(model, name="m", pip_requirements=["scikit-learn"])
            return str(info.model_id)

    model = client.get_logged_model(in_thread(objective))
    assert (model.experiment_id, model.source_run_id) == (experiment_id, run_id)


def test_two_threads_have_their_own_runs(client: MlflowClient, experiment_id: str) -> None:
    runs = [client.create_run(experiment_id).info.run_id for _ in range(2)]
    together = threading.Barrier(2)

    def objective(run_id: str) -> None:
        with attached(run_id, experiment_id):
            together.wait()
            mlflow.log_param("mine", run_id)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(objective, runs))
    assert [client.get_run(run_id).data.params["mine"] for run_id in runs] == runs


def test_a_bare_start_run_fails_with_one_sentence(run_id: str, experiment_id: str) -> None:
    with attached(run_id, experiment_id), pytest.raises(Exception, match=f"UUID {run_id} is already active.*nested=Tr"):
        mlflow.start_run()


@pytest.mark.usefixtures("worker")
def test_a_nested_run_is_a_child_of_the_trial_in_its_experiment(
    client: MlflowClient, run_id: str, experiment_id: str
) -> None:
    with attached(run_id, experiment_id), mlflow.start_run(nested=True) as child:
        mlflow.log_metric("inner", 1)
    stored = client.get_run(child.info.run_id)
    assert stored.data.tags[MLFLOW_PARENT_RUN_ID] == run_id
    assert stored.info.experiment_id == experiment_id
    assert stored.data.metrics == {"inner": 1.0}


def test_runs_that_user_code_left_open_are_finished(client: MlflowClient, run_id: str, experiment_id: str) -> None:
    with attached(run_id, experiment_id):
        left = [mlflow.start_run(nested=True).info.run_id for _ in range(2)]
    assert [client.get_run(child).info.status for child in left] == ["FINISHED", "FINISHED"]
    assert client.get_run(run_id).info.status == "RUNNING"
    assert mlflow.active_run() is None


def test_runs_that_raising_user_code_left_open_have_failed(
    client: MlflowClient, run_id: str, experiment_id: str
) -> None:
    left = []

    def objective() -> None:
        with attached(run_id, experiment_id):
            left.append(mlflow.start_run(nested=True).info.run_id)
            raise KeyError("user")

    with pytest.raises(KeyError, match="user"):
        objective()
    assert client.get_run(left[0]).info.status == "FAILED"
    assert client.get_run(run_id).info.status == "RUNNING"
    assert mlflow.active_run() is None


def test_user_code_may_end_the_run(client: MlflowClient, run_id: str, experiment_id: str) -> None:
    with attached(run_id, experiment_id):
        mlflow.end_run()
        mlflow.end_run()
        stray = mlflow.start_run().info.run_id
    assert mlflow.active_run() is None
    assert client.get_run(stray).info.status == "FINISHED"


def test_user_code_may_start_the_trials_run_again(client: MlflowClient, run_id: str, experiment_id: str) -> None:
    with attached(run_id, experiment_id):
        mlflow.start_run(run_id=run_id, nested=True)
    assert mlflow.active_run() is None
    assert client.get_run(run_id).info.status == "RUNNING"


def test_a_run_that_was_active_before_stays_so(client: MlflowClient, run_id: str, experiment_id: str) -> None:
    before = mlflow.start_run().info.run_id
    with attached(run_id, experiment_id):
        mlflow.start_run(nested=True)
    active = mlflow.active_run()
    assert active is not None
    assert active.info.run_id == before
    assert client.get_run(before).info.status == "RUNNING"


def test_without_the_private_stack_the_public_way_is_taken(
    client: MlflowClient, run_id: str, experiment_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(run_id: str, experiment_id: str) -> None:
        raise AttributeError("moved")

    monkeypatch.setattr(attach, "_active_run", moved)

    def objective() -> str:
        with attached(run_id, experiment_id):
            mlflow.log_metric("loss", 0.5)
            return str(mlflow.start_run(nested=True).info.run_id)

    child = in_thread(objective)
    run = client.get_run(run_id)
    assert (run.data.metrics, run.info.status) == ({"loss": 0.5}, "RUNNING")
    assert client.get_run(child).info.status == "FINISHED"
    assert mlflow.active_run() is None


@pytest.mark.usefixtures("worker")
def test_a_trial_finds_the_settings_of_the_driver_whatever_an_earlier_one_did(
    tracking_uri: str, run_id: str, experiment_id: str, tmp_path: Path
) -> None:
    def rude() -> None:
        with attached(run_id, experiment_id):
            mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
            mlflow.set_registry_uri(f"sqlite:///{tmp_path}/registry.db")
            mlflow.set_experiment("elsewhere")
            os.environ.update(MLFLOW_RUN_ID="0" * 32, MLFLOW_EXPERIMENT_NAME="elsewhere")

    def polite() -> str:
        with attached(run_id, experiment_id), mlflow.start_run(nested=True) as child:
            assert "MLFLOW_RUN_ID" not in os.environ
            assert mlflow.get_registry_uri() == tracking_uri
            return str(child.info.run_id)

    in_thread(rude)
    child = in_thread(polite)
    stored = MlflowClient(tracking_uri=tracking_uri).get_run(child)
    assert stored.info.experiment_id == experiment_id
    assert stored.data.tags[MLFLOW_PARENT_RUN_ID] == run_id
    with statements() as seen, attached(run_id, experiment_id):
        pass
    assert seen == []


@pytest.mark.parametrize("name", ["MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"])
def test_what_a_worker_inherits_costs_no_store_call(
    name: str, run_id: str, experiment_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "0")
    monkeypatch.setattr(attach, "_DRIVERS_STORE", {})
    prepare_worker()
    with statements() as seen, attached(run_id, experiment_id):
        assert os.environ.get(name) == (experiment_id if name == "MLFLOW_EXPERIMENT_ID" else None)
    assert seen == []


def test_the_users_own_process_keeps_its_settings(
    tracking_uri: str, run_id: str, experiment_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    mlflow.set_experiment("of the user")
    before = dict(os.environ)
    with attached(run_id, experiment_id):
        assert dict(os.environ) == before
    assert dict(os.environ) == before
    assert mlflow.get_tracking_uri() == tracking_uri
