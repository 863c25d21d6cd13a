"""Have a registered model used in a fresh process before anyone relies on it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mltune._util import timing
from mltune._util.processes import MARK, end_marked
from mltune._util.redaction import redact
from mltune.execution.template import start_program
from mltune.execution.worker_process import WorkerProcess
from mltune.messages import Verification

if TYPE_CHECKING:
    from mltune.execution.template import Start

_POLL = 0.05  # seconds between calls of `check`
_LENGTH = 500  # characters of a reason at most


def verify_model(
    start: Start | None,
    uri: str,
    environment: Mapping[str, str | None],
    check: Callable[[], None],
) -> str | None:
    """Return why a model cannot be used, or None if it loads and predicts on its input example (if it has one).

    Args:
        start: Starts the process; if it is None, or starts none, the process is a new program.
        uri: The model's URI, such as ``models:/NAME/3``.
        environment: Environment variables that the process needs to reach the store, beside the driver's; None unsets
            one.
        check: Called repeatedly during the wait; it may raise to end the wait.
    """
    with TemporaryDirectory(prefix="mltune-") as folder:
        request = Verification(uri=uri, environment=_environment(environment), folder=folder)
        program = partial(start_program, folder=folder)
        process = WorkerProcess(start or program, "the process")
        fault = _verify(process, request, check)
        if start is not None and process.supervisor.pid is None:  # the template could not fork, or was killed
            fault = _verify(WorkerProcess(program, "the process"), request, check)
    return None if fault is None else redact(fault)[:_LENGTH]


def _environment(changes: Mapping[str, str | None]) -> dict[str, str]:
    """Return the driver's environment, as it is now, with changes; but no run may be the model's."""
    variables = {**os.environ, **changes, "MLFLOW_RUN_ID": None, MARK: None}
    return {name: value for name, value in variables.items() if value is not None}


def _verify(process: WorkerProcess, request: Verification, check: Callable[[], None]) -> str | None:
    answers: list[str | None] = []
    patience = timing.TIMING.verification
    try:
        process.send(request)
        deadline = time.monotonic() + patience
        while not process.connection.poll(_POLL):
            check()
            if time.monotonic() > deadline:
                return f"that took longer than {patience:g} s"
            if process.supervisor.has_ended() and not process.connection.poll():
                break  # what it started may still hold its channel open
        else:
            with contextlib.suppress(EOFError, OSError):  # it died
                answers.append(process.connection.recv())
    finally:
        ended = process.end()
        end_marked({process.mark})
    return answers[0] if answers else ended.how
