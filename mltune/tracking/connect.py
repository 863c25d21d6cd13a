"""Find the tracking store and the experiment as MLflow itself would, and fail early in one sentence."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mltune.errors import StoreUnavailableError

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


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow from printing the address of every run that ends (it would print credentials in it, too)."""
    before = {name: os.environ.get(name) for name in _QUIET}
    os.environ.update(_QUIET)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


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
            f"the tracking store {redact(uri)} must be usable, but it answered: {redact(_first_line(error))}"
        ) from error
    if is_new:
        _prepare(uri)
    return Store(client, uri, registry_uri)


def experiment(client: MlflowClient, name: str | None) -> str:
    """The id of the experiment to use, made if only its name is known yet.

    Args:
        client: A client of the store.
        name: The experiment's name; None means what MLflow's own settings name.

    Raises:
        StoreUnavailableError: The experiment is deleted, or there is none of that id.
    """
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    try:
        if name is None:
            return str(client.get_experiment(os.environ.get("MLFLOW_EXPERIMENT_ID", "0")).experiment_id)
        found = client.get_experiment_by_name(name)
        if found is None:
            return str(client.create_experiment(name))
    except MlflowException as error:
        raise StoreUnavailableError(f"the experiment must exist, but: {_first_line(error)}") from error
    if found.lifecycle_stage != "active":
        raise StoreUnavailableError(f"experiment '{name}' is deleted: restore it (`mlflow experiments restore`)")
    return str(found.experiment_id)


def redact(text: str) -> str:
    """The text without user names and passwords in addresses."""
    return re.sub(r"://[^/@\s]+@", "://", text)


def _absolute(uri: str) -> str:
    """A relative SQLite file as an absolute one: workers may stand in other folders."""
    path = uri.removeprefix(_SQLITE)
    return uri if path == uri or path.startswith("/") else f"{_SQLITE}{Path(path).absolute()}"


def _check_reachable(uri: str) -> bool:
    """Fail within seconds where MLflow would retry for minutes; whether this is a database yet to be made."""
    if uri.startswith(("http://", "https://")):
        try:
            requests.get(f"{uri.rstrip('/')}/health", timeout=_PROBE_TIMEOUT)
        except requests.RequestException as error:
            raise StoreUnavailableError(
                f"the tracking server must answer, but {redact(uri)} did not ({type(error).__name__}): "
                f"start it, or set MLFLOW_TRACKING_URI"
            ) from error
    if not uri.startswith(_SQLITE):
        return False
    path = Path(uri.removeprefix(_SQLITE))
    if not path.parent.is_dir():
        raise StoreUnavailableError(
            f"the folder of the tracking database must exist, but {path.parent} does not: "
            f"make it, or set MLFLOW_TRACKING_URI"
        )
    return not path.exists()


def _prepare(uri: str) -> None:
    """Let readers and one writer work side by side in a database that was not there before (SQLite's WAL)."""
    with contextlib.closing(sqlite3.connect(uri.removeprefix(_SQLITE))) as database:
        database.execute("PRAGMA journal_mode=WAL")


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
