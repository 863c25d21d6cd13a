"""Environment variables: which ones set threads, and how to set some for a while."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""What tells numerical libraries how many threads to use; read when they are loaded."""


@contextlib.contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Have environment variables as they are wanted (None: unset) for as long as the block runs.

    >>> with environment({"MLTUNE_EXAMPLE": "here"}):
    ...     os.environ["MLTUNE_EXAMPLE"]
    'here'
    >>> "MLTUNE_EXAMPLE" in os.environ
    False
    """
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
