"""Find the tracking store and the experiment as MLflow does, and fail early with a one-sentence error."""

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

from mltune._util import timing
from mltune._util.env import environment
from mltune._util.redaction import cause, redact
from mltune.errors import RequestError, StoreUnavailableError, first_line
from mltune.retry import answering

_SQLITE = "sqlite:///"


@dataclass(frozen=True)
class Store:
    """The tracking store of a study."""

    client: MlflowClient
    uri: str
    registry_uri: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that a worker's process needs to reach the same store."""
        return {"MLFLOW_TRACKING_URI": self.uri, "MLFLOW_REGISTRY_URI": self.registry_uri} | _QUIET


_QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
_CALL_TIMEOUT = "30"  # seconds


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress MLflow's progress bars, run URLs and database tracebacks within the block.

    MLflow prints the URL of every run that ends, with any credentials in it, and tracebacks of errors that it also
    raises.
    """
    database = logging.getLogger("mlflow.store.db.utils")

    def without_traceback(record: logging.LogRecord) -> bool:
        return record.exc_info is None

    database.addFilter(without_traceback)
    try:
        with environment(_QUIET):
            yield
    finally:
        database.removeFilter(without_traceback)


@contextlib.contextmanager
def no_mlflow_retries() -> Iterator[dict[str, str | None]]:
    """Disable MLflow's own retries, which block for four minutes, in this process.

    Yield the previous settings, for the workers.
    """
    timeout = os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", _CALL_TIMEOUT)
    settings: dict[str, str | None] = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": timeout}
    before = {name: os.environ.get(name) for name in settings}
    with environment(settings):
        yield before


@contextlib.contextmanager
def reading() -> Iterator[Store]:
    """Connect to the store for one short task, without MLflow's output; convert the store's errors to request errors.

    Raises:
        StoreUnavailableError: The store does not answer, or refuses access.
    """
    with quiet(), no_mlflow_retries(), answering():
        yield connect()


def connect() -> Store:
    """Return the store that MLflow's settings name, after checking that it answers.

    Raises:
        StoreUnavailableError: The store does not answer, or refuses access.
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


def get_or_create_experiment(client: MlflowClient, name: str | None, project_run: Run | None = None) -> str:
    """Return the id of the experiment to use; create the experiment if the name is new.

    Args:
        client: A client of the store.
        name: The experiment's name, or None to use the experiment that MLflow's own settings name.
        project_run: The run that ``mlflow run`` created, or None; if given, the study uses its experiment.

    Raises:
        StoreUnavailableError: The experiment is deleted, or no experiment has the id.
        RequestError: ``name`` is not the name of the project run's experiment.
    """
    if project_run is not None:
        return _project_experiment(client, name, project_run)
    by_id = os.environ.get("MLFLOW_EXPERIMENT_ID")  # `mlflow.set_experiment` sets it
    name = name or (None if by_id else os.environ.get("MLFLOW_EXPERIMENT_NAME"))
    try:
        if name is None:
            return str(client.get_experiment(by_id or "0").experiment_id)
        selected = client.get_experiment_by_name(name) or _created(client, name)
    except MlflowException as error:
        raise StoreUnavailableError(f"the experiment must exist, but: {redact(first_line(error))}") from cause(error)
    if selected.lifecycle_stage != "active":
        raise StoreUnavailableError(f"experiment '{name}' is deleted: restore it (`mlflow experiments restore`)")
    return str(selected.experiment_id)


def _created(client: MlflowClient, name: str) -> Experiment:
    try:
        return client.get_experiment(client.create_experiment(name))
    except MlflowException:
        existing = client.get_experiment_by_name(name)
        if existing is None:
            raise
        return existing  # another process created it first


def _project_experiment(client: MlflowClient, name: str | None, run: Run) -> str:
    experiment_id = str(run.info.experiment_id)
    if name is not None and name != (actual := client.get_experiment(experiment_id).name):
        raise RequestError(
            f"`experiment_name` must be that of the run which `mlflow run` made, '{actual}', but got '{name}': "
            f"give --experiment-name to `mlflow run` itself"
        )
    return experiment_id


def _absolute(uri: str) -> str:
    """Return a URI with the path of a SQLite file made absolute, because workers may run in other folders."""
    path = uri.removeprefix(_SQLITE)
    return uri if path == uri or path.startswith("/") else f"{_SQLITE}{Path(path).absolute()}"


def _check_reachable(uri: str) -> bool:
    """Raise within seconds if the store cannot be reached; MLflow would retry for minutes.

    Returns:
        Whether the store is a SQLite database that does not exist yet.
    """
    if uri.startswith(("http://", "https://")):
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=timing.TIMING.probe)
        except requests.exceptions.SSLError:
            pass  # the server answers; MLflow's settings decide whether to accept its certificate
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
    """Enable SQLite's WAL mode in a new database, so that readers and one writer can work concurrently."""
    with contextlib.closing(sqlite3.connect(_file_of(uri))) as database:
        database.execute("PRAGMA journal_mode=WAL")
