"""Find the tracking store and the experiment as MLflow itself would, and fail early in one sentence."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.entities import Experiment, Run
from mlflow.exceptions import MlflowException

from mltune._util.env import environment
from mltune._util.redaction import cause, redact
from mltune.errors import RequestError, StoreUnavailableError, first_line
from mltune.retry import answering

_PROBE_TIMEOUT = 5.0  # seconds
_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Store:
    """The tracking store of a study."""

    client: MlflowClient
    uri: str
    registry_uri: str

    @property
    def environment(self) -> dict[str, str]:
        """What a worker's process needs to reach the same store."""
        return {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_REGISTRY_URI": self.registry_uri} | _QUIET


_QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
_CALL_TIMEOUT = "30"  # seconds


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow from printing bars, the address of every run that ends (and the credentials in it), and tracebacks
    of the database's errors, which it raises too.
    """
    database = logging.getLogger("mlflow.store.db.utils")

    def without_traceback(record: logging.LogRecord) -> bool:
        return record.exc_info is None

    database.addFilter(without_traceback)
    try:
        with environment(_QUIET | {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}):
            yield
    finally:
        database.removeFilter(without_traceback)


@contextlib.contextmanager
def no_mlflow_retries() -> Iterator[dict[str, str | None]]:
    """Turn MLflow's own retries (four minutes, blocking) off in this process; what they were, for the workers."""
    timeout = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", _CALL_TIMEOUT)
    ours: dict[str, str | None] = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": timeout}
    before = {name: os.environ.get(name) for name in ours}
    with environment(ours):
        yield before


@contextlib.contextmanager
def reading() -> Iterator[Store]:
    """Connect to the store for one short task, quietly; what it says in place of an answer is a request error.

    Raises:
        StoreUnavailableError: It does not answer, or refuses us.
    """
    with quiet(), no_mlflow_retries(), answering():
        yield connect()


def connect() -> Store:
    """The store that MLflow's settings name, once it has answered.

    Raises:
        StoreUnavailableError: It does not answer, or refuses us.
    """
    uri, registry_uri = _absolute(mlflow.get_tracking_uri()), _absolute(mlflow.get_registry_uri())
    is_new = _check_reachable(uri)
    client = MlflowClient(tracking_uri=uri, registry_uri=registry_uri)
    try:
        client.search_experiments(max_results=1)
    except (MlflowException, OSError) as error:
        raise StoreUnavailableError(
            f"the tracking store {redact(uri)} must be usable, but it answered: {redact(first_line(error))}"
        ) from cause(error)
    if is_new:
        _prepare(uri)
    return Store(client, uri, registry_uri)


def experiment(client: MlflowClient, name: str | None, project_run: Run | None = None) -> str:
    """The id of the experiment to use, made if only its name is known yet.

    Args:
        client: A client of the store.
        name: The experiment's name; None means what MLflow's own settings name.
        project_run: The run that ``mlflow run`` made, in whose experiment the study is then.

    Raises:
        StoreUnavailableError: The experiment is deleted, or there is none of that id.
        RequestError: The name is not that of the project run's experiment.
    """
    if project_run is not None:
        return _project_experiment(client, name, project_run)
    by_id = os.environ.get("MLFLOW_EXPERIMENT_ID")  # `mlflow.set_experiment` sets it
    name = name or (None if by_id else os.environ.get("MLFLOW_EXPERIMENT_NAME"))
    try:
        if name is None:
            return str(client.get_experiment(by_id or "0").experiment_id)
        found = client.get_experiment_by_name(name) or _created(client, name)
    except MlflowException as error:
        raise StoreUnavailableError(f"the experiment must exist, but: {redact(first_line(error))}") from cause(error)
    if found.lifecycle_stage != "active":
        raise StoreUnavailableError(f"experiment '{name}' is deleted: restore it (`mlflow experiments restore`)")
    return str(found.experiment_id)


def _created(client: MlflowClient, name: str) -> Experiment:
    try:
        return client.get_experiment(client.create_experiment(name))
    except MlflowException:
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return found  # another process was quicker


def _project_experiment(client: MlflowClient, name: str | None, run: Run) -> str:
    experiment_id = str(run.info.experiment_id)
    if name is not None and name != (actual := client.get_experiment(experiment_id).name):
        raise RequestError(
            f"`experiment_name` must be that of the run which `mlflow run` made, '{actual}', but got '{name}': "
            f"give --experiment-name to `mlflow run` itself"
        )
    return experiment_id


def _absolute(uri: str) -> str:
    """A relative SQLite file as an absolute one: workers may stand in other folders."""
    path = uri.removeprefix(_SQLITE)
    return uri if path == uri or path.startswith("/") else f"{_SQLITE}{Path(path).absolute()}"


def _check_reachable(uri: str) -> bool:
    """Fail within seconds where MLflow would retry for minutes; whether this is a database yet to be made."""
    if uri.startswith(("http://", "https://")):
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=_PROBE_TIMEOUT)
        except requests.exceptions.SSLError:
            pass  # it answers; whether its certificate will do is for MLflow's settings to say
        except requests.RequestException as error:
            raise StoreUnavailableError(
                f"the tracking server must answer, but {redact(uri)} did not ({type(error).__name__}): "
                f"start it, or set MLFLOW_TRACKING_URI"
            ) from cause(error)
    if not uri.startswith(_SQLITE):
        return False
    path = _file_of(uri)
    if not path.parent.is_dir():
        raise StoreUnavailableError(
            f"the folder of the tracking database must exist, but {path.parent} does not: "
            f"make it, or set MLFLOW_TRACKING_URI"
        )
    return not path.exists()


def _file_of(uri: str) -> Path:
    return Path(uri.removeprefix(_SQLITE).partition("?")[0])


def _prepare(uri: str) -> None:
    """Let readers and one writer work side by side in a database that was not there before (SQLite's WAL)."""
    with contextlib.closing(sqlite3.connect(_file_of(uri))) as database:
        database.execute("PRAGMA journal_mode=WAL")
