"""Environment variables: those that set thread counts, and a context manager that sets some temporarily."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Variables that set the number of threads of numerical libraries, which read them when they are loaded."""

QUIET_ARROW = ("JE_ARROW_MALLOC_CONF", "background_thread:false")
"""A variable and its value that keep PyArrow's allocator from starting a thread, which a fork would lose."""


@contextlib.contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables within the block (None unsets one), and restore them after it.

    >>> with environment({"MLTUNE_EXAMPLE": "here"}):
    ...     os.environ["MLTUNE_EXAMPLE"]
    'here'
    >>> "MLTUNE_EXAMPLE" in os.environ
    False
    """
    before = {name: os.environ.get(name) for name in variables}
    set_variables(variables)
    try:
        yield
    finally:
        set_variables(before)


def set_variables(variables: Mapping[str, str | None]) -> None:
    """Set environment variables; None unsets one."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
