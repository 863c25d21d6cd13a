"""What the store's errors mean: whether to try again, and how to say it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import requests
from mlflow.exceptions import MlflowException

from mltune._util.redaction import cause, redact
from mltune.errors import MltuneError, StoreUnavailableError, first_line

T = TypeVar("T")

_TRY_AGAIN = {
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL_ERROR",  # status 500, and all connection errors
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "TEMPORARILY_UNAVAILABLE",  # status 503, and every OperationalError of a database
}
_POOL = "QueuePool limit"  # MLflow's server answers 400 when its database has no connection left
_NO_USE = (  # what SQLite calls an OperationalError and time does not mend
    "disk is full",
    "disk I/O error",
    "no such table",
    "not authorized",
    "readonly database",
    "unable to open database file",
)
_NETWORK = ("Connect", "Timeout", "Unavailable")  # in the names of cloud libraries' exceptions


class StoreError(Exception):
    """The record cannot be written, and trying again is no use; one sentence."""


class LeaseLostError(StoreError):
    """Another driver has taken the study over: nothing of it is ours to write any more."""


def is_transient(error: Exception) -> bool:
    """Whether the same call may work later.

    >>> is_transient(ConnectionResetError()), is_transient(OSError(28, "No space left on device"))
    (True, False)
    """
    if isinstance(error, MlflowException):
        text = str(error)
        if any(phrase in text for phrase in _NO_USE):
            return False
        return error.error_code in _TRY_AGAIN or _POOL in text or " timeout exception " in text
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return error.response.status_code >= 500 or error.response.status_code == 429 or _POOL in str(error)
    if isinstance(error, (ConnectionError, TimeoutError, requests.RequestException)):
        return True
    return any(word in type(error).__name__ for word in _NETWORK)


def delays() -> Iterator[float]:
    """Seconds between the tries of one call."""
    delay = 0.1
    while True:
        yield delay
        delay = min(2 * delay, 5.0)


def patiently(call: Callable[[], T], patience: float) -> T:
    """What a call returns; it is made again while the store does not answer, for so many seconds."""
    since = time.monotonic()
    for delay in delays():
        try:
            return call()
        except Exception as error:
            if not is_transient(error) or time.monotonic() - since >= patience:
                raise
        time.sleep(delay)
    raise AssertionError("unreachable")


def sentence(error: Exception) -> str:
    """What an error says, on one line, without passwords and without what MLflow's HTTP library adds.

    >>> sentence(MlflowException("API request to http://me:secret@host/x failed with exception HTTPConnectionPool"
    ...                          "(host='host', port=80): Max retries exceeded with url: /x (Caused by Gone('away'))"))
    "API request to http://host/x failed: Gone('away')"
    """
    said = re.sub(
        r" failed with exception HTTPS?ConnectionPool\(.*\(Caused by (.*)\)$", r" failed: \1", first_line(error)
    )
    return redact(said) or type(error).__name__


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Make a request error of what the store says while nothing is changed yet.

    Raises:
        StoreUnavailableError: It does not answer, or refuses.
    """
    try:
        yield
    except MltuneError:
        raise
    except Exception as error:
        if _is_bug(error):
            raise
        raise StoreUnavailableError(f"the tracking store must answer, but: {sentence(error)}") from cause(error)


def _is_bug(error: Exception) -> bool:
    """Whether an error is one of Python's own that no store raises; cloud libraries have errors of their own.

    >>> _is_bug(KeyError("x")), _is_bug(ModuleNotFoundError("No module named 'boto3'"))
    (True, False)
    """
    return type(error).__module__ == "builtins" and not isinstance(error, (OSError, ImportError))


def store_error(error: Exception) -> StoreError:
    """The sentence that a study ends with."""
    if isinstance(error, StoreError):
        return error
    what = "did not come back within `store_timeout`" if is_transient(error) else "failed"
    found = StoreError(f"the tracking store {what}: {sentence(error)}")
    found.__cause__ = cause(error)
    return found
