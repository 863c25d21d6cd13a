"""Classify the store's errors as transient or permanent, retry calls, and describe errors in one sentence."""

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
_POOL = "QueuePool limit"  # MLflow's server answers with status 400 when its database has no connection left
_NO_USE = (  # permanent errors that SQLite raises as OperationalError
    "disk is full",
    "disk I/O error",
    "no such table",
    "not authorized",
    "readonly database",
    "unable to open database file",
)
_NETWORK = ("Connect", "Timeout", "Unavailable")  # parts of the names of cloud libraries' network exceptions


class StoreError(Exception):
    """Error for a record that cannot be written even with retries; the message is one sentence."""


class LeaseLostError(StoreError):
    """Error for a study that another driver has taken over; this driver must not write to it any more."""


def is_transient(error: Exception) -> bool:
    """Return whether the same call may succeed later.

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
    """Yield the delays between retries of one call, in seconds."""
    delay = 0.1
    while True:
        yield delay
        delay = min(2 * delay, 5.0)


def patiently(call: Callable[[], T], patience: float) -> T:
    """Return the result of a call; retry it for up to ``patience`` seconds while the store does not answer."""
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
    """Return an error's message on one line, without passwords and without the text that MLflow's HTTP library adds.

    >>> sentence(MlflowException("API request to http://me:secret@host/x failed with exception HTTPConnectionPool"
    ...                          "(host='host', port=80): Max retries exceeded with url: /x (Caused by Gone('away'))"))
    "API request to http://host/x failed: Gone('away')"
    """
    message = re.sub(
        r" failed with exception HTTPS?ConnectionPool\(.*\(Caused by (.*)\)$", r" failed: \1", first_line(error)
    )
    return redact(message) or type(error).__name__


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """Convert the store's errors within the block to request errors, for use before anything is changed.

    Raises:
        StoreUnavailableError: The store does not answer, or refuses the request.
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
    """Return whether an error is a built-in exception that no store raises; cloud libraries define their own types.

    >>> _is_bug(KeyError("x")), _is_bug(ModuleNotFoundError("No module named 'boto3'"))
    (True, False)
    """
    return type(error).__module__ == "builtins" and not isinstance(error, (OSError, ImportError))


def store_error(error: Exception) -> StoreError:
    """Return the one-sentence error that ends a study whose store has failed."""
    if isinstance(error, StoreError):
        return error
    failure = "did not come back within `store_timeout`" if is_transient(error) else "failed"
    converted = StoreError(f"the tracking store {failure}: {sentence(error)}")
    converted.__cause__ = cause(error)
    return converted
