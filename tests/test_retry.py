"""What the store's errors mean, as MLflow really raises them: over HTTP, and from a database."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient
from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from mltune.retry import StoreError, answering, is_transient, sentence, store_error
from mltune.tracking.connection import no_mlflow_retries
from tests.proxy import Fault, Proxy, answers, drops, pool, proxy_before, slow
from tests.shared import copy_store

DOWN = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    """Answers 502, unless it is told otherwise."""
    with proxy_before(DOWN) as proxy:
        yield proxy


def error_of(uri: str) -> MlflowException:
    with no_mlflow_retries(), pytest.raises(MlflowException) as caught:
        MlflowClient(tracking_uri=uri).log_metric("run", "m", 1.0)
    return caught.value


@pytest.mark.parametrize(
    ("fault", "may_pass"),
    [
        (answers(500), True),
        (answers(500, error_code="INTERNAL_ERROR"), True),
        (answers(502), True),
        (answers(503, "database is locked", "TEMPORARILY_UNAVAILABLE"), True),
        (answers(504), True),
        (answers(429), True),
        (answers(429, error_code="REQUEST_LIMIT_EXCEEDED"), True),
        (answers(200, "<html>please log in</html>"), True),
        (answers(503, "disk is full", "TEMPORARILY_UNAVAILABLE"), True),  # MLflow's HTTP client keeps the text back
        (pool, True),
        (drops, True),
        (slow(3.0), True),
        (answers(400, error_code="INVALID_PARAMETER_VALUE"), False),
        (answers(401, "You are not authenticated."), False),
        (answers(403, "Permission denied"), False),
        (answers(403, error_code="PERMISSION_DENIED"), False),
        (answers(404, error_code="RESOURCE_DOES_NOT_EXIST"), False),
    ],
)
def test_over_http(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, fault: Fault, may_pass: bool) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    proxy.be_well()
    proxy.go_wrong(fault)
    error = error_of(proxy.address)
    assert is_transient(error) is may_pass, error
    assert ("store_timeout" in str(store_error(error))) is may_pass


def test_a_server_that_is_not_there() -> None:
    error = error_of(DOWN)
    assert is_transient(error)
    assert sentence(error).startswith(
        f"API request to {DOWN}/api/2.0/mlflow/runs/log-metric failed: NewConnectionError"
    )
    assert "Connection refused" in sentence(error)
    assert "Pool" not in sentence(error)


def test_passwords_are_not_repeated(proxy: Proxy) -> None:
    proxy.be_well()
    error = error_of(proxy.address.replace("://", "://me:secret@"))
    assert "secret" in str(error)
    assert "secret" not in str(store_error(error))


@pytest.fixture
def database(empty_store: Path, chdir: Path) -> Path:
    copy_store(empty_store, chdir)
    return chdir / "mlflow.db"


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(client: MlflowClient, run_id: str) -> None:
    for i in range(50):
        client.log_batch(run_id, tags=[RunTag(f"{i}-{k}", "x" * 5000) for k in range(50)])


def test_a_disk_that_is_full(database: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    run_id = client.create_run("0").info.run_id
    with no_file_larger_than(database.stat().st_size + 50_000), pytest.raises(MlflowException) as caught:
        fill(client, run_id)
    assert not is_transient(caught.value)
    assert "\n" not in str(store_error(caught.value))


def test_a_table_that_is_gone(database: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    run_id = client.create_run("0").info.run_id
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DROP TABLE tags")
    with pytest.raises(MlflowException) as caught:
        client.set_tag(run_id, "a", "b")
    assert not is_transient(caught.value)


def test_a_run_that_is_deleted(database: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    run_id = client.create_run("0").info.run_id
    client.delete_run(run_id)
    client.delete_run(run_id)  # which may be repeated
    with pytest.raises(MlflowException) as caught:
        client.set_tag(run_id, "a", "b")
    assert not is_transient(caught.value)


def response(status: int) -> requests.HTTPError:
    answer = requests.Response()
    answer.status_code = status
    return requests.HTTPError("artifact", response=answer)


@pytest.mark.parametrize(
    ("error", "may_pass"),
    [
        (response(500), True),
        (response(429), True),
        (response(403), False),
        (requests.ConnectTimeout(), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (type("EndpointConnectionError", (Exception,), {})(), True),  # botocore's
        (PermissionError("not yours"), False),
        (OSError(28, "No space left on device"), False),
        (StoreError("the study's run was deleted"), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_other_errors(error: Exception, may_pass: bool) -> None:
    assert is_transient(error) is may_pass


def test_an_error_of_ours_is_not_taken_for_the_stores() -> None:
    with pytest.raises(TypeError, match="must be a string or a real number"), answering():
        float([])  # type: ignore[arg-type]
