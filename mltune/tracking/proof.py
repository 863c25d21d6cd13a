"""Load a registered model as a server would: in a new process, in an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from mltune._util.redaction import redact

_POLL = 0.05  # seconds between checks of the process
_PATIENCE = 600.0  # seconds that a model may take to load and predict

_CODE = """
import sys
import mlflow.pyfunc
try:
    model = mlflow.pyfunc.load_model(sys.argv[1])
    if model.input_example is not None:
        model.predict(model.input_example)
except BaseException as error:
    print(f"{type(error).__name__}: {error}".partition(chr(10))[0])
    sys.exit(1)
"""


def verify_model(uri: str, environment: Mapping[str, str | None], check: Callable[[], None]) -> str | None:
    """Return why a model cannot be used, or None if it loads and predicts on its input example (if it has one).

    Args:
        uri: The model's URI, such as ``models:/NAME/3``.
        environment: Environment variables that the process needs to reach the store; None unsets one.
        check: Called repeatedly during the wait; it may raise to end the wait.
    """
    with TemporaryDirectory(prefix="mltune-") as folder:
        output = Path(folder, "output")
        empty = Path(folder, "empty")
        empty.mkdir()
        variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", _CODE, uri],
                cwd=empty,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a signal to the driver's process group must not count against the model
            )
            deadline = time.monotonic() + _PATIENCE
            try:
                while process.poll() is None:
                    check()
                    if time.monotonic() > deadline:
                        return f"that took longer than {_PATIENCE:g} s"
                    time.sleep(_POLL)
            finally:
                process.kill()
                process.wait()
        lines = output.read_text(errors="replace").splitlines() or [f"the process ended with code {process.returncode}"]
        return None if process.returncode == 0 else redact(lines[-1])[:500]
