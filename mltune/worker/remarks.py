"""Suppress messages that MLflow logs while a model is saved and that the user cannot act on."""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from typing import cast

_LOGGERS = ("sklearn", "pytorch", "pyfunc", "models.signature", "models.model", "models.utils", "types.utils")
_CHOSEN_BY_US = re.compile(
    "Saving (scikit-learn|pytorch) models? .*pickle"
    "|Model was missing function"
    "|Passing a Python object as `python_model`",
    re.IGNORECASE,
)
_NO_SIGNATURE = re.compile(
    r"Failed to infer (?:the )?model signature from.*?(?:Reason|error): (.*?)(?:\. To see.*)?$", re.S
)
_INTEGER_HINT = "Hint: Inferred schema contains integer column"


class Remarks(logging.Filter):
    """Logging filter that drops such messages of the thread that created it, and of no other.

    Attributes:
        no_signature: Why MLflow could not infer the signature from the example, or None.
    """

    def __init__(self) -> None:
        super().__init__()
        self.no_signature: str | None = None
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        if threading.get_ident() != self._thread:
            return True
        text = record.getMessage()
        if failure := _NO_SIGNATURE.match(text):
            self.no_signature = failure[1]
            return False
        return record.levelno >= logging.WARNING and not _CHOSEN_BY_US.match(text)


@contextlib.contextmanager
def suppressed() -> Iterator[Remarks]:
    """Suppress MLflow's messages of this thread about saving a model that no user can act on; yield the filter."""
    remarks = Remarks()
    loggers = [logging.getLogger(f"mlflow.{name}") for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(remarks)
    try:
        with _without_integer_hint():
            yield remarks
    finally:
        for logger in loggers:
            logger.removeFilter(remarks)


@contextlib.contextmanager
def _without_integer_hint() -> Iterator[None]:
    """Ignore one warning; ``warnings.catch_warnings`` would undo changes that other threads make meanwhile."""
    warnings.filterwarnings("ignore", message=_INTEGER_HINT)
    added = warnings.filters[0]
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # another thread that logs a model has removed it
            cast("list[object]", warnings.filters).remove(added)
