"""Have a registered model used in a fresh process before anyone relies on it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory

from mltune._util.processes import end_marked
from mltune._util.redaction import redact
from mltune.execution.template import Template
from mltune.execution.worker_process import WorkerProcess
from mltune.messages import Verification

_POLL = 0.05  # seconds between calls of `check`
_PATIENCE = 600.0  # seconds that a model may take to load and predict
_LENGTH = 500  # characters of a reason at most


def verify_model(
    template: Template | None,
    uri: str,
    environment: Mapping[str, str | None],
    check: Callable[[], None],
    patience: float = _PATIENCE,
) -> str | None:
    """Return why a model cannot be used, or None if it loads and predicts on its input example (if it has one).

    Args:
        template: Starts the process; if it is None, the process is a new program.
        uri: The model's URI, such as ``models:/NAME/3``.
        environment: Environment variables that the process needs to reach the store; None unsets one.
        check: Called repeatedly during the wait; it may raise to end the wait.
        patience: Seconds that the model may take.
    """
    answers: list[str | None] = []
    with TemporaryDirectory(prefix="mltune-") as folder:
        process = WorkerProcess(template or Template(os.environ, preload=False), "the process")
        try:
            process.send(Verification(uri=uri, environment=environment, folder=folder))
            deadline = time.monotonic() + patience
            while not process.connection.poll(_POLL):
                check()
                if time.monotonic() > deadline:
                    return f"that took longer than {patience:g} s"
            with contextlib.suppress(EOFError, OSError):  # it died
                answers.append(process.connection.recv())
        finally:
            ended = process.end()
            end_marked({process.mark})
    fault = answers[0] if answers else ended.how
    return None if fault is None else redact(fault)[:_LENGTH]
